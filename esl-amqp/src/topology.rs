//! What there is at the broker, and how it is declared.
//!
//! Declaring what is there already, with the same arguments, changes nothing; with other arguments the
//! broker refuses it. So the arguments below are for good, and what an operator may want otherwise (how
//! long a queue may be, for instance) is for policies.

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::error::{Doing, Trouble};

/// Hints between engines; fanout. Each engine has a queue at it while it is connected.
pub const WAKE_EXCHANGE: &str = "esl.wake";
/// Every committed event; topic, by the event's type.
pub const EVENTS_EXCHANGE: &str = "esl.events";
/// Events for ESL, with their type as routing key; topic. All of it goes to [`INGEST_QUEUE`].
pub const INGEST_EXCHANGE: &str = "esl.ingest";
/// Events for ESL.
pub const INGEST_QUEUE: &str = "esl.ingest";
/// Events that are tried again in a minute.
pub const LATER_QUEUE: &str = "esl.ingest.later";
/// What cannot be published, with the reason.
pub const DEAD_QUEUE: &str = "esl.ingest.dead";

/// So long events are in [`LATER_QUEUE`].
const LATER_MS: i32 = 60_000;
/// A hint that is older is worth nothing: every engine looks by itself.
const HINT_MS: i32 = 1_000;
/// So many hints wait for an engine that does not keep up.
const HINTS_MAX: i32 = 1_000;

/// The exchange of hints, and this engine's queue at it, which goes with the connection.
pub(crate) async fn declare_wake(channel: &Channel, queue: &str) -> Result<(), Trouble> {
    const DOING: &str = "declare what hints need";
    declare_exchange(channel, WAKE_EXCHANGE, ExchangeKind::Fanout).await.doing(DOING)?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), HINT_MS.into());
    arguments.insert("x-max-length".into(), HINTS_MAX.into());
    channel.queue_declare(queue.into(), options, arguments).await.doing(DOING)?;
    bind(channel, queue, WAKE_EXCHANGE, "").await.doing(DOING)
}

/// The exchange of committed events. Its queues are its consumers'.
pub(crate) async fn declare_events(channel: &Channel) -> Result<(), Trouble> {
    let declared = declare_exchange(channel, EVENTS_EXCHANGE, ExchangeKind::Topic).await;
    declared.doing("declare the exchange of events")
}

/// The queues of what comes in.
pub(crate) async fn declare_ingest(channel: &Channel) -> Result<(), Trouble> {
    const DOING: &str = "declare the queues of what comes in";
    declare_queue(channel, DEAD_QUEUE, quorum()).await.doing(DOING)?;
    let mut ingest = passing_on_to(DEAD_QUEUE);
    // Two servers that took from it would each publish what they have, and nobody could say in which order.
    ingest.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    declare_queue(channel, INGEST_QUEUE, ingest).await.doing(DOING)?;
    let mut later = passing_on_to(INGEST_QUEUE);
    later.insert("x-message-ttl".into(), LATER_MS.into());
    declare_queue(channel, LATER_QUEUE, later).await.doing(DOING)?;
    declare_exchange(channel, INGEST_EXCHANGE, ExchangeKind::Topic).await.doing(DOING)?;
    bind(channel, INGEST_QUEUE, INGEST_EXCHANGE, "#").await.doing(DOING)
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

/// What such a queue lets go of is moved to another one, and is gone from here only when it is there.
/// That takes `reject-publish`, which means something only if a policy says how long the queue may be:
/// then the publisher is told.
fn passing_on_to(queue: &str) -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(queue));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
) -> Result<(), lapin::Error> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await
}

async fn declare_queue(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
) -> Result<(), lapin::Error> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, arguments).await.map(drop)
}

async fn bind(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    routing_key: &str,
) -> Result<(), lapin::Error> {
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(queue.into(), exchange.into(), routing_key.into(), options, arguments).await
}
