//! What handlers get.

use std::sync::Arc;

use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use esl_core::{DataRef, Envelope, Event, EventError, Verified};
use http::{StatusCode, request::Parts};
use serde::de::DeserializeOwned;

use super::{
    Fetch, FetchError,
    once::{causes, in_short},
};

/// A genuine delivery: what a [`Receiver`](super::Receiver) puts into the extensions of a request. In
/// axum it is an extractor, too.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Received {
    /// What it says.
    pub envelope: Envelope,
    /// The body, byte for byte as it was signed.
    pub body: Bytes,
    /// How it was signed.
    pub verified: Verified,
    pub(super) fetch: Option<Arc<dyn Fetch>>,
}

/// The event of a delivery that a [`Receiver`](super::Receiver) has let through: an extractor for
/// axum, beside which others may stand.
///
/// Data that was too large to be sent is fetched now, by what the receiver was
/// [given](super::Receiver::with_fetch) for it.
///
/// # Data that is not a `T`
///
/// is answered with 400 and the reason: which member is missing, or what is wrong in which line and
/// column of the data. The event comes again, as after every answer that is not 2xx, until ESL gives it
/// up. So a subscription should name those types alone whose data is a `T` (`person.*` rather than
/// `*`); a handler that gets several takes `SignedEvent<serde_json::Value>`, or [`Received`], and looks
/// at the type first:
///
/// ```
/// use esl_http::receiver::{
///     Received, SignedEvent, SignedEventRejection, payload::Person, payload::Pet,
/// };
///
/// async fn by_type(received: Received) -> Result<(), SignedEventRejection> {
///     match received.envelope.event_type.as_str() {
///         "person.created" | "person.updated" => {
///             println!("{}", received.event::<Person>().await?.data.name);
///         }
///         "pet.created" => println!("{}", received.event::<Pet>().await?.data.name),
///         _ => {} // 200: it is of no use here, and need not come again.
///     }
///     Ok(())
/// }
///
/// async fn of_any_type(SignedEvent(event): SignedEvent<serde_json::Value>) {
///     println!("{}: {}", event.event_type, event.data["name"]);
/// }
/// # use axum::{Router, routing::post};
/// # let _: Router = Router::new().route("/a", post(by_type)).route("/b", post(of_any_type));
/// ```
///
/// A ping (`system.ping`), which comes to every handler that somebody tries out, is answered with 204
/// where its data is not a `T`.
#[derive(Debug, Clone)]
pub struct SignedEvent<T>(
    /// The event.
    pub Event<T>,
);

impl Received {
    /// The event, with its data as a `T`, fetched if it was too large to be sent.
    ///
    /// # Errors
    /// See [`SignedEventRejection`].
    ///
    /// # Cancellation
    /// A dropped call has done nothing but fetch.
    pub async fn event<T: DeserializeOwned>(&self) -> Result<Event<T>, SignedEventRejection> {
        let fetched = match (&self.envelope.data, &self.envelope.data_ref) {
            (None, Some(reference)) => Some(self.fetch(reference).await?),
            (Some(_), _) | (None, None) => None,
        };
        let envelope = self.envelope.clone();
        let event = match fetched {
            Some(data) => envelope.into_event_with(&data),
            None => envelope.into_event(),
        };
        event.map_err(|error| match self.envelope.event_type.as_str() {
            PING => SignedEventRejection::Ping,
            _ => SignedEventRejection::Event(error),
        })
    }

    async fn fetch(&self, reference: &DataRef) -> Result<Bytes, SignedEventRejection> {
        let fetch = self.fetch.as_ref().ok_or(SignedEventRejection::NoFetch)?;
        fetch.fetch(reference).await.map_err(SignedEventRejection::Fetch)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Received {
    type Rejection = SignedEventRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SignedEventRejection> {
        parts.extensions.get().cloned().ok_or(SignedEventRejection::NoReceiver)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for SignedEvent<T> {
    type Rejection = SignedEventRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SignedEventRejection> {
        let received = parts.extensions.get::<Received>();
        received.ok_or(SignedEventRejection::NoReceiver)?.event().await.map(Self)
    }
}

/// Why a handler does not get the event of a delivery.
///
/// As an answer it has the status that is named here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignedEventRejection {
    /// The router has no [`Receiver`](super::Receiver), so nothing was verified: 500.
    #[error("nothing has verified this request")]
    NoReceiver,
    /// The data was too large to be sent, and the receiver was given nothing to fetch it with: 500.
    #[error("the data is not in the envelope, and nothing here fetches it")]
    NoFetch,
    /// The data was too large to be sent, and could not be fetched: 502.
    #[error("the data could not be fetched")]
    Fetch(#[source] FetchError),
    /// It is not what the handler takes: 400. The answer and the log, a warning, give the reason.
    #[error(transparent)]
    Event(EventError),
    /// It is a ping, which only asks whether signed requests arrive: 204.
    #[error("a ping, which is not what the handler takes")]
    Ping,
}

impl SignedEventRejection {
    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoReceiver | Self::NoFetch => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Fetch(_) => StatusCode::BAD_GATEWAY,
            Self::Event(_) => StatusCode::BAD_REQUEST,
            Self::Ping => StatusCode::NO_CONTENT,
        }
    }
}

impl IntoResponse for SignedEventRejection {
    fn into_response(self) -> Response {
        match &self {
            Self::NoReceiver => tracing::error!(
                "no delivery was verified: add the layer, Router::layer(Receiver::new(…)), behind \
                 the routes that take events"
            ),
            Self::NoFetch => tracing::error!(
                "an event's data is to be fetched: give the receiver what fetches it, \
                 Receiver::with_fetch"
            ),
            Self::Fetch(error) => {
                tracing::warn!(error = causes(error), "an event's data could not be fetched");
            }
            // It is genuine: its sender may know why, and whoever receives has to.
            Self::Event(error) => {
                let reason = in_short(error);
                tracing::warn!(reason, "an event is not what the handler takes");
                return (self.status(), reason).into_response();
            }
            Self::Ping => return self.status().into_response(),
        }
        (self.status(), self.to_string()).into_response()
    }
}

const PING: &str = "system.ping";
