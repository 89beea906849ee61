//! In: events from a queue are published, and acknowledged after their commit.
//!
//! Those of one organization are published in the order in which they come, a batch at a time, and
//! organizations do not wait for each other. How many are taken in at a time is the prefetch count; the
//! others wait at the broker.

mod batch;
mod fate;
mod message;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use esl_core::{Esl, OrganizationId};
use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use lapin::{
    Channel, Connection, Consumer,
    options::{BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::batch::{Batch, Received, put_aside};
pub(crate) use self::message::{ORGANIZATION, PERSISTENT};
use crate::{
    error::{Doing, Trouble, within},
    topology::{INGEST_QUEUE, declare_ingest},
};

/// The queue of what comes in, being listened to.
pub(crate) struct Inlet {
    channel: Channel,
    consumer: Consumer,
}

impl Inlet {
    pub(crate) async fn begin(connection: &Connection) -> Result<Self, Trouble> {
        const DOING: &str = "listen for events";
        let channel = connection.create_channel().await.doing(DOING)?;
        declare_ingest(&channel).await?;
        // For what is put aside.
        channel.confirm_select(ConfirmSelectOptions::default()).await.doing(DOING)?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.doing(DOING)?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(INGEST_QUEUE.into(), "".into(), options, arguments);
        let consumer = consumer.await.doing(DOING)?;
        Ok(Self { channel, consumer })
    }

    /// Publishes what comes until it is stopped. While the storage is away for long, nothing is taken in.
    pub(crate) async fn run(
        mut self,
        connection: &Connection,
        esl: &Esl,
        stop: &CancellationToken,
    ) -> Result<(), Trouble> {
        loop {
            match serve(&self.channel, &mut self.consumer, esl, stop).await? {
                Ended::Stopped => return Ok(()),
                Ended::StorageAway => {}
            }
            tracing::warn!("events stay at the broker until the storage works again");
            let close = self.channel.close(200, "the storage is away".into());
            within(PATIENCE, "give back what was not published", close).await?;
            if !wait_for_storage(esl, stop).await {
                return Ok(());
            }
            tracing::info!("the storage works again; taking events in");
            let begun = timeout(PATIENCE, Self::begin(connection)).await;
            let silence = |_| Trouble::Silence { doing: "listen for events", within: PATIENCE };
            self = begun.map_err(silence)??;
        }
    }
}

/// Why nothing more is taken in.
enum Ended {
    Stopped,
    StorageAway,
}

/// What became of a piece of work.
enum Done {
    /// A batch of that organization is over.
    Batch(OrganizationId),
    PutAside,
    /// The storage was away for too long.
    GivenUp,
    Stopped,
}

type Work<'w> = FuturesUnordered<BoxFuture<'w, Result<Done, Trouble>>>;

async fn serve(
    channel: &Channel,
    consumer: &mut Consumer,
    esl: &Esl,
    stop: &CancellationToken,
) -> Result<Ended, Trouble> {
    let mut lines = Lines::default();
    let mut work = Work::new();
    loop {
        // All arms may be dropped: what they wait for stays where it is.
        tokio::select! {
            biased;
            Some(done) = work.next() => match done? {
                Done::Batch(organization) if !stop.is_cancelled() => {
                    if let Some(batch) = lines.next(organization) {
                        work.push(batch.publish(esl, channel, stop).boxed());
                    }
                }
                Done::Batch(_) | Done::PutAside | Done::Stopped => {}
                Done::GivenUp => return Ok(Ended::StorageAway),
            },
            () = stop.cancelled(), if work.is_empty() => return Ok(Ended::Stopped),
            delivery = consumer.next(), if !stop.is_cancelled() => {
                let delivery = delivery.ok_or(Trouble::Cancelled { queue: INGEST_QUEUE })?;
                let delivery = delivery.doing("take in an event")?;
                match batch::message(&delivery).event() {
                    Ok(event) => {
                        if let Some(batch) = lines.add(Received { delivery, event }) {
                            work.push(batch.publish(esl, channel, stop).boxed());
                        }
                    }
                    Err(malformed) => {
                        work.push(put_aside(channel, delivery, malformed.to_string()).boxed());
                    }
                }
            }
        }
    }
}

/// What waits of each organization of which a batch is under way.
#[derive(Default)]
struct Lines(HashMap<OrganizationId, VecDeque<Received>>);

impl Lines {
    /// Adds to a line; what is to be done at once comes back.
    fn add(&mut self, received: Received) -> Option<Batch> {
        let organization = received.event.organization;
        match self.0.get_mut(&organization) {
            Some(line) => {
                line.push_back(received);
                None
            }
            None => {
                self.0.insert(organization, VecDeque::new());
                Some(Batch { organization, messages: vec![received] })
            }
        }
    }

    /// What comes next of an organization, whose batch is over.
    fn next(&mut self, organization: OrganizationId) -> Option<Batch> {
        let line = self.0.get_mut(&organization)?;
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while let Some(next) = line.front() {
            bytes += next.event.data.get().len();
            let is_too_much = messages.len() == BATCH_MAX || bytes > BATCH_BYTES_MAX;
            if is_too_much && !messages.is_empty() {
                break;
            }
            messages.extend(line.pop_front());
        }
        if messages.is_empty() {
            self.0.remove(&organization);
            return None;
        }
        Some(Batch { organization, messages })
    }
}

/// Waits until the storage works; false when stopped.
async fn wait_for_storage(esl: &Esl, stop: &CancellationToken) -> bool {
    loop {
        // Both arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            () = sleep(LOOK_EVERY) => {}
        }
        if matches!(timeout(PATIENCE, esl.storage().check()).await, Ok(Ok(()))) {
            return true;
        }
    }
}

/// So many messages are taken in at a time; the broker keeps the others.
const PREFETCH: u16 = 256;
/// Events that are published as one unit.
const BATCH_MAX: usize = 100;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(5);
