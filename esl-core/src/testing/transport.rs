use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::{
    Answer, AttemptError, CallbackUrl, Clock, Failure, Monotonic, Outbound, Sent, Timestamp,
    Timings, Transport,
};

/// A transport that goes nowhere: it answers by a script and remembers what it was given. Clones
/// are the same transport.
///
/// A send takes the next [`Reply`] that was [`script`](Self::script)ed for its URL; when there is
/// none, it asks the closure given to [`answering`](Self::answering).
#[derive(Clone)]
pub struct ScriptedTransport {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    otherwise: Box<dyn Fn(&Outbound) -> Reply + Send + Sync>,
    state: Mutex<State>,
    /// Told after every change of the state.
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    scripts: BTreeMap<String, VecDeque<Reply>>,
    seen: Vec<Sighting>,
    hanging: Vec<Hanging>,
}

struct Hanging {
    url: CallbackUrl,
    release: oneshot::Sender<Reply>,
}

/// What a send comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The receiver answers.
    Answer(Answer),
    /// There is no answer.
    Failure(Failure),
    /// Nothing happens until the send is [released](ScriptedTransport::release), or its timeout
    /// is over on the clock.
    Hang,
}

impl Reply {
    /// An answer with a status and nothing else.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Answer(Answer { status, retry_after: None, excerpt: Bytes::new() })
    }

    /// An answer with a status and a `Retry-After` header.
    #[must_use]
    pub fn retry_after(status: u16, value: &str) -> Self {
        Self::Answer(Answer { status, retry_after: Some(value.to_owned()), excerpt: Bytes::new() })
    }

    /// No answer, for this reason.
    #[must_use]
    pub fn failure(error: AttemptError) -> Self {
        Self::Failure(Failure { error, detail: "as scripted".to_owned() })
    }
}

/// A send that took place.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// What was sent.
    pub outbound: Outbound,
    /// The time of day when it was.
    pub at: Timestamp,
    /// The monotonic time when it was.
    pub at_monotonic: Monotonic,
}

impl Sighting {
    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.outbound.headers.iter();
        headers.find(|(held, _)| &**held == name).map(|(_, value)| value.as_str())
    }
}

