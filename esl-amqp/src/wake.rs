//! Hints between engines over one storage.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use esl_core::{LaneId, Wake};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer,
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::FieldTable,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Doing, Trouble, within},
    topology::{WAKE_EXCHANGE, declare_wake},
};

/// Carries hints over the broker: for [`EslBuilder::wake`](esl_core::EslBuilder::wake).
///
/// While there is no connection, hints are dropped, and every engine finds by itself, in some seconds,
/// what it was not told of.
#[derive(Debug)]
pub struct AmqpWake {
    hints: Arc<Hints>,
}

impl AmqpWake {
    pub(crate) const fn new(hints: Arc<Hints>) -> Self {
        Self { hints }
    }
}

#[async_trait]
impl Wake for AmqpWake {
    fn notify(&self, lanes: &[LaneId]) {
        self.hints.tell(lanes);
    }

    async fn listen(&self) -> Vec<LaneId> {
        match self.hints.heard.lock().await.recv().await {
            Some(lanes) => lanes,
            None => std::future::pending().await,
        }
    }
}

/// Hints on their way between the engine and the broker.
#[derive(Debug)]
pub(crate) struct Hints {
    untold: Mutex<Untold>,
    more_untold: Notify,
    hears: mpsc::Sender<Vec<LaneId>>,
    heard: tokio::sync::Mutex<mpsc::Receiver<Vec<LaneId>>>,
}

#[derive(Debug, Default)]
struct Untold {
    is_connected: bool,
    lanes: BTreeSet<LaneId>,
}

impl Hints {
    pub(crate) fn new() -> Self {
        let (hears, heard) = mpsc::channel(HEARD_MAX);
        let heard = tokio::sync::Mutex::new(heard);
        Self { untold: Mutex::default(), more_untold: Notify::new(), hears, heard }
    }

    fn tell(&self, lanes: &[LaneId]) {
        let mut untold = self.untold();
        if !untold.is_connected {
            return;
        }
        let room = UNTOLD_MAX.saturating_sub(untold.lanes.len());
        untold.lanes.extend(lanes.iter().take(room));
        drop(untold);
        self.more_untold.notify_one();
    }

    /// Some of what is to be told, each lane once; waits until there is some.
    async fn next(&self) -> Vec<LaneId> {
        loop {
            let lanes = self.some_untold();
            if !lanes.is_empty() {
                return lanes;
            }
            self.more_untold.notified().await;
        }
    }

    /// As much as goes into a message.
    fn some_untold(&self) -> Vec<LaneId> {
        let mut untold = self.untold();
        let rest = untold.lanes.iter().nth(LANES_MAX).copied();
        let rest = rest.map(|first| untold.lanes.split_off(&first)).unwrap_or_default();
        std::mem::replace(&mut untold.lanes, rest).into_iter().collect()
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_connected(&self, is_connected: bool) {
        *self.untold() = Untold { is_connected, lanes: BTreeSet::new() };
    }
}

/// While it is there, hints are taken.
struct Connected<'h>(&'h Hints);

impl<'h> Connected<'h> {
    fn new(hints: &'h Hints) -> Self {
        hints.set_connected(true);
        Self(hints)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.set_connected(false);
    }
}

/// This engine's queue, ready to be listened to.
pub(crate) struct Listening {
    channel: Channel,
    consumer: Consumer,
    queue: String,
}

impl Listening {
    pub(crate) async fn begin(connection: &Connection) -> Result<Self, Trouble> {
        let channel = connection.create_channel().await.doing("open a channel for hints")?;
        let queue = queue_name();
        declare_wake(&channel, &queue).await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel
            .basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())
            .await
            .doing("listen for hints")?;
        Ok(Self { channel, consumer, queue })
    }

    /// Carries hints, both ways, until it is stopped.
    pub(crate) async fn run(self, hints: &Hints, stop: &CancellationToken) -> Result<(), Trouble> {
        let Self { channel, consumer, queue } = self;
        let _connected = Connected::new(hints);
        // Any arm may be dropped in the middle: hints are hints.
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = tell(&channel, hints, &queue) => ended,
            ended = hear(consumer, hints, &queue) => ended,
        }
    }
}

