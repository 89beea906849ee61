//! Stores that choose HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use esl_core::DataRef;
use esl_http::receiver::{Fetch as _, FetchError};
use h2::{Reason, SendStream};
use http::Response;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{DATA, anywhere, from_now, reference, server::acceptor};

/// Takes one connection and answers its requests; stops when it is dropped.
struct Store {
    address: SocketAddr,
    certificate: Vec<u8>,
    task: JoinHandle<()>,
}

impl Store {
    /// What is sent of a body is up to a test.
    async fn start(send: impl Fn(&mut SendStream<Bytes>) + Send + 'static) -> Self {
        let (acceptor, certificate) = acceptor(&["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert!(!request.headers().contains_key("authorization"));
                send(&mut respond.send_response(Response::new(()), false).unwrap());
            }
        });
        Self { address, certificate, task }
    }

    async fn fetch(&self, reference: &DataRef) -> Result<Bytes, FetchError> {
        let fetcher = anywhere().with_root_certificates([self.certificate.clone()]);
        fetcher.build().unwrap().fetch(reference).await
    }

    fn url(&self) -> String {
        format!("https://{}/blob", self.address)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What comes of fetching [`DATA`] from a store that sends this.
async fn fetched(
    send: impl Fn(&mut SendStream<Bytes>) + Send + 'static,
) -> Result<Bytes, FetchError> {
    let store = Store::start(send).await;
    store.fetch(&reference(store.url())).await
}

#[tokio::test]
async fn good_data_is_had_also_in_many_windows() {
    let whole = fetched(|body| body.send_data(DATA.into(), true).unwrap()).await;
    assert_eq!(whole.unwrap(), DATA);
    let parts = |body: &mut SendStream<Bytes>| {
        let (front, back) = DATA.split_at(10);
        body.send_data(front.into(), false).unwrap();
        body.send_data(back.into(), false).unwrap();
        body.send_data(Bytes::new(), true).unwrap();
    };
    assert_eq!(fetched(parts).await.unwrap(), DATA);

    let large = Bytes::from(vec![b' '; 20 << 20]);
    let sent = large.clone();
    let store = Store::start(move |body| body.send_data(sent.clone(), true).unwrap()).await;
    let reference = DataRef::to_blob(&large, store.url(), from_now(60_000));
    assert!(store.fetch(&reference).await.unwrap() == large, "all of it came as it was");
}

#[tokio::test]
async fn what_is_not_what_the_event_says_is_refused() {
    let changed = fetched(|body| body.send_data(DATA.replace('n', "m").into(), true).unwrap());
    assert!(matches!(changed.await, Err(FetchError::Checksum)));
    let short = fetched(|body| body.send_data(DATA[..9].into(), true).unwrap());
    assert!(matches!(short.await, Err(FetchError::TooShort)));
    let long = fetched(|body| body.send_data(format!("{DATA} ").into(), true).unwrap());
    assert!(matches!(long.await, Err(FetchError::TooLong)));
    let broken_off = fetched(|body| {
        body.send_data(DATA[..9].into(), false).unwrap();
        body.send_reset(Reason::INTERNAL_ERROR);
    });
    assert!(matches!(broken_off.await, Err(FetchError::Unavailable(_))));
}
