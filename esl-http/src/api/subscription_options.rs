//! The members of a subscription that say how its deliveries are made.
//!
//! In a PATCH, `null` takes one back to its default; in a POST it is the same as leaving it out.

use std::{borrow::Cow, num::NonZeroU32, time::Duration};

use esl_core::{
    CustomHeaderError, CustomHeaders, Esl, JsonObject, OnExhausted, OptionsUpdate, SendOrder,
    SubscriptionOptions,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    fault::{Faults, Place},
    json::{self, Items, Members},
};

/// Their names.
pub(super) const NAMES: [&str; 9] = [
    "description",
    "metadata",
    "headers",
    "retry_schedule",
    "timeout_ms",
    "max_per_second",
    "max_in_flight",
    "ordering",
    "on_exhausted",
];

/// Reads them; every wrong one is a fault.
pub(super) fn read(members: &Members<'_>, esl: &Esl, faults: &mut Faults) -> OptionsUpdate {
    let mut update = OptionsUpdate::default();
    update.description = nullable(members, "description", faults, description);
    update.metadata = nullable(members, "metadata", faults, metadata);
    update.headers = match members.get("headers") {
        None => None,
        Some(raw) if json::is_null(raw) => Some(CustomHeaders::default()),
        Some(raw) => headers(raw, esl, faults),
    };
    update.retry_schedule = match members.get("retry_schedule") {
        None => None,
        Some(raw) if json::is_null(raw) => Some(None),
        Some(raw) => retry_schedule(raw, faults).map(Some),
    };
    update.timeout = nullable(members, "timeout_ms", faults, |raw| {
        let range = [SubscriptionOptions::TIMEOUT_MIN, SubscriptionOptions::TIMEOUT_MAX];
        let [min, max] = range.map(|bound| u64::try_from(bound.as_millis()).unwrap_or(u64::MAX));
        json::whole(raw, min..=max).map(Duration::from_millis)
    });
    update.max_per_second = nullable(members, "max_per_second", faults, |raw| {
        count(raw, SubscriptionOptions::PER_SECOND_MAX)
    });
    update.max_in_flight = nullable(members, "max_in_flight", faults, |raw| {
        count(raw, SubscriptionOptions::IN_FLIGHT_MAX)
    });
    update.order = nullable(members, "ordering", faults, |raw| {
        let known = SendOrder::from_name(&json::text(raw)?);
        known.ok_or(Cow::from("expected parallel or strict"))
    })
    .map(Option::unwrap_or_default);
    update.on_exhausted = nullable(members, "on_exhausted", faults, |raw| {
        let known = OnExhausted::from_name(&json::text(raw)?);
        known.ok_or(Cow::from("expected skip or pause"))
    })
    .map(Option::unwrap_or_default);
    update
}

/// A member that may be `null`.
fn nullable<T, E: Into<Cow<'static, str>>>(
    members: &Members<'_>,
    name: &str,
    faults: &mut Faults,
    read: impl FnOnce(&RawValue) -> Result<T, E>,
) -> Option<Option<T>> {
    members.optional("", name, faults, |raw| {
        if json::is_null(raw) { Ok(None) } else { read(raw).map(Some) }
    })
}

fn description(raw: &RawValue) -> Result<String, Cow<'static, str>> {
    let text = json::text(raw)?;
    if text.len() > SubscriptionOptions::DESCRIPTION_BYTES_MAX {
        let bytes_max = SubscriptionOptions::DESCRIPTION_BYTES_MAX;
        return Err(format!("expected at most {bytes_max} bytes").into());
    }
    Ok(text.into_owned())
}

fn metadata(raw: &RawValue) -> Result<JsonObject, Cow<'static, str>> {
    if raw.get().len() > SubscriptionOptions::METADATA_BYTES_MAX {
        let bytes_max = SubscriptionOptions::METADATA_BYTES_MAX;
        return Err(format!("expected at most {bytes_max} bytes").into());
    }
    raw.get().parse().map_err(|error: esl_core::JsonObjectError| error.to_string().into())
}

