//! Running the handler, and running it once.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use axum_core::{BoxError, body::Body, response::IntoResponse as _};
use bytes::Bytes;
use esl_core::{Begun, EventKey, Seen};
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower_service::Service;
use tracing::Instrument as _;

/// Runs the handler, whose service is ready. That it has panicked is an answer, too.
pub(super) async fn run<S, R>(
    event: EventKey,
    mut inner: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let running = async { Ok(inner.call(request).await?.map(Body::new)) };
    AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(|panic| {
        tracing::error!(%event, panic = message(&*panic), "the handler has panicked");
        Ok(panicked())
    })
}

/// Runs the handler if the event is to be handled now, and notes how it went.
pub(super) async fn take<S, R>(
    seen: Arc<dyn Seen>,
    event: EventKey,
    inner: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    match seen.begin(event).await {
        Ok(Begun::Now) => {}
        Ok(Begun::Before) => {
            tracing::debug!(%event, "it was taken before");
            return Ok((StatusCode::OK, "the event was taken before").into_response());
        }
        Ok(Begun::UnderWay) => {
            tracing::debug!(%event, "it is under way");
            return Ok((StatusCode::CONFLICT, "the event is under way").into_response());
        }
        Err(error) => {
            tracing::error!(%event, error = causes(&error), "whether it was taken is not known");
            let text = "whether the event was taken before is not known";
            return Ok((StatusCode::SERVICE_UNAVAILABLE, text).into_response());
        }
    }
    let handled = run(event, inner, request).await;
    let is_done = matches!(&handled, Ok(answer) if answer.status().is_success());
    let noted = if is_done { seen.done(event).await } else { seen.failed(event).await };
    if let Err(error) = noted {
        tracing::error!(%event, is_done, error = causes(&error), "how it went could not be noted");
    }
    handled
}

/// Waits for what runs to its end also when nobody waits any more.
pub(super) async fn to_its_end<E: Send + 'static>(
    taking: impl Future<Output = Result<Response<Body>, E>> + Send + 'static,
) -> Result<Response<Body>, E> {
    tokio::spawn(taking.in_current_span()).await.unwrap_or_else(|error| {
        // It is the `Seen` that has panicked, or the runtime comes to its end.
        tracing::error!(%error, "taking an event was cut off");
        Ok(panicked())
    })
}

fn panicked() -> Response<Body> {
    (StatusCode::INTERNAL_SERVER_ERROR, "the handler has failed").into_response()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref().map(String::as_str)).unwrap_or("no text")
}

/// [`causes`] for the answer and the log, where a text of serde's may have any amount of data in it: the
/// beginning, which says what is wrong, and the end, which says where.
pub(super) fn in_short(error: &dyn std::error::Error) -> String {
    let text = causes(error);
    let is_short = text.len() <= 2 * EXCERPT_BYTES;
    if is_short {
        return text;
    }
    let beginning = &text[..text.floor_char_boundary(EXCERPT_BYTES)];
    let end = &text[text.ceil_char_boundary(text.len() - EXCERPT_BYTES)..];
    format!("{beginning} … {end}")
}

/// An error, and what led to it, in one line.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

const EXCERPT_BYTES: usize = 200;
