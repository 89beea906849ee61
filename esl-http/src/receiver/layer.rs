//! The layer.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum_core::{BoxError, body::Body};
use bytes::Bytes;
use esl_core::{Seen, Verifier};
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::watch;
use tower_layer::Layer;
use tower_service::Service;

use super::{Fetch, once};

/// Lets deliveries through that are genuine, and with a [`Seen`] each event once.
///
/// It is a tower layer: for axum, where `Router::layer` puts it before all routes that were added so
/// far, and `post(handler).layer(…)` before one, and around any service that takes a
/// `Request<Full<Bytes>>`. That service gets the request with the same bytes as its body, and in its extensions what they
/// say: [`Received`](super::Received).
///
/// # Taking an event once
///
/// ESL delivers at least once. With [`with_seen`](Self::with_seen), an event whose handler has
/// answered 2xx is answered 200 when it comes again, without running the handler; one whose handler
/// has answered otherwise, or panicked, is handled again. Of two that arrive at the same time one is
/// handled, and the other is answered 409, so that ESL asks later how it went. The handler then runs
/// in a task of its own, to its end even when the sender has hung up; [`idle`](Self::idle) waits for
/// such ones before the process ends.
///
/// - **One [`Seen`] is for one handler.** It does not know the routes behind the layer: two handlers,
///   each with a subscription of its own, need a receiver each ([`with_seen`](Self::with_seen)).
/// - **A handler that hangs keeps its event under way**, and each further delivery of it is answered
///   409, until the process ends. Give it an end *inside* the layer: a timeout within the handler, or
///   a layer that is added before this one: `router.layer(timeout).layer(receiver)`. One that is added
///   after it gives up the waiting alone, and not the handler.
///
/// A clone shares everything. The runtime it is used on must have time enabled.
#[derive(Clone)]
pub struct Receiver {
    pub(super) verifier: Arc<Verifier>,
    pub(super) body_bytes_max: usize,
    pub(super) body_timeout: Duration,
    pub(super) fetch: Option<Arc<dyn Fetch>>,
    seen: Option<Arc<dyn Seen>>,
    /// Each handler that runs in a task of its own holds a receiver of it.
    under_way: Arc<watch::Sender<()>>,
}

