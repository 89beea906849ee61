//! Around services that are not axum's.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use esl_core::MemorySeen;
use esl_http::receiver::{Received, Receiver};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service, ServiceExt, service_fn};

use crate::delivery::{EVENT, headers, number, verifier};

fn request(body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::post("/").body(Full::from(body.to_owned())).unwrap();
    *request.headers_mut() = headers(body.as_bytes());
    request
}

#[tokio::test]
async fn the_service_gets_the_same_bytes_and_what_they_say() {
    let body = number(EVENT);
    let echo = service_fn(|request: Request<Full<Bytes>>| async {
        let (head, body) = request.into_parts();
        let received: &Received = head.extensions.get().unwrap();
        assert_eq!(received.envelope.id.to_string(), EVENT);
        assert_eq!(received.verified.secret, 0);
        let body = body.collect().await?.to_bytes();
        assert_eq!(received.body, body);
        let event = received.event::<u8>().await.unwrap();
        assert_eq!(event.data, 7);
        Ok::<_, Infallible>(Response::new(Full::new(body)))
    });
    for receiver in
        [Receiver::new(verifier()), Receiver::new(verifier()).with_seen(MemorySeen::new())]
    {
        let answer = receiver.layer(echo).oneshot(request(&body)).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    }
}

#[tokio::test]
async fn an_error_of_the_service_is_its_callers_and_the_event_has_failed() {
    let failing = service_fn(|_: Request<Full<Bytes>>| {
        ready(Err::<Response<Full<Bytes>>, _>("it is broken"))
    });
    let service = Receiver::new(verifier()).with_seen(MemorySeen::new()).layer(failing);
    for _ in 0..2 {
        let answer = service.clone().oneshot(request(&number(EVENT))).await;
        assert_eq!(answer.unwrap_err(), "it is broken");
    }
}

/// Panics when it is called without having been polled; a clone has not been.
#[derive(Debug, Default)]
struct Careful {
    is_ready: bool,
}

impl Clone for Careful {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Request<Full<Bytes>>> for Careful {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "it was not asked whether it is ready");
        Box::pin(ready(Ok(Response::default())))
    }
}

#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let mut service = Receiver::new(verifier()).layer(Careful::default());
    for _ in 0..2 {
        let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut service).await.unwrap();
        assert_eq!(ready.call(request(&number(EVENT))).await.unwrap().status(), StatusCode::OK);
    }
}
