//! Schedules: statuses that users get again and again, at times that a cron expression names.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use esl_core::{
    Document, Entity, EntityError, EntityId, EntityKind, EventTypeEntry, Fault, KindError,
    OnDelete, Rules, Said, Timestamp, Transaction,
};
use serde_json::{Value, json};

use super::{
    duration_schema, event_type, lasting, nullable, profile, reason_schema, recurrence::Recurrence,
    status, status_schema, text, time, value,
};

const KIND: &str = "availability.schedule";
/// What is published when one fires.
const TRIGGERED: &str = "availability.schedule.triggered";

/// Up to this time all firings are over, or were skipped. Nobody sees it.
const DONE: &str = "done_until";
/// What the last firing came to.
const LAST: &str = "last";
/// The firings to come.
const NEXT: &str = "next";
/// So many of them are shown.
const NEXT_COUNT: usize = 5;
/// An organization has so many at most: what they publish is not refused.
const COUNT_MAX: usize = 1000;
/// What fires later than this after its time was missed.
const LATE_AFTER: Duration = Duration::from_secs(60);

pub(super) fn kind() -> Result<EntityKind, KindError> {
    let mut status = status_schema(&json!(["string", "null"]));
    let mut reason = reason_schema();
    let mut duration = duration_schema();
    for property in [&mut status, &mut reason, &mut duration] {
        property["default"] = json!(null);
    }
    let schema = json!({
        "type": "object",
        "properties": {
            "user_id": {
                "description": "Whose status it changes.",
                "type": "string",
                "pattern": "^[A-Za-z0-9_-]{1,100}$"
            },
            "name": {
                "description": "What it is called.",
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": 200,
                "default": null
            },
            "cron": {
                "description": "When it fires: minute, hour, day, month and weekday.",
                "type": "string",
                "maxLength": 256
            },
            "time_zone": {
                "description": "By whose clocks: a name of the IANA time zone database.",
                "type": "string",
                "maxLength": 100
            },
            "status": status,
            "reason": reason,
            "duration_seconds": duration,
            "profile_id": {
                "description": "The profile that says what this leaves out.",
                "type": ["string", "null"],
                "default": null
            },
            "enabled": {
                "description": "Whether it fires at all.",
                "type": "boolean",
                "default": true
            },
            "missed": {
                "description": "What becomes of firings whose time has passed while nothing ran: each of them fires then, or the last, or none.",
                "type": "string",
                "enum": ["each", "last", "skip"],
                "default": "each"
            }
        },
        "required": ["user_id", "cron", "time_zone"],
        "additionalProperties": false
    });
    let kind = EntityKind::new(KIND, "availability/schedules", schema)?
        .indexed("user_id")
        .indexed("enabled")
        .refers("profile_id", profile::KIND, OnDelete::Restrict);
    Ok(kind.with_rules(Schedule))
}

#[derive(Debug)]
struct Schedule;

#[async_trait]
impl Rules for Schedule {
    async fn complete(
        &self,
        transaction: &mut Transaction<'_>,
        before: Option<&Entity>,
        document: &mut Document,
    ) -> Result<(), EntityError> {
        if before.is_none() && transaction.count(KIND, COUNT_MAX).await? >= COUNT_MAX {
            let (kind, at_most) = (KIND.parse().expect("it is a kind"), COUNT_MAX);
            return Err(EntityError::TooMany { kind, at_most });
        }
        let mut faults = Vec::new();
        if let Err(fault) = recurrence(document) {
            faults.push(fault);
        }
        if ["status", "profile_id"].iter().all(|member| value(document, member).is_null()) {
            let detail = "expected a status, or a profile_id that says one";
            faults.push(Fault::member("", "status", detail));
        }
        if !faults.is_empty() {
            return Err(EntityError::Invalid(faults));
        }
        // One that comes to fire at other times begins with those that are yet to come.
        let same = |before: &&Entity| {
            let when = ["cron", "time_zone", "enabled"];
            when.iter().all(|member| before.document.get(*member) == document.get(*member))
        };
        let kept = before.filter(same).and_then(|before| before.document.get(DONE).cloned());
        let done = kept.unwrap_or_else(|| transaction.now().to_string().into());
        let last = before.and_then(|before| before.document.get(LAST).cloned()).unwrap_or_default();
        // A firing has set both.
        document.entry(DONE).or_insert(done);
        document.entry(LAST).or_insert(last);
        Ok(())
    }

    fn due_at(&self, document: &Document, _now: Timestamp) -> Option<Timestamp> {
        if document.get("enabled") != Some(&Value::Bool(true)) {
            return None;
        }
        recurrence(document).ok()?.next_after(time(document, DONE)?)
    }

    async fn due(
        &self,
        transaction: &mut Transaction<'_>,
        entity: &Entity,
    ) -> Result<(), EntityError> {
        let now = transaction.now();
        let due_at = entity.due_at.unwrap_or(now);
        let mut document = entity.document.clone();
        let recurrence =
            recurrence(&document).map_err(|fault| EntityError::Invalid(vec![fault]))?;
        let is_late = now.since(due_at) > LATE_AFTER;
        let fires_at = match text(&document, "missed") {
            Some("skip") if is_late => None,
            Some("last") if is_late => Some(last_until(&recurrence, due_at, now)),
            _ => Some(due_at),
        };
        let firing = match fires_at {
            Some(at) => Some(firing(transaction, entity, at, now.since(at) > LATE_AFTER).await?),
            None => None,
        };
        // What is skipped is what was missed; what has only just come is not.
        let done = fires_at.unwrap_or_else(|| now - LATE_AFTER).max(due_at);
        document.insert(DONE.to_owned(), done.to_string().into());
        if let Some(firing) = &firing {
            document.insert(LAST.to_owned(), Value::Object(firing.clone()));
        }
        // First: it is what is said first.
        transaction.update(&Arc::new(entity.clone()), document).await?;
        if let Some(user) = text(&entity.document, "user_id") {
            transaction.on_behalf_of(user);
        }
        if let Some(firing) = firing {
            apply(transaction, entity, firing, now).await?;
        }
        Ok(())
    }

