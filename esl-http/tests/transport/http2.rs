//! Receivers that choose HTTP/2.

use std::{
    convert::Infallible,
    future::{Future, pending},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use esl_core::AttemptError;
use esl_http::HttpTransport;
use futures_util::{FutureExt as _, future::join_all};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, Version, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::server::TlsStream;

use crate::{
    BODY, answer, authority::Authority, detail, error, receiver::listen, send, send_fresh,
};

/// Takes connections, and does with each what a test says; stops when it is dropped.
struct Receiver {
    authority: Authority,
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Receiver {
    async fn start<S, F>(script: S) -> Self
    where
        S: Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let authority = Authority::new();
        let acceptor = authority.acceptor(&["localhost"], 2999, &["h2", "http/1.1"]);
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let (acceptor, script) = (acceptor.clone(), script.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    script(stream).await;
                });
            }
        });
        Self { authority, address, accepted, task }
    }

    /// Answers with a hyper server.
    async fn serving<H, F>(
        configure: impl Fn(&mut http2::Builder<TokioExecutor>) + Clone + Send + 'static,
        handle: H,
    ) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::start(move |stream| {
            let (configure, handle) = (configure.clone(), handle.clone());
            let service = service_fn(move |request| handle(request).map(Ok::<_, Infallible>));
            async move {
                let mut server = http2::Builder::new(TokioExecutor::new());
                configure(&mut server);
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// Answers each stream by its number in its connection: 1, 2, 3 …
    async fn by_stream(
        act: impl Fn(&mut h2::server::SendResponse<Bytes>, usize) + Clone + Send + 'static,
    ) -> Self {
        Self::start(move |stream| {
            let act = act.clone();
            async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut number = 0;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    number += 1;
                    act(&mut respond, number);
                    drop(request);
                }
            }
        })
        .await
    }

    fn transport(&self) -> HttpTransport {
        self.authority.believer().build().unwrap()
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/hook", self.address.port())
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ok(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(body.into()))
}

#[tokio::test]
async fn all_attempts_share_one_connection() {
    let receiver = Receiver::serving(
        |_| {},
        |request| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.uri().path(), "/hook");
            assert_eq!(request.uri().host(), Some("localhost"));
            assert_eq!(request.headers()["x-sapien-event"], "person.updated");
            assert_eq!(request.headers()["content-length"], BODY.len().to_string().as_str());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, BODY);
            ok("")
        },
    )
    .await;
    let (transport, url) = (receiver.transport(), receiver.url());
    let first = send(&transport, &url).await;
    assert!(first.timings.tls.is_some() && first.timings.first_byte.is_some());
    assert_eq!(answer(first).status, 200);
    for sent in join_all((0..50).map(|_| send(&transport, &url))).await {
        assert!(sent.timings.connect.is_none() && sent.timings.first_byte.is_some());
        assert_eq!(answer(sent).status, 200);
    }
    assert_eq!(receiver.accepted(), 1);
}

#[tokio::test]
async fn a_receiver_that_takes_one_request_at_a_time_gets_all_of_them() {
    let at_once = Arc::new(AtomicUsize::new(0));
    let receiver = Receiver::serving(
        |server| {
            server.max_concurrent_streams(1);
        },
        move |_| {
            let at_once = Arc::clone(&at_once);
            async move {
                assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                ok("")
            }
        },
    )
    .await;
    let (transport, url) = (receiver.transport(), receiver.url());
    answer(send(&transport, &url).await);
    for sent in join_all((0..20).map(|_| send(&transport, &url))).await {
        assert_eq!(answer(sent).status, 200);
    }
    assert_eq!(receiver.accepted(), 1);
}

#[tokio::test]
async fn many_first_attempts_at_once_all_arrive() {
    let receiver = Receiver::serving(|_| {}, |_| async { ok("") }).await;
    let (transport, url) = (receiver.transport(), receiver.url());
    for sent in join_all((0..20).map(|_| send(&transport, &url))).await {
        assert_eq!(answer(sent).status, 200);
    }
}

