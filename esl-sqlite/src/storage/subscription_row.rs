//! A subscription as a row of `esl_subscriptions`, and back.

use std::{num::NonZeroU32, sync::LazyLock, time::Duration};

use esl_core::{
    CallbackUrl, DisabledReason, OnExhausted, OrganizationId, RetiringSecret, Secret, SecretField,
    SendOrder, Subscription, SubscriptionId, SubscriptionOptions, Timestamp, storage::encoding,
};
use rusqlite::{
    OptionalExtension, Row,
    types::{Type, Value},
};

use crate::storage::{
    encryption_keys,
    rows::{self, damaged, lane_number, mistyped, optional_time, patterns},
    secrets::{Holder, Secrets},
    session::Session,
};

/// What an update writes; [`values`] gives them in this order.
const CHANGEABLE: [&str; 19] = [
    "callback_url",
    "events",
    "secret",
    "old_secret",
    "old_secret_until",
    "active",
    "disabled_reason",
    "held_since",
    "expiring",
    "description",
    "metadata",
    "headers",
    "retry_schedule",
    "timeout_ms",
    "max_per_second",
    "max_in_flight",
    "send_order",
    "on_exhausted",
    "updated_at",
];

fn values(
    subscription: &Subscription,
    secrets: &Secrets,
) -> rusqlite::Result<[Value; CHANGEABLE.len()]> {
    let options = &subscription.options;
    let retiring = subscription.retiring.as_ref();
    let holder = Holder { organization: subscription.organization, subscription: subscription.id };
    let seal = |text: &str, field| secrets.text(text, holder.place(field));
    Ok([
        text(subscription.callback_url.as_str()),
        text(&encoding::patterns_text(&subscription.events)),
        seal(subscription.secret.expose(), SecretField::Current)?,
        match retiring {
            Some(retiring) => seal(retiring.secret.expose(), SecretField::Retiring)?,
            None => Value::Null,
        },
        time(retiring.map(|retiring| retiring.until)),
        Value::from(subscription.active),
        subscription.disabled_reason.map_or(Value::Null, |reason| text(reason.as_str())),
        time(subscription.held_since),
        time(subscription.expiring),
        options.description.as_deref().map_or(Value::Null, text),
        options.metadata.as_ref().map_or(Value::Null, |metadata| text(metadata.as_str())),
        match encoding::headers_text(&options.headers) {
            Some(headers) => seal(&headers, SecretField::Headers)?,
            None => Value::Null,
        },
        options
            .retry_schedule
            .as_deref()
            .map_or(Value::Null, |delays| text(&encoding::delays_text(delays))),
        options.timeout.map_or(Value::Null, |timeout| Value::from(millis(timeout))),
        count(options.max_per_second),
        count(options.max_in_flight),
        text(options.order.as_str()),
        text(options.on_exhausted.as_str()),
        time(Some(subscription.updated_at)),
    ])
}

/// Stores a new subscription, and says the lane that it got.
pub(crate) fn insert(
    session: &mut Session<'_>,
    organization: i64,
    subscription: &Subscription,
) -> rusqlite::Result<esl_core::LaneId> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let places: Vec<_> = (4..4 + CHANGEABLE.len()).map(|place| format!("?{place}")).collect();
        format!(
            "INSERT INTO esl_subscriptions (id, organization, created_at, {})
             VALUES (?1, ?2, ?3, {}) RETURNING lane",
            CHANGEABLE.join(", "),
            places.join(", ")
        )
    });
    let fixed = [
        Value::from(subscription.id.to_bytes().to_vec()),
        Value::from(organization),
        time(Some(subscription.created_at)),
    ];
    encryption_keys::note(session)?;
    let values = values(subscription, &session.secrets)?;
    let parameters = rusqlite::params_from_iter(fixed.into_iter().chain(values));
    session.connection.prepare_cached(&SQL)?.query_one(parameters, |row| rows::lane(row, 0))
}

/// Writes a subscription that is there.
pub(crate) fn update(
    session: &mut Session<'_>,
    subscription: &Subscription,
) -> rusqlite::Result<()> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let places =
            CHANGEABLE.iter().zip(2..).map(|(column, place)| format!("{column} = ?{place}"));
        let places: Vec<_> = places.collect();
        format!(
            "UPDATE esl_subscriptions SET {}
             WHERE lane = ?1
                 AND organization = (SELECT key FROM esl_organizations WHERE id = ?{})",
            places.join(", "),
            CHANGEABLE.len() + 2
        )
    });
    encryption_keys::note(session)?;
    let lane = [Value::from(lane_number(subscription.lane))];
    let organization = [Value::from(subscription.organization.to_bytes().to_vec())];
    let values = values(subscription, &session.secrets)?;
    let parameters = lane.into_iter().chain(values).chain(organization);
    let parameters = rusqlite::params_from_iter(parameters);
    session.connection.prepare_cached(&SQL)?.execute(parameters)?;
    Ok(())
}

