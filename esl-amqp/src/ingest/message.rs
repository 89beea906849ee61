//! What a message says: the event that it is, or why it is none.

use std::sync::Arc;

use esl_core::{
    EventId, EventType, EventTypeError, IdError, Metadata, NewEvent, OrganizationId, Origin,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'m> {
    pub(crate) exchange: &'m str,
    pub(crate) routing_key: &'m str,
    pub(crate) properties: &'m BasicProperties,
    pub(crate) body: &'m [u8],
}

/// Why a message is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the header esl-organization is missing")]
    NoOrganization,
    #[error("the header esl-organization is no organization: {0}")]
    Organization(IdError),
    #[error("message_id is missing: without one, a redelivery would be a second event")]
    NoId,
    #[error(
        "the event type is missing: it is the property type, or the routing key at an exchange"
    )]
    NoType,
    #[error("the event type is none: {0}")]
    Type(EventTypeError),
    #[error("content_encoding is set: the body is to be JSON as it is")]
    Encoded,
    #[error("the body has more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body is not JSON")]
    NotJson,
}

impl Message<'_> {
    /// The event that it is.
    pub(crate) fn event(&self) -> Result<NewEvent, Malformed> {
        let properties = self.properties;
        let header = properties.headers().as_ref().and_then(|headers| text(headers, ORGANIZATION));
        let organization: OrganizationId =
            header.ok_or(Malformed::NoOrganization)?.parse().map_err(Malformed::Organization)?;
        let message_id = known(properties.message_id()).ok_or(Malformed::NoId)?;
        let event_type = self.event_type().ok_or(Malformed::NoType)?;
        let event_type: EventType = event_type.parse().map_err(Malformed::Type)?;
        if known(properties.content_encoding()).is_some_and(|encoding| !is_identity(encoding)) {
            return Err(Malformed::Encoded);
        }
        if self.body.len() > BODY_BYTES_MAX {
            return Err(Malformed::TooLarge);
        }
        let data: Box<RawValue> =
            serde_json::from_slice(self.body).map_err(|_| Malformed::NotJson)?;
        let mut metadata = Metadata::default();
        metadata.correlation_id = known(properties.correlation_id()).map(str::to_owned);
        let triggered_by = known(properties.user_id()).or_else(|| known(properties.app_id()));
        let origin = Origin {
            correlation_id: message_id.to_owned(),
            triggered_by: triggered_by.unwrap_or(SOURCE).to_owned(),
            source: SOURCE,
        };
        Ok(NewEvent::from_raw(organization, event_type, data)
            .with_id(event_id(organization, message_id))
            .with_metadata(metadata)
            .with_origin(Arc::new(origin)))
    }

    /// At the default exchange the routing key is the queue's name.
    fn event_type(&self) -> Option<&str> {
        let routing_key = Some(self.routing_key).filter(|key| !key.is_empty());
        known(self.properties.kind()).or_else(|| routing_key.filter(|_| !self.exchange.is_empty()))
    }

    /// The properties under which it is tried again later: with its type, which its routing key may have
    /// been.
    pub(crate) fn properties_for_later(&self) -> BasicProperties {
        let properties = self.kept_properties().with_headers(self.kept_headers());
        match self.event_type() {
            Some(event_type) => properties.with_type(event_type.into()),
            None => properties,
        }
    }

    /// The properties under which it is put aside.
    pub(crate) fn properties_for_dead(&self, reason: &str) -> BasicProperties {
        let mut headers = self.kept_headers();
        for (name, value) in
            [(REASON, reason), (EXCHANGE, self.exchange), (ROUTING_KEY, self.routing_key)]
        {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        self.kept_properties().with_headers(headers)
    }

    /// All but what would have the broker refuse or drop the message: the user is another one now, and
    /// what has a date to expire has had its time.
    fn kept_properties(&self) -> BasicProperties {
        let from = self.properties;
        let mut kept = BasicProperties::default().with_delivery_mode(PERSISTENT);
        if let Some(it) = from.content_type() {
            kept = kept.with_content_type(it.clone());
        }
        if let Some(it) = from.content_encoding() {
            kept = kept.with_content_encoding(it.clone());
        }
        if let Some(it) = from.correlation_id() {
            kept = kept.with_correlation_id(it.clone());
        }
        if let Some(it) = from.message_id() {
            kept = kept.with_message_id(it.clone());
        }
        if let Some(it) = from.timestamp() {
            kept = kept.with_timestamp(*it);
        }
        if let Some(it) = from.kind() {
            kept = kept.with_type(it.clone());
        }
        if let Some(it) = from.app_id() {
            kept = kept.with_app_id(it.clone());
        }
        kept
    }

    /// All but what the broker writes itself.
    fn kept_headers(&self) -> FieldTable {
        let mut kept = FieldTable::default();
        if let Some(headers) = self.properties.headers() {
            for (name, value) in headers.inner() {
                if !name.as_str().starts_with("x-") {
                    kept.insert(name.clone(), value.clone());
                }
            }
        }
        kept
    }
}

