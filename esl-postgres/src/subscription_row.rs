//! A subscription as a row of `subscriptions`, and back.

use std::{num::NonZeroU32, sync::LazyLock, time::Duration};

use esl_core::{
    CallbackUrl, DisabledReason, LaneId, NoRandomness, OnExhausted, OrganizationId, RetiringSecret,
    Secret, SecretField, SendOrder, Subscription, SubscriptionId, SubscriptionOptions, Timestamp,
    storage::{StorageError, encoding},
};
use tokio_postgres::Row;

use crate::{
    error::{Damage, without_randomness},
    id::Id16,
    parameters::{Value, borrowed, value},
    rows::{
        self, get, lane_number, optional_count, optional_strangers_text, optional_time, patterns,
        time,
    },
    secrets::{Holder, Secrets},
    session::Session,
};

/// What an update writes; [`values`] gives them in this order.
const CHANGEABLE: [&str; 20] = [
    "callback_url",
    "events",
    "secret",
    "old_secret",
    "old_secret_until",
    "sealed",
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

/// The bits of `sealed`.
pub(crate) const SECRET: i16 = 1;
pub(crate) const OLD_SECRET: i16 = 2;
pub(crate) const HEADERS: i16 = 4;

fn values(
    subscription: &Subscription,
    secrets: &Secrets,
) -> Result<[Value; CHANGEABLE.len()], NoRandomness> {
    let options = &subscription.options;
    let retiring = subscription.retiring.as_ref();
    let holder = Holder { organization: subscription.organization, subscription: subscription.id };
    let seal = |text: &str, field| secrets.bytes(text.as_bytes(), holder.place(field));
    let headers = encoding::headers_text(&options.headers);
    let old_secret = retiring
        .map(|retiring| seal(retiring.secret.expose(), SecretField::Retiring))
        .transpose()?;
    let schedule = options.retry_schedule.as_deref();
    Ok([
        value(subscription.callback_url.as_str().as_bytes().to_vec()),
        value(encoding::patterns_text(&subscription.events)),
        value(seal(subscription.secret.expose(), SecretField::Current)?),
        value(old_secret),
        value(millis(retiring.map(|retiring| retiring.until))),
        value(if secrets.seals() { SECRET | OLD_SECRET | HEADERS } else { 0 }),
        value(subscription.active),
        value(subscription.disabled_reason.map(|reason| reason.as_str().to_owned())),
        value(millis(subscription.held_since)),
        value(millis(subscription.expiring)),
        value(options.description.as_deref().map(|text| text.as_bytes().to_vec())),
        value(options.metadata.as_ref().map(|metadata| metadata.as_str().as_bytes().to_vec())),
        value(headers.map(|headers| seal(&headers, SecretField::Headers)).transpose()?),
        value(schedule.map(encoding::delays_text)),
        value(options.timeout.map(millis_of)),
        value(options.max_per_second.map(number)),
        value(options.max_in_flight.map(number)),
        value(options.order.as_str().to_owned()),
        value(options.on_exhausted.as_str().to_owned()),
        value(subscription.updated_at.as_millis()),
    ])
}

/// Stores a new subscription of an organization that is locked, and says the lane that it got. The key of its
/// secrets must be [known](crate::encryption_keys::demand_known).
pub(crate) async fn insert(
    session: &Session<'_>,
    organization: i32,
    subscription: &Subscription,
    operation: &'static str,
) -> Result<LaneId, StorageError> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let places: Vec<_> = (4..4 + CHANGEABLE.len()).map(|place| format!("${place}")).collect();
        format!(
            "INSERT INTO esl.subscriptions (id, organization, created_at, {})
             VALUES ($1, $2, $3, {}) RETURNING lane",
            CHANGEABLE.join(", "),
            places.join(", ")
        )
    });
    let fixed = [
        value(Id16::from(subscription.id)),
        value(organization),
        value(subscription.created_at.as_millis()),
    ];
    let values = values(subscription, session.storage().secrets())
        .map_err(|error| without_randomness(operation, error))?;
    let all: Vec<Value> = fixed.into_iter().chain(values).collect();
    let row = session.query_one(&SQL, &borrowed(&all)).await?;
    rows::whole(operation, rows::lane(&row, 0))
}