impl ScriptedTransport {
    /// A transport behind which every receiver says 200.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::answering(clock, |_| Reply::status(200))
    }

    /// A transport whose receivers answer as `otherwise` says, where no script does.
    #[must_use]
    pub fn answering(
        clock: Arc<dyn Clock>,
        otherwise: impl Fn(&Outbound) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            clock,
            otherwise: Box::new(otherwise),
            state: Mutex::default(),
            moved: watch::Sender::new(()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Adds replies for the next sends to a URL, one each.
    pub fn script(&self, url: &CallbackUrl, replies: impl IntoIterator<Item = Reply>) {
        self.state().scripts.entry(url.as_str().to_owned()).or_default().extend(replies);
    }

    /// Every send so far, in order.
    #[must_use]
    pub fn sightings(&self) -> Vec<Sighting> {
        self.state().seen.clone()
    }

    /// How many sends there were so far.
    #[must_use]
    pub fn sends(&self) -> usize {
        self.state().seen.len()
    }

    /// Every send so far to one URL, in order.
    #[must_use]
    pub fn sightings_at(&self, url: &CallbackUrl) -> Vec<Sighting> {
        let state = self.state();
        state.seen.iter().filter(|sighting| sighting.outbound.url == *url).cloned().collect()
    }

    /// How many sends hang at a URL.
    #[must_use]
    pub fn hanging_at(&self, url: &CallbackUrl) -> usize {
        self.state().hanging_at(url)
    }

    /// Lets every send that hangs at a URL come to `reply`, and says how many these were.
    ///
    /// # Panics
    /// If the reply is [`Reply::Hang`].
    pub fn release(&self, url: &CallbackUrl, reply: &Reply) -> usize {
        assert_ne!(*reply, Reply::Hang, "they hang already");
        let released = {
            let mut state = self.state();
            let (released, kept) = std::mem::take(&mut state.hanging)
                .into_iter()
                .partition::<Vec<_>, _>(|hanging| hanging.url == *url);
            state.hanging = kept;
            released
        };
        // A send that was dropped or timed out meanwhile has nobody to tell.
        released.into_iter().filter_map(|it| it.release.send(reply.clone()).ok()).count()
    }

    /// Waits until so many sends have begun, and returns all there were.
    pub async fn wait_for_sends(&self, count: usize) -> Vec<Sighting> {
        self.wait_until(|state| (state.seen.len() >= count).then(|| state.seen.clone())).await
    }

    /// Waits until so many sends to one URL have begun, and returns all there were.
    pub async fn wait_for_sends_to(&self, url: &CallbackUrl, count: usize) -> Vec<Sighting> {
        self.wait_until(|state| {
            let seen = state.seen.iter().filter(|sighting| sighting.outbound.url == *url);
            (seen.clone().count() >= count).then(|| seen.cloned().collect())
        })
        .await
    }

    /// Waits until so many sends hang at a URL.
    pub async fn wait_for_hanging_at(&self, url: &CallbackUrl, count: usize) {
        self.wait_until(|state| (state.hanging_at(url) >= count).then_some(())).await;
    }

    async fn wait_until<T>(&self, met: impl Fn(&State) -> Option<T>) -> T {
        let mut moved = self.shared.moved.subscribe();
        loop {
            if let Some(value) = met(&self.state()) {
                return value;
            }
            moved.changed().await.expect("the sender lives in self");
        }
    }

    /// Notes the send and says what it comes to.
    fn begin(&self, outbound: &Outbound) -> Reply {
        let sighting = Sighting {
            outbound: outbound.clone(),
            at: self.shared.clock.utc(),
            at_monotonic: self.shared.clock.monotonic(),
        };
        let scripted = {
            let mut state = self.state();
            state.seen.push(sighting);
            state.scripts.get_mut(outbound.url.as_str()).and_then(VecDeque::pop_front)
        };
        let reply = scripted.unwrap_or_else(|| (self.shared.otherwise)(outbound));
        self.shared.moved.send_replace(());
        reply
    }

    async fn hang(&self, outbound: &Outbound) -> Reply {
        let (release, released) = oneshot::channel();
        self.state().hanging.push(Hanging { url: outbound.url.clone(), release });
        self.shared.moved.send_replace(());
        let deadline = self.shared.clock.monotonic() + outbound.timeout;
        // Both arms may be dropped: a sleep holds nothing, and a release that nobody awaits is
        // skipped by `release`.
        tokio::select! {
            biased;
            Ok(reply) = released => reply,
            () = self.shared.clock.sleep_until(deadline) => Reply::failure(AttemptError::Timeout),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no code panics while it holds this lock")
    }
}

impl State {
    fn hanging_at(&self, url: &CallbackUrl) -> usize {
        self.hanging.iter().filter(|it| it.url == *url && !it.release.is_closed()).count()
    }
}

#[async_trait]
impl Transport for ScriptedTransport {
    async fn send(&self, outbound: Outbound) -> Sent {
        let start = self.shared.clock.monotonic();
        let reply = match self.begin(&outbound) {
            Reply::Hang => self.hang(&outbound).await,
            reply => {
                // A network lets other tasks have their turn, too.
                tokio::task::yield_now().await;
                reply
            }
        };
        let result = match reply {
            Reply::Answer(answer) => Ok(answer),
            Reply::Failure(failure) => Err(failure),
            Reply::Hang => unreachable!("a send is not released into hanging"),
        };
        let total = self.shared.clock.monotonic() - start;
        Sent { result, timings: Timings { total, ..Timings::default() } }
    }
}

impl fmt::Debug for ScriptedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScriptedTransport({} sends)", self.state().seen.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::ManualClock;

    const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);

    fn outbound(url: &CallbackUrl) -> Outbound {
        Outbound {
            url: url.clone(),
            headers: vec![("x-sapien-attempt".into(), "1".to_owned())],
            body: Bytes::from_static(b"{}"),
            timeout: Duration::from_secs(15),
            fresh: false,
        }
    }

    fn setup() -> (ManualClock, ScriptedTransport, CallbackUrl) {
        let clock = ManualClock::new(NOON);
        let transport = ScriptedTransport::new(Arc::new(clock.clone()));
        (clock, transport, CallbackUrl::from_stored("https://receiver.example/"))
    }

    #[tokio::test]
    async fn scripted_replies_come_first_and_every_send_is_remembered() {
        let (clock, transport, url) = setup();
        transport.script(&url, [Reply::retry_after(503, "7"), Reply::failure(AttemptError::Dns)]);
        let busy = transport.send(outbound(&url)).await.result.expect("an answer");
        assert_eq!((busy.status, busy.retry_after.as_deref()), (503, Some("7")));
        clock.advance(Duration::from_secs(1));
        let failure = transport.send(outbound(&url)).await.result.expect_err("no answer");
        assert_eq!(failure.error, AttemptError::Dns);
        assert_eq!(
            transport.send(outbound(&url)).await.result.map(|answer| answer.status),
            Ok(200)
        );
        let seen = transport.wait_for_sends_to(&url, 3).await;
        assert_eq!(seen[0].at, NOON);
        assert_eq!(seen[1].at_monotonic, Duration::from_secs(1));
        assert_eq!(seen[2].header("x-sapien-attempt"), Some("1"));
        assert_eq!(transport.wait_for_sends(3).await.len(), 3);
    }

    #[tokio::test]
    async fn a_hanging_send_ends_when_it_is_released_or_its_time_is_over() {
        let (clock, transport, url) = setup();
        transport.script(&url, [Reply::Hang, Reply::Hang]);
        let send = || {
            let transport = transport.clone();
            let outbound = outbound(&url);
            tokio::spawn(async move { transport.send(outbound).await })
        };
        let first = send();
        transport.wait_for_hanging_at(&url, 1).await;
        clock.advance(Duration::from_secs(2));
        assert_eq!(transport.release(&url, &Reply::status(204)), 1);
        let sent = first.await.expect("no panic");
        assert_eq!(sent.result.map(|answer| answer.status), Ok(204));
        assert_eq!(sent.timings.total, Duration::from_secs(2));

        let second = send();
        clock.wait_for_sleepers(1).await;
        clock.advance(Duration::from_secs(15));
        let failure = second.await.expect("no panic").result.expect_err("a timeout");
        assert_eq!(failure.error, AttemptError::Timeout);
        assert_eq!(transport.release(&url, &Reply::status(200)), 0);
    }
}
