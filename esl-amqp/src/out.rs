//! Out: every committed event goes to an exchange.
//!
//! The storage says what is next, and keeps how far it is ([`Feed`](esl_core::storage::Feed)). A part of
//! it is published, confirmed by the broker, and only then is the cursor moved; so nothing is left out,
//! an organization's events go in their order, and what was not confirmed goes again.

use std::{sync::Arc, time::Duration};

use esl_core::{
    Esl, OrganizationId,
    storage::{
        Fed, FeedBatch, FeedStep, Storage, StorageError, StorageErrorKind, StoredEvent, Worker,
    },
};
use futures_util::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Doing, Trouble, within},
    ingest::{ORGANIZATION, PERSISTENT},
    topology::{EVENTS_EXCHANGE, declare_events},
};

/// The feed of which the exchange is the end.
const FEED: &str = EVENTS_EXCHANGE;

/// Begins the feed, if it was not begun before, so that what is committed from now on goes out, whenever
/// there is a broker.
pub(crate) async fn opt_in(esl: &Esl, stop: &CancellationToken) {
    loop {
        if let Some(worker) = esl.leads(LEAD_MIN) {
            match esl.storage().begin_feed(&worker, FEED).await {
                Ok(()) => return,
                Err(error) => tell(&error),
            }
        }
        if !pause(LOOK_EVERY, stop).await {
            return;
        }
    }
}

/// The exchange of committed events, ready to be published to.
pub(crate) struct Outlet {
    channel: Channel,
}

impl Outlet {
    pub(crate) async fn begin(connection: &Connection) -> Result<Self, Trouble> {
        const DOING: &str = "open a channel for events";
        let channel = connection.create_channel().await.doing(DOING)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.doing(DOING)?;
        declare_events(&channel).await?;
        Ok(Self { channel })
    }

    /// Sends what is committed until it is stopped, while this engine is the one that leads.
    pub(crate) async fn run(self, esl: &Esl, stop: &CancellationToken) -> Result<(), Trouble> {
        let storage = esl.storage();
        let mut round = Round::default();
        while !stop.is_cancelled() {
            let Some(worker) = esl.leads(LEAD_MIN) else {
                pause(LOOK_EVERY, stop).await;
                continue;
            };
            let began = Instant::now();
            let fed = match storage.feed(FEED, round.after, EVENTS_MAX, BYTES_MAX).await {
                Ok(fed) => fed,
                Err(error) => {
                    tell(&error);
                    pause(LOOK_EVERY, stop).await;
                    continue;
                }
            };
            let Fed { batches, after } = fed;
            if !batches.is_empty() {
                self.send(esl, &batches).await?;
                if let Err(error) = advance(storage, &worker, &batches).await {
                    tell(&error);
                    pause(LOOK_EVERY, stop).await;
                }
            }
            // Only what was looked at for nothing is to be spared.
            let looked = if batches.is_empty() { began.elapsed() } else { Duration::ZERO };
            round.goes_on(&batches, after, looked);
            if let Some(rest) = round.rest() {
                // All arms may be dropped: they hold nothing.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = esl.committed(), if rest.ends_with_a_commit => {}
                    () = sleep(rest.at_most) => {}
                }
            }
        }
        Ok(())
    }

    /// Publishes events in their order; comes back when the broker has all of them.
    async fn send(&self, esl: &Esl, batches: &[FeedBatch]) -> Result<(), Trouble> {
        const DOING: &str = "publish events";
        let sent = within(CONFIRM_WITHIN, DOING, async {
            let mut confirms = Vec::new();
            for batch in batches {
                // Of an event that was erased nobody is told any more.
                for event in batch.events.iter().filter(|event| event.erased_at.is_none()) {
                    confirms.push(self.publish(esl, batch.organization, event).await?);
                }
            }
            try_join_all(confirms).await
        });
        let taken = |confirmation: &Confirmation| matches!(confirmation, Confirmation::Ack(_));
        match sent.await?.iter().all(taken) {
            true => Ok(()),
            false => Err(Trouble::NotTaken { doing: DOING }),
        }
    }

    async fn publish(
        &self,
        esl: &Esl,
        organization: OrganizationId,
        event: &StoredEvent,
    ) -> Result<impl Future<Output = Result<Confirmation, lapin::Error>> + use<>, lapin::Error>
    {
        let body = esl.envelope(organization, event);
        let confirm = self.channel.basic_publish(
            EVENTS_EXCHANGE.into(),
            event.event_type.as_str().into(),
            BasicPublishOptions::default(),
            &body,
            properties(organization, event),
        );
        confirm.await
    }
}

