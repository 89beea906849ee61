//! Resolves the names of receivers.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::connector::lack;

/// Finds the addresses of a name.
///
/// It is asked whenever a connection is opened. It need not filter: an address that must not be
/// called is refused whoever answered it.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a host, in the order in which they should be tried.
    ///
    /// # Errors
    /// When there are none, or nobody could be asked. The text is shown to the subscriber. One that
    /// says that this process may open no more files (`EMFILE`, `ENFILE`) costs no attempt.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver (`getaddrinfo`), with its hosts file and its settings.
///
/// It blocks a thread while it asks, so at most 64 names are asked for at once; the runtime's other
/// blocking work keeps its threads even when a name server hangs.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    turns: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.expect("nobody closes the semaphore");
        let host = host.to_owned();
        spawn_blocking(move || {
            // A caller that gives up does not free the thread, so the turn ends here.
            let _turn = turn;
            match (host.as_str(), 0).to_socket_addrs() {
                Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
                Err(error) => Err(own_lack().unwrap_or(error)),
            }
        })
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the resolver was stopped")))
    }
}

/// What this side has too little of. When there is no descriptor left for its files and sockets, the
/// system's resolver says no more than that there is no such name, for which a receiver would be
/// blamed. So one that has failed is followed by an attempt to open something.
fn own_lack() -> Option<io::Error> {
    let error = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).err()?;
    lack(&error).is_some().then_some(error)
}

const LOOKUPS_MAX: usize = 64;