fn headers(raw: &RawValue, esl: &Esl, faults: &mut Faults) -> Option<CustomHeaders> {
    let Some(members) = Members::of(raw) else {
        faults.add(Place::Pointer("/headers".into()), "expected an object of strings");
        return None;
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut is_right = true;
    for (name, value) in members.iter() {
        let is_repeated = headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = match is_repeated {
            true => Err(CustomHeaderError::Repeated.to_string().into()),
            false => header(name, value, esl),
        };
        match value {
            Ok(value) => headers.push((name.to_owned(), value)),
            Err(detail) => {
                faults.add(Place::member("/headers", name), detail);
                is_right = false;
            }
        }
    }
    match CustomHeaders::new(headers) {
        Ok(headers) if is_right => return Some(headers),
        // What is wrong with one of them was said.
        Ok(_) => {}
        Err(error) => faults.add(Place::Pointer("/headers".into()), error.to_string()),
    }
    None
}

fn header(name: &str, value: &RawValue, esl: &Esl) -> Result<String, Cow<'static, str>> {
    let value = json::text(value)?.into_owned();
    // A subscription that was read and is sent back must not lose its values.
    if value == MASK {
        return Err(
            format!("{MASK} stands for a value that is not shown: expected the value").into()
        );
    }
    CustomHeaders::check(name, &value).map_err(|error| error.to_string())?;
    if esl.is_own_header(name) {
        return Err(CustomHeaderError::Reserved.to_string().into());
    }
    Ok(value)
}

fn retry_schedule(raw: &RawValue, faults: &mut Faults) -> Option<Vec<Duration>> {
    let count_max = SubscriptionOptions::RETRIES_MAX;
    let items = Items::of(raw, count_max).filter(|items| items.count <= count_max);
    let Some(items) = items else {
        let detail = format!("expected an array of at most {count_max} delays in milliseconds");
        faults.add(Place::Pointer("/retry_schedule".into()), detail);
        return None;
    };
    let delay_max =
        u64::try_from(SubscriptionOptions::RETRY_DELAY_MAX.as_millis()).unwrap_or(u64::MAX);
    let mut delays = Vec::with_capacity(items.list.len());
    for (index, raw) in items.list.iter().enumerate() {
        match json::whole(raw, 0..=delay_max) {
            Ok(millis) => delays.push(Duration::from_millis(millis)),
            Err(detail) => faults.add(Place::member("/retry_schedule", &index.to_string()), detail),
        }
    }
    (delays.len() == items.count).then_some(delays)
}

fn count(raw: &RawValue, max: u32) -> Result<NonZeroU32, String> {
    let count = json::whole(raw, 1..=u64::from(max))?;
    let count = u32::try_from(count).ok().and_then(NonZeroU32::new);
    Ok(count.expect("it was held against the range"))
}

/// The options of a subscription as its organization sees them. Values of headers are not shown.
#[derive(Debug, Serialize)]
pub(super) struct OptionsView<'a> {
    description: Option<&'a str>,
    metadata: Option<Box<RawValue>>,
    headers: HeadersView<'a>,
    retry_schedule: Option<Vec<u128>>,
    timeout_ms: Option<u128>,
    max_per_second: Option<NonZeroU32>,
    max_in_flight: Option<NonZeroU32>,
    ordering: &'static str,
    on_exhausted: &'static str,
}

impl<'a> OptionsView<'a> {
    pub(super) fn of(options: &'a SubscriptionOptions) -> Self {
        let millis = |delays: &Vec<Duration>| delays.iter().map(Duration::as_millis).collect();
        Self {
            description: options.description.as_deref(),
            metadata: options.metadata.as_ref().map(JsonObject::to_raw),
            headers: HeadersView(&options.headers),
            retry_schedule: options.retry_schedule.as_ref().map(millis),
            timeout_ms: options.timeout.map(|timeout| timeout.as_millis()),
            max_per_second: options.max_per_second,
            max_in_flight: options.max_in_flight,
            ordering: options.order.as_str(),
            on_exhausted: options.on_exhausted.as_str(),
        }
    }
}

#[derive(Debug)]
struct HeadersView<'a>(&'a CustomHeaders);

impl Serialize for HeadersView<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.names().map(|name| (&**name, MASK)))
    }
}

/// Stands in place of a header's value.
const MASK: &str = "***";