/// The id of the event that a message is: its own, or one that follows from it, so that the same message
/// is the same event. The organization is part of it, since in another one it is another event.
pub(crate) fn event_id(organization: OrganizationId, message_id: &str) -> EventId {
    if let Ok(id) = message_id.parse() {
        return id;
    }
    let mut hash = Sha256::new();
    hash.update(organization.to_string());
    hash.update([0]);
    hash.update(message_id);
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    EventId::from_bytes(id)
}

fn known(property: &Option<ShortString>) -> Option<&str> {
    property.as_ref().map(ShortString::as_str).filter(|text| !text.is_empty())
}

fn text<'t>(table: &'t FieldTable, name: &str) -> Option<&'t str> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// Some libraries write the charset there.
fn is_identity(encoding: &str) -> bool {
    ["identity", "utf-8", "utf8"].iter().any(|it| encoding.eq_ignore_ascii_case(it))
}

/// Whose event it is.
pub(crate) const ORGANIZATION: &str = "esl-organization";
/// Why it could not be published.
const REASON: &str = "esl-reason";
/// Where it came from.
const EXCHANGE: &str = "esl-exchange";
const ROUTING_KEY: &str = "esl-routing-key";
const SOURCE: &str = "amqp";
pub(crate) const PERSISTENT: u8 = 2;