    fn says(&self, before: Option<&Entity>, after: Option<&Entity>) -> Option<Vec<Said>> {
        let last = |entity: &Entity| value(&entity.document, LAST);
        let (before, after) = (before.map(last), after.map(last));
        let said = match (before, after) {
            (Some(before), Some(Value::Object(data))) if before != Value::Object(data.clone()) => {
                let event_type = TRIGGERED.parse().expect("it is a type");
                vec![Said { event_type, data }]
            }
            _ => Vec::new(),
        };
        Some(said)
    }

    fn keeps(&self) -> &[&str] {
        &[DONE, LAST]
    }

    fn event_types(&self) -> Option<Vec<EventTypeEntry>> {
        let text = |description| json!({ "description": description, "type": "string" });
        let time = |description| {
            let mut schema = text(description);
            schema["format"] = json!("date-time");
            schema
        };
        let late = "Whether it fired more than a minute after that.";
        let until = "Until when the status holds, counted from due_at.";
        let members = [
            ("schedule_id", text("The schedule.")),
            ("user_id", text("Whose status it sets.")),
            ("due_at", time("When it was to fire.")),
            ("late", json!({ "description": late, "type": "boolean" })),
            ("status", status_schema(&json!("string"))),
            ("reason", reason_schema()),
            ("profile_id", nullable(text("The profile that it takes the status from."))),
            ("effective_until", nullable(time(until))),
        ];
        let example = json!({
            "schedule_id": "schedule_01HM6651J0D4F6H8K0N2Q4S6V8",
            "user_id": "user_1",
            "due_at": "2024-01-15T11:00:00.000Z",
            "late": false,
            "status": "away",
            "reason": "At lunch",
            "profile_id": null,
            "effective_until": "2024-01-15T12:00:00.000Z",
        });
        Some(vec![event_type(TRIGGERED, &members, example)])
    }

    fn adds(&self) -> &[&str] {
        &[LAST, NEXT]
    }

    fn show(&self, representation: &mut Document, entity: &Entity, now: Timestamp) {
        let next = match recurrence(&entity.document) {
            Ok(recurrence) if entity.due_at.is_some() => recurrence.upcoming(now, NEXT_COUNT),
            _ => Vec::new(),
        };
        representation.insert(LAST.to_owned(), value(&entity.document, LAST));
        representation.insert(NEXT.to_owned(), json!(next));
    }
}

/// The firing at a time, as it is published.
async fn firing(
    transaction: &mut Transaction<'_>,
    schedule: &Entity,
    at: Timestamp,
    is_late: bool,
) -> Result<Document, EntityError> {
    let (id, schedule) = (schedule.id().as_str(), &schedule.document);
    let profile = match text(schedule, "profile_id").and_then(|id| id.parse::<EntityId>().ok()) {
        Some(id) => transaction.get(profile::KIND, &id).await?,
        None => None,
    };
    let says = |member| match (value(schedule, member), &profile) {
        (Value::Null, Some(profile)) => value(&profile.document, member),
        (own, _) => own,
    };
    let until = lasting(at, &says("duration_seconds"));
    let data = [
        ("schedule_id", id.into()),
        ("user_id", value(schedule, "user_id")),
        ("due_at", json!(at)),
        ("late", is_late.into()),
        ("status", says("status")),
        ("reason", says("reason")),
        ("profile_id", value(schedule, "profile_id")),
        ("effective_until", json!(until)),
    ];
    Ok(data.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Gives the user the status of a firing, unless that is over already.
async fn apply(
    transaction: &mut Transaction<'_>,
    schedule: &Entity,
    firing: Document,
    now: Timestamp,
) -> Result<(), EntityError> {
    if time(&firing, "effective_until").is_some_and(|until| until <= now) {
        return Ok(());
    }
    let user = text(&firing, "user_id").and_then(|id| id.parse::<EntityId>().ok());
    let user = user.ok_or_else(|| EntityError::NotFound(schedule.key.clone()))?;
    let members = ["status", "reason", "effective_until", "profile_id"];
    let status = members.iter().map(|member| ((*member).to_owned(), value(&firing, member)));
    let status: Document = status.collect();
    match transaction.get(status::KIND, &user).await? {
        Some(before) => _ = transaction.update(&before, status).await?,
        None => _ = transaction.create(status::KIND, Some(user), status).await?,
    }
    Ok(())
}

/// The last firing up to now, of those from one on that is due.
fn last_until(recurrence: &Recurrence, due_at: Timestamp, now: Timestamp) -> Timestamp {
    // Near the end there are few; how near, is found out by going back further and further.
    let mut back = LATE_AFTER;
    let mut last = loop {
        let from = now - back;
        if from <= due_at {
            break due_at;
        }
        match recurrence.next_after(from).filter(|at| *at <= now) {
            Some(at) => break at,
            None => back *= 2,
        }
    };
    while let Some(next) = recurrence.next_after(last).filter(|next| *next <= now) {
        last = next;
    }
    last
}

fn recurrence(document: &Document) -> Result<Recurrence, Fault> {
    let member = |name| text(document, name).unwrap_or_default();
    Recurrence::new(member("cron"), member("time_zone"))
        .map_err(|fault| Fault { pointer: fault.pointer().to_owned(), detail: fault.to_string() })
}