async fn tell(channel: &Channel, hints: &Hints, queue: &str) -> Result<(), Trouble> {
    loop {
        let lanes = encoded(&hints.next().await);
        let publish = channel.basic_publish(
            WAKE_EXCHANGE.into(),
            "".into(),
            BasicPublishOptions::default(),
            &lanes,
            // Says whose it is, so that nobody wakes himself.
            BasicProperties::default().with_app_id(queue.into()),
        );
        within(PATIENCE, "tell others of lanes", publish).await?;
        // What comes meanwhile goes in one message.
        tokio::time::sleep(COALESCED).await;
    }
}

async fn hear(mut consumer: Consumer, hints: &Hints, queue: &str) -> Result<(), Trouble> {
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.doing("listen for hints")?;
        let author = delivery.properties.app_id().as_ref().map(|id| id.as_str());
        if author == Some(queue) {
            continue;
        }
        match decoded(&delivery.data) {
            // An engine that does not keep up looks by itself.
            Some(lanes) => _ = hints.hears.try_send(lanes),
            None => tracing::debug!("a message at esl.wake names no lanes"),
        }
    }
    Err(Trouble::Cancelled { queue: "the hints" })
}

/// Lanes as numbers of seven bits a byte, the lowest first; the highest bit says that more follow.
fn encoded(lanes: &[LaneId]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(lanes.len() * 3);
    for lane in lanes {
        let mut left = lane.get();
        while left > 0x7f {
            bytes.push(left.to_le_bytes()[0] | 0x80);
            left >>= 7;
        }
        bytes.push(left.to_le_bytes()[0]);
    }
    bytes
}

/// What [`encoded`] has made; `None` if something else has made it.
fn decoded(bytes: &[u8]) -> Option<Vec<LaneId>> {
    let mut lanes = Vec::new();
    let (mut number, mut shift) = (0, 0);
    for byte in bytes {
        if shift > 35 || lanes.len() == LANES_MAX {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 != 0 {
            shift += 7;
            continue;
        }
        if number > LaneId::MAX.get() {
            return None;
        }
        lanes.push(LaneId::new(number));
        (number, shift) = (0, 0);
    }
    (shift == 0).then_some(lanes)
}

/// A name of its own for each connection.
fn queue_name() -> String {
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("the system has random bytes");
    format!("{WAKE_EXCHANGE}.{}", hex::encode(random))
}

/// Lanes in a message.
const LANES_MAX: usize = 4096;
/// Lanes that wait to be told of; beyond that they are dropped.
const UNTOLD_MAX: usize = 64 * 1024;
/// Messages that wait for the engine to listen.
const HEARD_MAX: usize = 256;
const COALESCED: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(numbers: &[u64]) -> Vec<LaneId> {
        numbers.iter().copied().map(LaneId::new).collect()
    }

    #[test]
    fn lanes_are_read_as_they_were_written() {
        for numbers in [&[][..], &[0, 1, 127, 128, 300], &[1 << 35, LaneId::MAX.get(), 5]] {
            let lanes = lanes(numbers);
            assert_eq!(decoded(&encoded(&lanes)), Some(lanes));
        }
        assert_eq!(encoded(&lanes(&[1, 300])), [1, 0xac, 2]);
    }

    #[test]
    fn what_names_no_lanes_is_refused() {
        let endless = [0x80; 7];
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let too_many = vec![1; LANES_MAX + 1];
        for bytes in [&[0x80][..], &[1, 0xff], &endless, &too_large, &too_many] {
            assert_eq!(decoded(bytes), None, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_lane_is_told_of_once_and_nothing_while_there_is_no_connection() {
        let hints = Hints::new();
        hints.tell(&lanes(&[1]));
        let connected = Connected::new(&hints);
        hints.tell(&lanes(&[3, 2]));
        hints.tell(&lanes(&[3]));
        assert_eq!(hints.next().await, lanes(&[2, 3]));
        hints.tell(&lanes(&[4]));
        drop(connected);
        let _connected = Connected::new(&hints);
        hints.tell(&lanes(&[5]));
        assert_eq!(hints.next().await, lanes(&[5]));
    }

    #[tokio::test]
    async fn what_is_too_much_for_one_message_comes_in_several() {
        let hints = Hints::new();
        let _connected = Connected::new(&hints);
        let many = lanes(&(0..LANES_MAX as u64 + 1).collect::<Vec<_>>());
        hints.tell(&many);
        assert_eq!(hints.next().await, many[..LANES_MAX]);
        assert_eq!(hints.next().await, many[LANES_MAX..]);
    }
}