fn properties(organization: OrganizationId, event: &StoredEvent) -> BasicProperties {
    let text = |text: String| AMQPValue::LongString(text.into());
    let mut headers = FieldTable::default();
    headers.insert(ORGANIZATION.into(), text(organization.to_string()));
    headers.insert("esl-id".into(), text(event.id.to_string()));
    headers.insert("esl-seq".into(), AMQPValue::LongLongInt(event.seq.get().cast_signed()));
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
        .with_message_id(event.id.to_string().into())
        .with_timestamp(event.timestamp.as_seconds().unsigned_abs())
        .with_type(event.event_type.as_str().into())
}

/// Moves the cursors behind what has gone out.
async fn advance(
    storage: &Arc<dyn Storage>,
    worker: &Worker,
    batches: &[FeedBatch],
) -> Result<(), StorageError> {
    let steps = batches.iter().map(|batch| {
        let FeedBatch { organization, from, to, .. } = *batch;
        let passed = batch.passed();
        if passed > 0 {
            tracing::warn!(
                %organization,
                events = passed,
                "events were removed before they could go to the broker"
            );
        }
        FeedStep { organization, from, to }
    });
    storage.advance_feed(worker, FEED, steps.collect()).await
}

/// Where looking round the organizations stands.
#[derive(Debug, Default)]
struct Round {
    after: Option<OrganizationId>,
    found: Found,
    /// What the round has found that has just ended.
    ended: Option<Found>,
}

/// What a round has found.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    events: usize,
    /// For how long it has looked where there was nothing.
    looked: Duration,
}

/// How long to rest.
#[derive(Debug, PartialEq, Eq)]
struct Rest {
    at_most: Duration,
    ends_with_a_commit: bool,
}

impl Round {
    fn goes_on(&mut self, batches: &[FeedBatch], after: Option<OrganizationId>, looked: Duration) {
        self.found.events += batches.iter().map(|batch| batch.events.len().max(1)).sum::<usize>();
        self.found.looked += looked;
        self.after = after;
        self.ended = after.is_none().then(|| std::mem::take(&mut self.found));
    }

    /// Between two rounds, unless there is much to do. Of very many organizations, looking takes a fifth
    /// of the time at most.
    fn rest(&self) -> Option<Rest> {
        let Found { events, looked } = self.ended?;
        if events >= EVENTS_MAX {
            return None;
        }
        let at_most = GATHER.max(looked * 4);
        match events {
            0 => Some(Rest { at_most: at_most.max(LOOK_EVERY), ends_with_a_commit: true }),
            _ => Some(Rest { at_most, ends_with_a_commit: false }),
        }
    }
}

fn tell(error: &StorageError) {
    if error.kind() != StorageErrorKind::Fenced {
        let error = error as &dyn std::error::Error;
        tracing::error!(error, "what is to go to the broker cannot be read or noted");
    }
}

/// Waits; false when stopped.
async fn pause(wait: Duration, stop: &CancellationToken) -> bool {
    // Both arms may be dropped: they hold nothing.
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = sleep(wait) => true,
    }
}

/// Events that are under way at a time …
const EVENTS_MAX: usize = 256;
/// … and their bytes.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// What other engines commit is seen within this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is committed within this time goes together.
const GATHER: Duration = Duration::from_millis(5);
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// Nobody else is to begin while the broker may still be confirming.
const LEAD_MIN: Duration = Duration::from_secs(12);

#[cfg(test)]
mod tests {
    use esl_core::Seq;

    use super::*;

    fn batches(passed: u64) -> Vec<FeedBatch> {
        let organization = OrganizationId::from_bytes([1; 16]);
        let (from, to) = (Seq::ZERO, Seq::new(passed));
        vec![FeedBatch { organization, from, to, events: Vec::new() }]
    }

    #[test]
    fn there_is_a_rest_between_rounds_and_a_long_one_when_nothing_is_to_be_done() {
        let mut round = Round::default();
        let other = Some(OrganizationId::from_bytes([2; 16]));
        round.goes_on(&batches(3), other, Duration::ZERO);
        assert_eq!((round.after, round.rest()), (other, None));
        round.goes_on(&[], None, GATHER);
        let short = Rest { at_most: GATHER * 4, ends_with_a_commit: false };
        assert_eq!((round.after, round.rest()), (None, Some(short)));
        round.goes_on(&[], None, GATHER);
        let long = Rest { at_most: LOOK_EVERY, ends_with_a_commit: true };
        assert_eq!(round.rest(), Some(long));
    }
}