/// Writes a subscription that is there, of an organization that is locked. The key of its secrets must be
/// [known](crate::encryption_keys::demand_known).
pub(crate) async fn update(
    session: &Session<'_>,
    organization: i32,
    subscription: &Subscription,
    operation: &'static str,
) -> Result<(), StorageError> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let places =
            CHANGEABLE.iter().zip(3..).map(|(column, place)| format!("{column} = ${place}"));
        let places: Vec<_> = places.collect();
        format!(
            "UPDATE esl.subscriptions SET {} WHERE lane = $1 AND organization = $2",
            places.join(", ")
        )
    });
    let fixed = [value(lane_number(subscription.lane)), value(organization)];
    let values = values(subscription, session.storage().secrets())
        .map_err(|error| without_randomness(operation, error))?;
    let all: Vec<Value> = fixed.into_iter().chain(values).collect();
    session.execute(&SQL, &borrowed(&all)).await.map(drop)
}

/// The columns that [`subscription`] reads, of `subscriptions s`.
pub(crate) const SUBSCRIPTION: &str = "s.lane, s.id, s.created_at, s.callback_url, s.events, \
     s.secret, s.old_secret, s.old_secret_until, s.sealed, s.active, s.disabled_reason, \
     s.held_since, s.expiring, s.description, s.metadata, s.headers, s.retry_schedule, \
     s.timeout_ms, s.max_per_second, s.max_in_flight, s.send_order, s.on_exhausted, s.updated_at";

/// How many columns [`SUBSCRIPTION`] has.
pub(crate) const SUBSCRIPTION_COLUMNS: usize = 3 + CHANGEABLE.len();

/// Reads [`SUBSCRIPTION`], with which the row begins.
pub(crate) fn subscription(
    row: &Row,
    organization: OrganizationId,
    secrets: &Secrets,
) -> Result<Subscription, Damage> {
    let id: SubscriptionId = rows::id(row, 1)?;
    let holder = Holder { organization, subscription: id };
    let sealed: i16 = get(row, 8)?;
    let secret = |column, bit, field| {
        let read = |text: &str| Secret::new(text).map_err(|error| Damage::new(column, error));
        let bytes = get::<&[u8]>(row, column)?;
        secrets.read_text(bytes, sealed & bit != 0, (column, holder.place(field)), read)
    };
    let retiring = match optional_time(row, 7)? {
        Some(until) => {
            let secret = secret(6, OLD_SECRET, SecretField::Retiring)?;
            Some(RetiringSecret { secret, until })
        }
        None => None,
    };
    let mut options = SubscriptionOptions::default();
    options.description = optional_strangers_text(row, 13)?;
    options.metadata = optional_strangers_text(row, 14)?
        .map(|text| text.parse().map_err(|_| not_ours(14)))
        .transpose()?;
    if let Some(bytes) = get::<Option<&[u8]>>(row, 15)? {
        let read = |text: &str| encoding::headers(text).ok_or_else(|| not_ours(15));
        let place = (15, holder.place(SecretField::Headers));
        options.headers = secrets.read_text(bytes, sealed & HEADERS != 0, place, read)?;
    }
    options.retry_schedule = optional(row, 16, encoding::delays)?;
    options.timeout = optional_count(row, 17)?.map(|ms| Duration::from_millis(ms.into()));
    options.max_per_second = optional_count(row, 18)?.and_then(NonZeroU32::new);
    options.max_in_flight = optional_count(row, 19)?.and_then(NonZeroU32::new);
    options.order = optional(row, 20, SendOrder::from_name)?.unwrap_or_default();
    options.on_exhausted = optional(row, 21, OnExhausted::from_name)?.unwrap_or_default();
    Ok(Subscription {
        id,
        lane: rows::lane(row, 0)?,
        organization,
        callback_url: CallbackUrl::from_stored(&rows::strangers_text(row, 3)?),
        events: patterns(row, 4)?,
        secret: secret(5, SECRET, SecretField::Current)?,
        retiring,
        active: get(row, 9)?,
        disabled_reason: optional(row, 10, DisabledReason::from_name)?,
        held_since: optional_time(row, 11)?,
        expiring: optional_time(row, 12)?,
        options,
        created_at: time(row, 2)?,
        updated_at: time(row, 22)?,
    })
}

fn millis(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_millis)
}

fn number(count: NonZeroU32) -> i64 {
    count.get().into()
}

/// Reads a text that stands for something; NULL for nothing.
fn optional<T>(
    row: &Row,
    column: usize,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Damage> {
    let Some(text) = get::<Option<&str>>(row, column)? else { return Ok(None) };
    read(text).map(Some).ok_or_else(|| not_ours(column))
}

fn not_ours(column: usize) -> Damage {
    Damage::new(column, "not what ESL writes there")
}

fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