/// The columns that [`subscription`] reads, of `esl_subscriptions s`.
pub(crate) const SUBSCRIPTION: &str = "s.lane, s.id, s.created_at, s.callback_url, s.events, \
     s.secret, s.old_secret, s.old_secret_until, s.active, s.disabled_reason, s.held_since, \
     s.expiring, s.description, s.metadata, s.headers, s.retry_schedule, s.timeout_ms, \
     s.max_per_second, s.max_in_flight, s.send_order, s.on_exhausted, s.updated_at";

/// How many columns [`SUBSCRIPTION`] has.
pub(crate) const SUBSCRIPTION_COLUMNS: usize = 3 + CHANGEABLE.len();

pub(crate) fn subscription(
    row: &Row<'_>,
    organization: OrganizationId,
    secrets: &Secrets,
) -> rusqlite::Result<Subscription> {
    let id = SubscriptionId::from_bytes(row.get(1)?);
    let holder = Holder { organization, subscription: id };
    let secret = |index, field| {
        let read =
            |text: &str| Secret::new(text).map_err(|error| damaged(index, Type::Text, error));
        let secret = secrets.read_text(row, index, holder.place(field), read)?;
        secret.ok_or_else(|| damaged(index, Type::Null, "not a secret"))
    };
    let callback_url = row.get_ref(3)?.as_str().map_err(|error| mistyped(3, error))?;
    let old_secret = if row.get::<_, Option<i64>>(7)?.is_some() {
        Some(RetiringSecret {
            secret: secret(6, SecretField::Retiring)?,
            until: rows::time(row, 7)?,
        })
    } else {
        None
    };
    let mut options = SubscriptionOptions::default();
    options.description = row.get(12)?;
    options.metadata = optional(row, 13, |text| text.parse().ok())?;
    let read_headers = |text: &str| encoding::headers(text).ok_or_else(|| not_ours(14));
    options.headers = secrets
        .read_text(row, 14, holder.place(SecretField::Headers), read_headers)?
        .unwrap_or_default();
    options.retry_schedule = optional(row, 15, encoding::delays)?;
    options.timeout = row.get::<_, Option<u32>>(16)?.map(|ms| Duration::from_millis(ms.into()));
    options.max_per_second = row.get::<_, Option<u32>>(17)?.and_then(NonZeroU32::new);
    options.max_in_flight = row.get::<_, Option<u32>>(18)?.and_then(NonZeroU32::new);
    options.order = optional(row, 19, SendOrder::from_name)?.unwrap_or_default();
    options.on_exhausted = optional(row, 20, OnExhausted::from_name)?.unwrap_or_default();
    Ok(Subscription {
        id,
        lane: rows::lane(row, 0)?,
        organization,
        callback_url: CallbackUrl::from_stored(callback_url),
        events: patterns(row, 4)?,
        secret: secret(5, SecretField::Current)?,
        retiring: old_secret,
        active: row.get(8)?,
        disabled_reason: optional(row, 9, DisabledReason::from_name)?,
        held_since: optional_time(row, 10)?,
        expiring: optional_time(row, 11)?,
        options,
        created_at: rows::time(row, 2)?,
        updated_at: rows::time(row, 21)?,
    })
}

/// A subscription by its lane, of a deleted one too.
pub(crate) fn by_lane(session: &Session<'_>, lane: i64) -> rusqlite::Result<Option<Subscription>> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {SUBSCRIPTION}, o.id
             FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
             WHERE s.lane = ?1"
        )
    });
    let mut select = session.connection.prepare_cached(&SQL)?;
    let found = select.query_row([lane], |row| {
        let organization = OrganizationId::from_bytes(row.get(SUBSCRIPTION_COLUMNS)?);
        subscription(row, organization, &session.secrets)
    });
    found.optional()
}

fn text(text: &str) -> Value {
    Value::from(text.to_owned())
}

fn time(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| Value::from(time.as_millis()))
}

fn count(count: Option<NonZeroU32>) -> Value {
    count.map_or(Value::Null, |count| Value::from(count.get()))
}

/// Reads a text that stands for something; NULL for nothing.
fn optional<T>(
    row: &Row<'_>,
    index: usize,
    read: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<Option<T>> {
    let value = row.get_ref(index)?;
    let Some(text) = value.as_str_or_null().map_err(|error| mistyped(index, error))? else {
        return Ok(None);
    };
    read(text).map(Some).ok_or_else(|| not_ours(index))
}

fn not_ours(index: usize) -> rusqlite::Error {
    damaged(index, Type::Text, "not what ESL writes there")
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
