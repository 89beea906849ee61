//! An engine, a broker, and somebody else who speaks with the broker.

use std::time::Duration;

use esl_amqp::{Broker, BrokerLink, INGEST_QUEUE};
use esl_core::{
    Esl, MemoryStorage, NewEvent, Organization, OrganizationId, Timestamp, storage::Page,
};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use crate::{
    faulty::{Fault, FaultyStorage},
    server,
};

pub(crate) const ACME: OrganizationId = OrganizationId::from_bytes([1; 16]);
pub(crate) const GLOBEX: OrganizationId = OrganizationId::from_bytes([2; 16]);

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) esl: Esl,
    pub(crate) fault: Fault,
    pub(crate) client: Client,
}

impl World {
    pub(crate) async fn new() -> Self {
        let all = server::fresh();
        let fault = Fault::default();
        let storage = FaultyStorage { inner: MemoryStorage::new(), fault: fault.clone() };
        let esl = Esl::builder(storage).build().await.unwrap();
        for (id, name) in [(ACME, "acme"), (GLOBEX, "globex")] {
            esl.create_organization(Organization::new(id, name, Timestamp::EPOCH)).await.unwrap();
        }
        let client = Client::new(&all).await;
        Self { url: server::for_esl(&all), esl, fault, client }
    }

    pub(crate) fn broker(&self) -> Broker {
        Broker::new(self.url.parse().unwrap())
    }

    pub(crate) async fn publish(&self, organization: OrganizationId, event_type: &str) {
        self.esl.publish(event(organization, event_type)).await.unwrap();
    }

    /// The data of an organization's events, in their order, once there are so many.
    pub(crate) async fn until_published(
        &self,
        organization: OrganizationId,
        count: usize,
    ) -> Vec<String> {
        soon(async {
            loop {
                let page = Page { after: None, limit: 10_000 };
                let events = self.esl.storage().events(organization, None, page).await.unwrap();
                if events.items.len() >= count {
                    return events.items.iter().rev().map(|event| data(&event.body)).collect();
                }
                self.esl.committed().await;
            }
        })
        .await
    }

    pub(crate) async fn stop(self, link: BrokerLink) {
        link.shutdown().await;
        self.esl.shutdown().await;
    }
}

pub(crate) fn event(organization: OrganizationId, event_type: &str) -> NewEvent {
    NewEvent::new(organization, event_type.parse().unwrap(), &1).unwrap()
}

fn data(body: &[u8]) -> String {
    let envelope: esl_core::Envelope = serde_json::from_slice(body).unwrap();
    envelope.data.unwrap().get().to_owned()
}

pub(crate) async fn connected(link: &BrokerLink) {
    soon(link.until(|state| state.connected_since.is_some())).await;
}

/// Does not wait for ever for what never comes.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(300), work).await.expect("it comes soon")
}

/// Somebody else.
pub(crate) struct Client {
    _connection: Connection,
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) async fn new(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { _connection: connection, channel }
    }

    /// Puts a message into the queue of what comes in.
    pub(crate) async fn send(&self, properties: BasicProperties, body: &str) {
        let (options, body) = (BasicPublishOptions::default(), body.as_bytes());
        let sent =
            self.channel.basic_publish("".into(), INGEST_QUEUE.into(), options, body, properties);
        assert_eq!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None));
    }

    /// How many messages wait in a queue, of which nobody has been given.
    pub(crate) async fn count(&self, queue: &str) -> u32 {
        self.look(queue).await.0
    }

    /// How many are left in a queue once nobody consumes any more, and what was not acknowledged is back.
    pub(crate) async fn left(&self, queue: &str) -> u32 {
        soon(async {
            loop {
                let (messages, consumers) = self.look(queue).await;
                if consumers == 0 {
                    return messages;
                }
            }
        })
        .await
    }

    /// Waits until all messages of a queue are with whoever consumes.
    pub(crate) async fn until_taken(&self, queue: &str) {
        soon(async { while self.look(queue).await.0 > 0 {} }).await;
    }

    /// Messages and consumers.
    async fn look(&self, queue: &str) -> (u32, u32) {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        let declared = declared.await.unwrap();
        (declared.message_count(), declared.consumer_count())
    }

    /// A consumer of events of that pattern.
    pub(crate) async fn bind(&self, exchange: &str, pattern: &str) -> Consumer {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare("".into(), options, FieldTable::default());
        let queue = queue.await.unwrap().name().clone();
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let bound = self.channel.queue_bind(
            queue.clone(),
            exchange.into(),
            pattern.into(),
            options,
            arguments,
        );
        bound.await.unwrap();
        self.consume(queue.as_str()).await
    }

    pub(crate) async fn consume(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer =
            self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        consumer.await.unwrap()
    }
}

pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    soon(consumer.next()).await.unwrap().unwrap()
}

/// Of a message that is an event of an organization.
pub(crate) fn properties(organization: OrganizationId, message_id: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    let id = organization.to_string();
    headers.insert("esl-organization".into(), AMQPValue::LongString(id.into()));
    BasicProperties::default()
        .with_message_id(message_id.into())
        .with_type("order.placed".into())
        .with_headers(headers)
}

pub(crate) fn header(delivery: &Delivery, name: &str) -> Option<String> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::LongLongInt(number) => Some(number.to_string()),
        _ => None,
    }
}
