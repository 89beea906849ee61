//! Something between ESL and the broker that can be cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::ports::free_port;

/// A port that leads to the broker while it is open.
pub(crate) struct Proxy {
    address: SocketAddr,
    url: String,
    target: String,
    way: Mutex<Option<JoinSet<()>>>,
}

impl Proxy {
    /// A way to the broker of this URL, which is closed.
    pub(crate) async fn to(url: &str) -> Arc<Self> {
        let (before, rest) = url.split_once('@').unwrap();
        let (target, vhost) = rest.split_once('/').unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let url = format!("{before}@{address}/{vhost}");
        Arc::new(Self { address, url, target: target.to_owned(), way: Mutex::default() })
    }

    /// Where ESL is to go.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn open(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let target = self.target.clone();
        let mut way = JoinSet::new();
        way.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(&target).await.unwrap();
                connections.spawn(async move {
                    // That one side is gone is what the tests are about.
                    _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
    }

    /// Cuts all connections, and lets none be made.
    pub(crate) async fn cut(&self) {
        let way = self.way.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut way) = way {
            way.shutdown().await;
        }
    }
}