impl Receiver {
    /// Lets through what verifies, as often as it comes.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self {
            verifier: Arc::new(verifier),
            body_bytes_max: BODY_BYTES_MAX,
            body_timeout: BODY_TIMEOUT,
            fetch: None,
            seen: None,
            under_way: Arc::new(watch::Sender::new(())),
        }
    }

    /// How many bytes a body may have; more is answered 413. Defaults to 1 MiB: ESL sends at most
    /// 256 KiB in one piece, unless its operator has set `ESL_MAX_PAYLOAD_SIZE`, which may be up to
    /// 16 MiB, higher.
    ///
    /// [`SignedEvent`](super::SignedEvent) has no limit beside this one. For the extractors of axum
    /// that read a body, its own `DefaultBodyLimit` of 2 MB stays in force.
    #[must_use]
    pub const fn with_body_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// How long a body may take to arrive; what is slower is answered 408. Defaults to 30 s: ESL
    /// gives up earlier, so it is for others.
    #[must_use]
    pub const fn with_body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Takes each event once, as far as this remembers it. Defaults to nothing: each delivery is
    /// handed on.
    ///
    /// **One [`Seen`] is for one handler.** With two routes behind it, an event that comes to both, since
    /// two subscriptions match it, runs the handler that it reaches first; the other delivery is
    /// answered 200, and lost. Several routes have a receiver each, with a
    /// [`MemorySeen`](esl_core::MemorySeen) of its own, or an `esl_sqlite::SqliteSeen` with a scope of
    /// its own:
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use esl_http::receiver::{MemorySeen, Receiver, Secret, SignedEvent, Verifier, payload::Person};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // Each subscription has a secret of its own.
    /// let verifier = |secret| Secret::new(secret).map(|secret| Verifier::standard([secret]));
    /// let invoices = Receiver::new(verifier("the-secret-of-the-subscription-to-bill")?)
    ///     .with_seen(MemorySeen::new()); // or seen.clone().with_scope("invoices")
    /// let letters = Receiver::new(verifier("the-secret-of-the-subscription-to-write")?)
    ///     .with_seen(MemorySeen::new()); // or seen.clone().with_scope("letters")
    /// let router = Router::new()
    ///     .route("/invoices", post(invoice).layer(invoices))
    ///     .route("/letters", post(letter).layer(letters));
    /// # let _: Router = router;
    ///
    /// async fn invoice(SignedEvent(event): SignedEvent<Person>) { /* … */ }
    /// async fn letter(SignedEvent(event): SignedEvent<Person>) { /* … */ }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_seen(mut self, seen: impl Seen + 'static) -> Self {
        self.seen = Some(Arc::new(seen));
        self
    }

    /// Fetches data that was too large to be sent. Defaults to nothing: such data is not read.
    ///
    /// [`SignedEvent`](super::SignedEvent) fetches before the handler runs, while ESL waits for the
    /// answer: 15 s, unless its operator has set another time. What takes longer has failed for ESL, and
    /// comes again. So where data is large, answer first and fetch later: take
    /// [`Received`](super::Received), which fetches nothing, keep it where it outlives the process, since
    /// after a 2xx the event does not come again, and fetch from there.
    ///
    /// ```
    /// use esl_http::receiver::{Envelope, Event, Fetch, Fetcher, Received, payload::Person};
    ///
    /// async fn handle(received: Received) {
    ///     keep(&received.body).await; // and then the answer, 200
    /// }
    ///
    /// /// In a task of the application's own, for each body that was kept.
    /// async fn later(fetcher: &Fetcher, body: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    ///     let envelope = Envelope::from_slice(body)?;
    ///     let event: Event<Person> = match envelope.data_ref.clone() {
    ///         Some(reference) => envelope.into_event_with(&fetcher.fetch(&reference).await?)?,
    ///         None => envelope.into_event()?,
    ///     };
    ///     println!("{}", event.data.name);
    ///     Ok(())
    /// }
    /// # async fn keep(_: &[u8]) {}
    /// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(handle));
    /// ```
    ///
    /// A link is good for 12 h at least from when the delivery was sent; after that,
    /// `GET /api/v1/events/{id}` has a fresh one. `Fetcher::open` reads what is too large for memory bit
    /// by bit.
    #[must_use]
    pub fn with_fetch(mut self, fetch: impl Fetch + 'static) -> Self {
        self.fetch = Some(Arc::new(fetch));
        self
    }

    /// Completes when no handler runs in a task of its own any more: to be awaited between the end of
    /// the server and that of the process, so that handlers whose sender has hung up are not cut off.
    pub async fn idle(&self) {
        self.under_way.closed().await;
    }

    async fn receive<S, B, R>(
        self,
        inner: S,
        request: Request<B>,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        B: http_body::Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (received, mut request) = match self.admit(request).await {
            Ok(admitted) => admitted,
            Err(refused) => return Ok(refused.into_response()),
        };
        let event = received.envelope.key();
        request.extensions_mut().insert(received);
        match self.seen {
            None => once::run(event, inner, request).await,
            Some(seen) => {
                let running = self.under_way.subscribe();
                let handled = async move {
                    let _running = running;
                    once::take(seen, event, inner, request).await
                };
                once::to_its_end(handled).await
            }
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("verifier", &self.verifier)
            .field("body_bytes_max", &self.body_bytes_max)
            .field("body_timeout", &self.body_timeout)
            .field("seen", &self.seen)
            .field("fetch", &self.fetch)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Receiver {
    type Service = ReceiverService<S>;

    fn layer(&self, inner: S) -> ReceiverService<S> {
        ReceiverService { receiver: self.clone(), inner }
    }
}

/// A service behind a [`Receiver`].
#[derive(Debug, Clone)]
pub struct ReceiverService<S> {
    receiver: Receiver,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for ReceiverService<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was polled is ready; a clone of it need not be.
        let unready = self.inner.clone();
        let inner = mem::replace(&mut self.inner, unready);
        Box::pin(self.receiver.clone().receive(inner, request))
    }
}

const BODY_BYTES_MAX: usize = 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