#[tokio::test]
async fn an_attempt_that_is_given_up_takes_back_its_request_and_leaves_the_connection() {
    /// Tells when it is dropped.
    struct Signal(Arc<Notify>);
    impl Drop for Signal {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    let (arrived, taken_back) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (Arc::clone(&arrived), Arc::clone(&taken_back));
    let receiver = Receiver::serving(
        |_| {},
        move |request| {
            let (arrived, taken_back) = signals.clone();
            async move {
                if request.uri().path() == "/slow" {
                    let _signal = Signal(taken_back);
                    arrived.notify_one();
                    return pending().await;
                }
                ok("")
            }
        },
    )
    .await;
    let transport = receiver.transport();
    answer(send(&transport, &receiver.url()).await);
    let slow = receiver.url().replace("/hook", "/slow");
    tokio::select! {
        _ = send(&transport, &slow) => panic!("nobody answers"),
        () = arrived.notified() => {}
    }
    taken_back.notified().await;
    answer(send(&transport, &receiver.url()).await);
    assert_eq!(receiver.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up_before_the_attempt_is() {
    let receiver = Receiver::start(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        // So that the answer leaves; what comes next is read and nothing said to it.
        let _second = connection.accept().await;
        pending::<()>().await;
    })
    .await;
    let transport = receiver.transport();
    answer(send(&transport, &receiver.url()).await);
    // From here on time passes as soon as there is nothing to do but to wait.
    tokio::time::pause();
    let sent = send(&transport, &receiver.url()).await;
    assert_eq!(error(&sent), AttemptError::StaleConnection, "{}", detail(&sent));
    tokio::time::resume();
    assert_eq!(receiver.accepted(), 1);
    answer(send(&transport, &receiver.url()).await);
    assert_eq!(receiver.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_ends_under_a_later_attempt_was_stale() {
    let receiver = Receiver::start(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        let _second = connection.accept().await;
    })
    .await;
    let transport = receiver.transport();
    answer(send(&transport, &receiver.url()).await);
    let stale = send(&transport, &receiver.url()).await;
    assert_eq!(error(&stale), AttemptError::StaleConnection, "{}", detail(&stale));
    assert_eq!(receiver.accepted(), 1, "nothing was tried again in secret");
    answer(send_fresh(&transport, &receiver.url()).await);
    assert_eq!(receiver.accepted(), 2);
}

#[tokio::test]
async fn a_refused_stream_was_not_looked_at_and_any_other_reset_is_one() {
    for (reason, expected) in [
        (h2::Reason::REFUSED_STREAM, AttemptError::StaleConnection),
        (h2::Reason::INTERNAL_ERROR, AttemptError::Reset),
        (h2::Reason::CANCEL, AttemptError::Reset),
    ] {
        let receiver = Receiver::by_stream(move |respond, number| {
            if number == 1 {
                respond.send_response(Response::new(()), true).unwrap();
            } else {
                respond.send_reset(reason);
            }
        })
        .await;
        let transport = receiver.transport();
        answer(send(&transport, &receiver.url()).await);
        let sent = send(&transport, &receiver.url()).await;
        assert_eq!(error(&sent), expected, "{reason}: {}", detail(&sent));
        assert_eq!(receiver.accepted(), 1);
    }
}

#[tokio::test]
async fn a_first_stream_that_is_refused_is_not_stale() {
    let receiver =
        Receiver::by_stream(|respond, _| respond.send_reset(h2::Reason::REFUSED_STREAM)).await;
    let transport = receiver.transport();
    let sent = send(&transport, &receiver.url()).await;
    assert_eq!(error(&sent), AttemptError::Reset, "{}", detail(&sent));
    let sent = send_fresh(&transport, &receiver.url()).await;
    assert_eq!(error(&sent), AttemptError::Reset, "{}", detail(&sent));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset() {
    let receiver = Receiver::by_stream(|respond, _| {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"begun"), false).unwrap();
        body.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let sent = send(&receiver.transport(), &receiver.url()).await;
    assert_eq!(error(&sent), AttemptError::Reset);
}

#[tokio::test]
async fn of_a_long_answer_the_beginning_is_read_and_the_connection_stays() {
    let receiver = Receiver::serving(
        |_| {},
        |_| async {
            let mut response = ok(vec![b'x'; 10_000_000]);
            *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
            response
        },
    )
    .await;
    let (transport, url) = (receiver.transport(), receiver.url());
    for _ in 0..5 {
        let answer = answer(send(&transport, &url).await);
        assert_eq!((answer.status, answer.excerpt.len()), (502, 1024));
    }
    assert_eq!(receiver.accepted(), 1);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_not_read() {
    let receiver = Receiver::serving(
        |_| {},
        |_| async {
            let mut response = ok("");
            for number in 0..20 {
                let name = hyper::header::HeaderName::try_from(format!("x-{number}")).unwrap();
                response.headers_mut().insert(name, "x".repeat(1000).try_into().unwrap());
            }
            response
        },
    )
    .await;
    let sent = send(&receiver.transport(), &receiver.url()).await;
    assert_eq!(error(&sent), AttemptError::Reset);
    assert!(detail(&sent).contains("too large"), "{}", detail(&sent));
}

#[tokio::test]
async fn a_fresh_attempt_has_a_connection_of_its_own() {
    let receiver = Receiver::serving(|_| {}, |_| async { ok("") }).await;
    let (transport, url) = (receiver.transport(), receiver.url());
    for number in 1..=3 {
        let sent = send_fresh(&transport, &url).await;
        assert!(sent.timings.connect.is_some());
        assert_eq!(answer(sent).status, 200);
        assert_eq!(receiver.accepted(), number);
    }
}

#[tokio::test]
async fn beyond_the_limit_connections_are_used_only_once() {
    let receiver = Receiver::serving(|_| {}, |_| async { ok("") }).await;
    let transport = receiver.authority.believer().with_kept_connections_max(0).build().unwrap();
    for _ in 0..3 {
        answer(send(&transport, &receiver.url()).await);
    }
    assert_eq!(receiver.accepted(), 3);
}