/// As much as the API takes.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: &str = "org_01J00000000000000000000000";

    fn properties() -> BasicProperties {
        BasicProperties::default()
            .with_message_id("order-1".into())
            .with_type("order.placed".into())
            .with_headers(headers(&[(ORGANIZATION, ACME)]))
    }

    fn headers(of: &[(&str, &str)]) -> FieldTable {
        let mut headers = FieldTable::default();
        for (name, value) in of {
            headers.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        headers
    }

    fn message<'m>(properties: &'m BasicProperties, body: &'m [u8]) -> Message<'m> {
        Message { exchange: "", routing_key: "esl.ingest", properties, body }
    }

    #[test]
    fn an_event_is_what_its_message_says() {
        let properties =
            properties().with_correlation_id("req-7".into()).with_app_id("shop".into());
        let event = message(&properties, br#" {"price":1.50, "price":2} "#).event().unwrap();
        assert_eq!(event.organization.to_string(), ACME);
        assert_eq!(event.event_type.as_str(), "order.placed");
        assert_eq!(event.data.get(), r#"{"price":1.50, "price":2}"#);
        assert_eq!(event.id, Some(event_id(event.organization, "order-1")));
        assert_eq!(event.metadata.correlation_id.as_deref(), Some("req-7"));
        let origin = event.origin.unwrap();
        let origin = (&*origin.correlation_id, &*origin.triggered_by, origin.source);
        assert_eq!(origin, ("order-1", "shop", "amqp"));
    }

    #[test]
    fn the_routing_key_is_the_type_at_an_exchange_only() {
        let without_type = BasicProperties::default()
            .with_message_id("1".into())
            .with_headers(headers(&[(ORGANIZATION, ACME)]));
        let at = |exchange, properties| {
            let routing_key = "person.updated";
            let event = Message { exchange, routing_key, properties, body: b"1" }.event();
            event.map(|event| event.event_type.to_string())
        };
        assert_eq!(at("esl.ingest", &without_type), Ok("person.updated".to_owned()));
        assert_eq!(at("", &without_type), Err(Malformed::NoType));
        assert_eq!(at("esl.ingest", &properties()), Ok("order.placed".to_owned()));
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        let base = BasicProperties::default;
        let organization = || headers(&[(ORGANIZATION, ACME)]);
        let wrong = || headers(&[(ORGANIZATION, "acme")]);
        for (properties, body, reason) in [
            (base(), "{}", "the header esl-organization is missing"),
            (properties().with_headers(wrong()), "{}", "the header esl-organization is no org"),
            (base().with_headers(organization()), "{}", "message_id is missing"),
            (properties().with_message_id("".into()), "{}", "message_id is missing"),
            (properties().with_type("".into()), "{}", "the event type is missing"),
            (properties().with_type("Order".into()), "{}", "the event type is none"),
            (properties().with_content_encoding("gzip".into()), "{}", "content_encoding is set"),
            (properties(), "", "the body is not JSON"),
            (properties(), "{} {}", "the body is not JSON"),
        ] {
            let malformed = message(&properties, body.as_bytes()).event().unwrap_err().to_string();
            assert!(malformed.starts_with(reason), "{malformed}");
        }
        let not_text = message(&properties(), b"\"\xff\"").event().unwrap_err();
        assert_eq!(not_text, Malformed::NotJson);
        let large = vec![b'1'; BODY_BYTES_MAX + 1];
        assert_eq!(message(&properties(), &large).event().unwrap_err(), Malformed::TooLarge);
        let utf8 = properties().with_content_encoding("UTF-8".into());
        assert!(message(&utf8, b"{}").event().is_ok());
    }

    #[test]
    fn the_same_message_is_the_same_event_and_another_ones_is_not() {
        let acme: OrganizationId = ACME.parse().unwrap();
        let other = OrganizationId::from_bytes([7; 16]);
        let own = "evt_01J00000000000000000000000";
        assert_eq!(event_id(acme, own).to_string(), own);
        assert_eq!(event_id(other, own).to_string(), own);
        // As `printf 'org_01J00000000000000000000000\0order-1' | sha256sum` says.
        let hashed = event_id(acme, "order-1");
        assert_eq!(hex::encode(hashed.to_bytes()), ORDER_1);
        assert_ne!(event_id(other, "order-1"), hashed);
        assert_ne!(event_id(acme, "order-2"), hashed);
    }

    const ORDER_1: &str = "a9057104dae0c9a4a0e62dd009724c9c";

    #[test]
    fn what_is_put_aside_says_why_and_loses_what_would_end_it() {
        let properties = properties()
            .with_expiration("1000".into())
            .with_user_id("shop".into())
            .with_headers(headers(&[(ORGANIZATION, ACME), ("x-death", "…"), ("tenant", "7")]));
        let message = Message { exchange: "shop", routing_key: "a.b", ..message(&properties, b"") };
        let dead = message.properties_for_dead("the body is not JSON");
        assert_eq!((dead.expiration(), dead.user_id()), (&None, &None));
        assert_eq!(*dead.delivery_mode(), Some(PERSISTENT));
        let expected = headers(&[
            (ORGANIZATION, ACME),
            ("tenant", "7"),
            (REASON, "the body is not JSON"),
            (EXCHANGE, "shop"),
            (ROUTING_KEY, "a.b"),
        ]);
        assert_eq!(*dead.headers(), Some(expected));
        let later = message.properties_for_later();
        assert_eq!(*later.headers(), Some(headers(&[(ORGANIZATION, ACME), ("tenant", "7")])));
        assert_eq!(*later.kind(), Some("order.placed".into()));
    }
}
