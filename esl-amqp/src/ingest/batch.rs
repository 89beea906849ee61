//! Events of one organization on their way into ESL.

use std::time::Duration;

use esl_core::{Esl, NewEvent, OrganizationId};
use lapin::{
    BasicProperties, Channel, Confirmation,
    message::Delivery,
    options::{BasicAckOptions, BasicPublishOptions},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Done, fate::Fate, message::Message};
use crate::{
    error::{Doing, Trouble, within},
    topology::{DEAD_QUEUE, LATER_QUEUE},
};

/// A message that is an event.
pub(crate) struct Received {
    pub(crate) delivery: Delivery,
    pub(crate) event: NewEvent,
}

/// Messages of one organization, in their order.
pub(crate) struct Batch {
    pub(crate) organization: OrganizationId,
    pub(crate) messages: Vec<Received>,
}

/// What publishing has come to.
enum Outcome {
    Published,
    Later,
    Dead(String),
    GivenUp,
    Stopped,
}

impl Batch {
    /// Publishes all of it as one unit; if that is refused, each by itself. Comes back when every message
    /// is acknowledged, or will not be.
    pub(crate) async fn publish(
        self,
        esl: &Esl,
        channel: &Channel,
        stop: &CancellationToken,
    ) -> Result<Done, Trouble> {
        let Self { organization, messages } = self;
        if messages.len() > 1 {
            let events = messages.iter().map(|message| message.event.clone()).collect();
            match insist(esl, organization, events, stop).await {
                Outcome::Published => {
                    for message in &messages {
                        acknowledge(&message.delivery).await?;
                    }
                    return Ok(Done::Batch(organization));
                }
                Outcome::GivenUp => return Ok(Done::GivenUp),
                Outcome::Stopped => return Ok(Done::Stopped),
                Outcome::Later | Outcome::Dead(_) => {}
            }
        }
        for Received { delivery, event } in messages {
            match insist(esl, organization, vec![event], stop).await {
                Outcome::Published => acknowledge(&delivery).await?,
                Outcome::Later => put_off(channel, &delivery).await?,
                Outcome::Dead(reason) => _ = put_aside(channel, delivery, reason).await?,
                Outcome::GivenUp => return Ok(Done::GivenUp),
                Outcome::Stopped => return Ok(Done::Stopped),
            }
        }
        Ok(Done::Batch(organization))
    }
}

/// Publishes, again and again while the storage is away, but not for too long. All events have ids, so
/// what was committed although it failed is not committed twice.
async fn insist(
    esl: &Esl,
    organization: OrganizationId,
    events: Vec<NewEvent>,
    stop: &CancellationToken,
) -> Outcome {
    let began = Instant::now();
    let mut pause = AGAIN_AFTER_MIN;
    loop {
        let Err(error) = esl.publish_batch(organization, events.clone(), None).await else {
            return Outcome::Published;
        };
        match Fate::of(&error) {
            Fate::Again => {}
            Fate::Later => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(%organization, error, "an event is tried again in a minute");
                return Outcome::Later;
            }
            Fate::Dead(reason) => return Outcome::Dead(reason),
            Fate::Stay => return Outcome::GivenUp,
        }
        if began.elapsed() >= GIVE_UP_AFTER {
            return Outcome::GivenUp;
        }
        // Both arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return Outcome::Stopped,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(AGAIN_AFTER_MAX);
    }
}

/// What a delivery says.
pub(crate) fn message(delivery: &Delivery) -> Message<'_> {
    Message {
        exchange: delivery.exchange.as_str(),
        routing_key: delivery.routing_key.as_str(),
        properties: &delivery.properties,
        body: &delivery.data,
    }
}

/// Puts a message aside for good, with the reason.
pub(crate) async fn put_aside(
    channel: &Channel,
    delivery: Delivery,
    reason: String,
) -> Result<Done, Trouble> {
    let properties = message(&delivery).properties_for_dead(&reason);
    hand_over(channel, DEAD_QUEUE, &delivery, properties).await?;
    tracing::warn!(
        reason,
        message_id = delivery.properties.message_id().as_ref().map(|id| id.as_str()),
        "a message cannot be published; it is in {DEAD_QUEUE}"
    );
    Ok(Done::PutAside)
}

/// Has a message come again in a minute.
async fn put_off(channel: &Channel, delivery: &Delivery) -> Result<(), Trouble> {
    let properties = message(delivery).properties_for_later();
    hand_over(channel, LATER_QUEUE, delivery, properties).await
}

/// Moves a message to another queue: it is acknowledged here when it is there.
async fn hand_over(
    channel: &Channel,
    queue: &'static str,
    delivery: &Delivery,
    properties: BasicProperties,
) -> Result<(), Trouble> {
    const DOING: &str = "put a message aside";
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let body = &delivery.data;
    let confirmed = within(PATIENCE, DOING, async {
        let sent =
            channel.basic_publish("".into(), queue.into(), options, body, properties).await?;
        sent.await
    });
    match confirmed.await? {
        Confirmation::Ack(None) => acknowledge(delivery).await,
        Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => {
            Err(Trouble::NotTaken { doing: DOING })
        }
    }
}

async fn acknowledge(delivery: &Delivery) -> Result<(), Trouble> {
    let acknowledged = delivery.ack(BasicAckOptions::default()).await;
    acknowledged.map(drop).doing("acknowledge a message")
}

const AGAIN_AFTER_MIN: Duration = Duration::from_millis(100);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);
/// RabbitMQ closes a channel on which something is not acknowledged for half an hour.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(30);
