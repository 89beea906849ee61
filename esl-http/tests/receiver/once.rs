//! Taking an event once.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse as _,
    routing::post,
};
use esl_core::{Begun, Clock as _, EventKey, MemorySeen, Seen, SeenError, SystemClock};
use esl_http::receiver::Receiver;
use http::StatusCode;
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

use crate::delivery::{EVENT, headers_at, number, send, signed, status, verifier, with_headers};

const OTHER: &str = "evt_01J00000000000000000000001";

/// A router whose handler is told what to answer by the number of its run, 1, 2, 3 …
fn answering(receiver: &Receiver, answer: fn(usize) -> StatusCode) -> (Router, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let handler = move || async move { answer(counter.fetch_add(1, Ordering::SeqCst) + 1) };
    (Router::new().route("/", post(handler)).layer(receiver.clone()), runs)
}

fn remembering() -> Receiver {
    Receiver::new(verifier()).with_seen(MemorySeen::new())
}

#[tokio::test]
async fn a_redelivered_event_runs_the_handler_once() {
    let (router, runs) = answering(&remembering(), |_| StatusCode::ACCEPTED);
    assert_eq!(status(&router, signed(number(EVENT))).await, StatusCode::ACCEPTED);
    for _ in 0..3 {
        let (status, text) = send(&router, signed(number(EVENT))).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "the event was taken before"));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(status(&router, signed(number(OTHER))).await, StatusCode::ACCEPTED);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn it_is_the_envelopes_id_that_counts_and_not_a_headers() {
    let (router, runs) = answering(&remembering(), |_| StatusCode::OK);
    let now = SystemClock::new().utc().as_seconds();
    for id in [EVENT, OTHER, "anything"] {
        let body = number(EVENT);
        let request = with_headers(headers_at(now, id, body.as_bytes()), body);
        assert_eq!(status(&router, request).await, StatusCode::OK);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_a_memory_each_delivery_is_handed_on() {
    let (router, runs) = answering(&Receiver::new(verifier()), |_| StatusCode::OK);
    for _ in 0..3 {
        assert_eq!(status(&router, signed(number(EVENT))).await, StatusCode::OK);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_handler_that_has_failed_runs_again() {
    let answer = |run| match run {
        1 => StatusCode::INTERNAL_SERVER_ERROR,
        2 => StatusCode::SEE_OTHER,
        _ => StatusCode::NO_CONTENT,
    };
    let (router, runs) = answering(&remembering(), answer);
    for expected in [500, 303, 204, 200] {
        assert_eq!(status(&router, signed(number(EVENT))).await, expected);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_handler_that_has_panicked_runs_again() {
    let answer = |run| if run == 1 { panic!("it cannot be") } else { StatusCode::NO_CONTENT };
    let (router, runs) = answering(&remembering(), answer);
    let (status, text) = send(&router, signed(number(EVENT))).await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::INTERNAL_SERVER_ERROR, "the handler has failed")
    );
    assert_eq!(send(&router, signed(number(EVENT))).await.0, StatusCode::NO_CONTENT);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

/// A handler that never comes to an end, and a layer inside the receiver that ends it.
#[tokio::test(start_paused = true)]
async fn a_handler_that_is_timed_out_inside_the_layer_has_failed_and_runs_again() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let handler = move || async move {
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            pending::<()>().await;
        }
    };
    let timed = from_fn(|request: Request, next: Next| async {
        let answer = timeout(Duration::from_secs(10), next.run(request)).await;
        answer.unwrap_or_else(|_| StatusCode::GATEWAY_TIMEOUT.into_response())
    });
    let router = Router::new().route("/", post(handler)).layer(timed).layer(remembering());
    for expected in [504, 200, 200] {
        assert_eq!(status(&router, signed(number(EVENT))).await, expected);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_panic_is_answered_also_where_nothing_is_remembered() {
    let (router, _) = answering(&Receiver::new(verifier()), |_| panic!("it cannot be"));
    let answered = status(&router, signed(number(EVENT))).await;
    assert_eq!(answered, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn the_same_id_of_another_organization_is_another_event() {
    let (router, runs) = answering(&remembering(), |_| StatusCode::OK);
    let other =
        number(EVENT).replace("org_01J00000000000000000000000", "org_01J00000000000000000000001");
    assert_ne!(other, number(EVENT));
    for body in [number(EVENT), other.clone(), number(EVENT), other] {
        assert_eq!(status(&router, signed(body)).await, StatusCode::OK);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn handlers_with_a_receiver_each_take_the_same_event_each() {
    let runs = Arc::new(AtomicUsize::new(0));
    let handler = || {
        let runs = Arc::clone(&runs);
        let handle = move || async move { _ = runs.fetch_add(1, Ordering::SeqCst) };
        post(handle).layer(remembering())
    };
    let router = Router::new().route("/a", handler()).route("/b", handler());
    for uri in ["/a", "/b", "/a", "/b"] {
        let mut request = signed(number(EVENT));
        *request.uri_mut() = uri.parse().unwrap();
        assert_eq!(status(&router, request).await, StatusCode::OK, "{uri}");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_not_genuine_is_never_noted() {
    let (router, _) = answering(&remembering(), |_| StatusCode::NO_CONTENT);
    let mut forged = signed(number(EVENT));
    forged.headers_mut().remove("webhook-signature");
    assert_eq!(status(&router, forged).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&router, signed(number(EVENT))).await, StatusCode::NO_CONTENT);
}

/// A router whose handler says when it has begun, and ends when it is let.
struct Held {
    router: Router,
    begun: mpsc::UnboundedReceiver<()>,
    let_go: Arc<Notify>,
    ended: Arc<AtomicUsize>,
}

fn held(receiver: &Receiver, end: fn() -> StatusCode) -> Held {
    let (say_begun, begun) = mpsc::unbounded_channel();
    let (let_go, ended) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, counter) = (Arc::clone(&let_go), Arc::clone(&ended));
    let handler = move || async move {
        say_begun.send(()).unwrap();
        wait.notified().await;
        counter.fetch_add(1, Ordering::SeqCst);
        end()
    };
    let router = Router::new().route("/", post(handler)).layer(receiver.clone());
    Held { router, begun, let_go, ended }
}

#[tokio::test]
async fn of_two_at_the_same_time_one_is_handled() {
    let mut held = held(&remembering(), || StatusCode::NO_CONTENT);
    let router = held.router.clone();
    let first = tokio::spawn(async move { status(&router, signed(number(EVENT))).await });
    held.begun.recv().await.unwrap();
    let (status_of_second, text) = send(&held.router, signed(number(EVENT))).await;
    assert_eq!((status_of_second, text.as_str()), (StatusCode::CONFLICT, "the event is under way"));
    held.let_go.notify_one();
    assert_eq!(first.await.unwrap(), StatusCode::NO_CONTENT);
    assert_eq!(status(&held.router, signed(number(EVENT))).await, StatusCode::OK);
    assert_eq!(held.ended.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_sender_that_hangs_up_does_not_stop_the_handler() {
    let receiver = remembering();
    let mut held = held(&receiver, || StatusCode::NO_CONTENT);
    let router = held.router.clone();
    let first = tokio::spawn(async move { status(&router, signed(number(EVENT))).await });
    held.begun.recv().await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    // It is still under way, and then done.
    assert_eq!(status(&held.router, signed(number(EVENT))).await, StatusCode::CONFLICT);
    held.let_go.notify_one();
    receiver.idle().await;
    assert_eq!(held.ended.load(Ordering::SeqCst), 1);
    assert_eq!(status(&held.router, signed(number(EVENT))).await, StatusCode::OK);
    assert!(held.begun.try_recv().is_err());
}

#[tokio::test]
async fn a_handler_that_panics_when_nobody_waits_runs_again() {
    let receiver = remembering();
    let mut held = held(&receiver, || panic!("it cannot be"));
    let router = held.router.clone();
    let first = tokio::spawn(async move { status(&router, signed(number(EVENT))).await });
    held.begun.recv().await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    held.let_go.notify_one();
    receiver.idle().await;
    held.let_go.notify_one();
    let again = status(&held.router, signed(number(EVENT))).await;
    assert_eq!(again, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(held.begun.try_recv().is_ok());
}

/// Fails where it is told to.
#[derive(Debug)]
struct Failing {
    begin: bool,
    end: bool,
}

#[async_trait]
impl Seen for Failing {
    async fn begin(&self, _: EventKey) -> Result<Begun, SeenError> {
        if self.begin { Err(SeenError::reading("the disk is gone")) } else { Ok(Begun::Now) }
    }

    async fn done(&self, _: EventKey) -> Result<(), SeenError> {
        if self.end { Err(SeenError::writing("the disk is full")) } else { Ok(()) }
    }

    async fn failed(&self, event: EventKey) -> Result<(), SeenError> {
        self.done(event).await
    }
}

#[tokio::test]
async fn where_it_is_not_known_what_was_taken_nothing_is_taken() {
    let receiver = Receiver::new(verifier()).with_seen(Failing { begin: true, end: false });
    let (router, runs) = answering(&receiver, |_| StatusCode::OK);
    let (status, text) = send(&router, signed(number(EVENT))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "whether the event was taken before is not known");
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_stands_also_where_it_could_not_be_noted() {
    let receiver = Receiver::new(verifier()).with_seen(Failing { begin: false, end: true });
    for answer in [|_| StatusCode::CREATED, |_| StatusCode::IM_A_TEAPOT] {
        let (router, _) = answering(&receiver, answer);
        assert_eq!(status(&router, signed(number(EVENT))).await, answer(1));
    }
}
