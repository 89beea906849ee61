//! One connection after the other, for as long as the engine wants one.

use std::{sync::Arc, time::Duration};

use esl_core::{Clock, Esl, SystemClock};
use lapin::{Connection, ConnectionProperties};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    BrokerTrouble, BrokerUrl,
    error::{Trouble, within},
    ingest::Inlet,
    out::{self, Outlet},
    state::StateCell,
    wake::{Hints, Listening},
};

/// What is to be done with a connection.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) url: BrokerUrl,
    pub(crate) hints: Option<Arc<Hints>>,
    /// Whose events go out.
    pub(crate) events: Option<Esl>,
    /// Who publishes what comes in.
    pub(crate) ingest: Option<Esl>,
}

/// Keeps a connection until it is stopped.
pub(crate) async fn run(parts: Parts, state: Arc<StateCell>, stop: CancellationToken) {
    let opt_in = async {
        if let Some(esl) = &parts.events {
            out::opt_in(esl, &stop).await;
        }
    };
    tokio::join!(opt_in, connections(&parts, &state, &stop));
}

async fn connections(parts: &Parts, state: &StateCell, stop: &CancellationToken) {
    let clock = SystemClock::new();
    let mut failures = 0;
    let mut told: Option<BrokerTrouble> = None;
    loop {
        let began = Instant::now();
        let ended = one_connection(parts, state, &clock, stop).await;
        let Err(trouble) = ended else { break };
        let was_connected = state.get().connected_since.is_some();
        if was_connected {
            told = None;
        }
        // One that ends as soon as it is there is no better than none.
        failures = if was_connected && began.elapsed() > PATIENCE { 0 } else { failures + 1 };
        let trouble = BrokerTrouble::new(clock.utc(), &trouble);
        state.disconnected(Some(trouble.clone()));
        // While the broker is away, the same is said once a minute.
        let is_news = told.as_ref().is_none_or(|told| {
            told.what != trouble.what || trouble.at.since(told.at) >= TOLD_EVERY
        });
        if is_news {
            tracing::warn!(
                broker = %parts.url,
                trouble = trouble.what,
                "no connection to the broker; trying again"
            );
            told = Some(trouble);
        }
        // Both arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = sleep(pause_after(failures)) => {}
        }
    }
    state.disconnected(None);
}

/// Connects, works, and says why that has come to an end; `Ok` when it was stopped.
async fn one_connection(
    parts: &Parts,
    state: &StateCell,
    clock: &SystemClock,
    stop: &CancellationToken,
) -> Result<(), Trouble> {
    // Both arms may be dropped: a connection that is not there yet does nothing.
    let connection = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        connection = connect(&parts.url) => connection?,
    };
    let ended = work(&connection, parts, state, clock, stop).await;
    // A broker that does not say goodbye sees soon enough that nobody is there.
    _ = timeout(GOODBYE, connection.close(200, "goodbye".into())).await;
    ended
}

async fn connect(url: &BrokerUrl) -> Result<Connection, Trouble> {
    let properties = ConnectionProperties::default().with_connection_name("esl".into());
    within(PATIENCE, "connect", Connection::connect_uri(url.uri().clone(), properties)).await
}

async fn work(
    connection: &Connection,
    parts: &Parts,
    state: &StateCell,
    clock: &SystemClock,
    stop: &CancellationToken,
) -> Result<(), Trouble> {
    // Everything is declared before anything is said to work.
    let begun = timeout(PATIENCE, async {
        let hints = match &parts.hints {
            Some(hints) => Some((Listening::begin(connection).await?, hints)),
            None => None,
        };
        let events = match &parts.events {
            Some(esl) if esl.is_enabled() => Some((Outlet::begin(connection).await?, esl)),
            _ => None,
        };
        let ingest = match &parts.ingest {
            Some(esl) if esl.is_enabled() => Some((Inlet::begin(connection).await?, esl)),
            _ => None,
        };
        Ok::<_, Trouble>((hints, events, ingest))
    });
    let silence = |_| Trouble::Silence { doing: "declare what is needed", within: PATIENCE };
    // Both arms may be dropped: what is not begun goes with the connection.
    let (hints, events, ingest) = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        begun = begun => begun.map_err(silence)??,
    };
    state.connected(clock.utc());
    tracing::info!(broker = %parts.url, "connected to the broker");
    tokio::try_join!(
        optional(hints.map(|(listening, hints)| listening.run(hints, stop))),
        optional(events.map(|(outlet, esl)| outlet.run(esl, stop))),
        optional(ingest.map(|(inlet, esl)| inlet.run(connection, esl, stop))),
        loss(connection, stop),
    )?;
    Ok(())
}

async fn optional(work: Option<impl Future<Output = Result<(), Trouble>>>) -> Result<(), Trouble> {
    match work {
        Some(work) => work.await,
        None => Ok(()),
    }
}

/// Sees that a connection is lost although nobody uses it.
async fn loss(connection: &Connection, stop: &CancellationToken) -> Result<(), Trouble> {
    loop {
        // Both arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(LOOK_EVERY) => {}
        }
        if !connection.status().connected() {
            return Err(Trouble::Lost);
        }
    }
}

/// How long to wait after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(PAUSE_MAX)
}

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);
const GOODBYE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TOLD_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_try_waits_longer_and_never_very_long() {
        for (failures, millis) in
            [(0, 100), (1, 100), (2, 200), (3, 400), (6, 3200), (7, 5000), (u32::MAX, 5000)]
        {
            assert_eq!(pause_after(failures), Duration::from_millis(millis), "{failures}");
        }
    }
}
