//! How available a user is, and what that goes back to when it is over.

use std::sync::Arc;

use async_trait::async_trait;
use esl_core::{
    Document, Entity, EntityError, EntityKind, EventTypeEntry, Fault, KindError, Rules, Said,
    Timestamp, Transaction,
};
use serde_json::{Value, json};

use super::{
    event_type, lasting, nullable, profile, reason_schema, status_schema, text, time, value,
};

pub(super) const KIND: &str = "availability.status";

/// What is published when one changes.
const CHANGED: &str = "availability.changed";
/// What is shown of a status, and published.
const SHOWN: [&str; 4] = ["status", "reason", "effective_until", "profile_id"];
/// What a status that lasts for a while goes back to. Nobody sees it.
const BASE: &str = "base";

pub(super) fn kind() -> Result<EntityKind, KindError> {
    let schema = json!({
        "type": "object",
        "properties": {
            "status": status_schema(&json!("string")),
            "reason": reason_schema(),
            "effective_until": {
                "description": "When the status goes back to what it was before; never, if there is none.",
                "type": ["string", "null"],
                "format": "date-time"
            },
            "profile_id": {
                "description": "The profile that it was taken from. What is left out comes from there.",
                "type": ["string", "null"]
            }
        },
        "additionalProperties": false
    });
    let kind = EntityKind::new(KIND, "availability/users", schema)?;
    Ok(kind.with_chosen_ids().indexed("status").indexed("profile_id").with_rules(Status))
}

#[derive(Debug)]
struct Status;

#[async_trait]
impl Rules for Status {
    async fn complete(
        &self,
        transaction: &mut Transaction<'_>,
        before: Option<&Entity>,
        document: &mut Document,
    ) -> Result<(), EntityError> {
        let now = transaction.now();
        let before = before.map(|entity| &entity.document);
        let stood = |member| before.map(|before| value(before, member)).unwrap_or_default();
        if let Some(id) = text(document, "profile_id").map(ToOwned::to_owned) {
            let profile = match id.parse() {
                Ok(id) => transaction.get(profile::KIND, &id).await?,
                Err(_) => None,
            };
            match profile {
                Some(profile) => take(&profile.document, now, document),
                // What it was taken from may be gone by now.
                None if stood("profile_id") == id => {}
                None => {
                    return Err(EntityError::invalid("/profile_id", "there is no such profile"));
                }
            }
        }
        let mut faults = Vec::new();
        if !document.contains_key("status") {
            let detail = "this member is missing; it is left out only where there is a profile_id";
            faults.push(Fault::member("", "status", detail));
        }
        let mut until = value(document, "effective_until");
        if let Some(text) = until.as_str() {
            match text.parse::<Timestamp>() {
                Ok(at) if at > now || until == stood("effective_until") => {
                    until = at.to_string().into()
                }
                Ok(_) => {
                    let detail = "expected a time that is yet to come";
                    faults.push(Fault::member("", "effective_until", detail));
                }
                Err(error) => {
                    faults.push(Fault::member("", "effective_until", error.to_string()));
                }
            }
        }
        if !faults.is_empty() {
            return Err(EntityError::Invalid(faults));
        }
        let base = match before {
            _ if until.is_null() => None,
            // One that lasts for a while, on top of another one, goes back to the same.
            Some(before) if before.contains_key(BASE) => before.get(BASE).cloned(),
            Some(before) => Some(Value::Object(shown(before))),
            None => Some(Value::Null),
        };
        document.insert("effective_until".to_owned(), until);
        *document = shown(document);
        document.extend(base.map(|base| (BASE.to_owned(), base)));
        Ok(())
    }

    fn due_at(&self, document: &Document, _now: Timestamp) -> Option<Timestamp> {
        time(document, "effective_until")
    }

    /// It goes back.
    async fn due(
        &self,
        transaction: &mut Transaction<'_>,
        entity: &Entity,
    ) -> Result<(), EntityError> {
        let mut base = match entity.document.get(BASE) {
            Some(Value::Object(base)) => base.clone(),
            _ => offline(),
        };
        // The profile may be gone by now.
        if let Some(id) = text(&base, "profile_id").and_then(|id| id.parse().ok())
            && transaction.get(profile::KIND, &id).await?.is_none()
        {
            base.insert("profile_id".to_owned(), Value::Null);
        }
        transaction.update(&Arc::new(entity.clone()), base).await?;
        Ok(())
    }

    fn says(&self, before: Option<&Entity>, after: Option<&Entity>) -> Option<Vec<Said>> {
        let user = before.or(after)?.id().as_str();
        let before = before.map(|before| shown(&before.document));
        // One who is forgotten is not there.
        let after = after.map_or_else(offline, |after| shown(&after.document));
        if before.as_ref() == Some(&after) {
            return Some(Vec::new());
        }
        let previous = before.map(|before| value(&before, "status")).unwrap_or_default();
        let data = [
            ("user_id", user.into()),
            ("previous_status", previous),
            ("current_status", value(&after, "status")),
            ("profile_id", value(&after, "profile_id")),
            ("effective_until", value(&after, "effective_until")),
            ("reason", value(&after, "reason")),
        ];
        let data = data.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let event_type = CHANGED.parse().expect("it is a type");
        Some(vec![Said { event_type, data }])
    }

    fn keeps(&self) -> &[&str] {
        &[BASE]
    }

    fn event_types(&self) -> Option<Vec<EventTypeEntry>> {
        let text = |description| json!({ "description": description, "type": "string" });
        let status = |description, types| {
            let mut schema = status_schema(&types);
            schema["description"] = json!(description);
            schema
        };
        let mut until = nullable(text("Until when this holds."));
        until["format"] = json!("date-time");
        let before = "The status before; null the first time that something is known of the user.";
        let members = [
            ("user_id", text("The user.")),
            ("previous_status", status(before, json!(["string", "null"]))),
            ("current_status", status("The status now.", json!("string"))),
            ("profile_id", nullable(text("The profile that it was taken from."))),
            ("effective_until", until),
            ("reason", reason_schema()),
        ];
        let example = json!({
            "user_id": "user_1",
            "previous_status": "available",
            "current_status": "busy",
            "profile_id": null,
            "effective_until": "2024-01-15T18:00:00.000Z",
            "reason": "In a meeting",
        });
        Some(vec![event_type(CHANGED, &members, example)])
    }
}

/// What a profile says where a status says nothing.
fn take(profile: &Document, now: Timestamp, status: &mut Document) {
    for member in ["status", "reason"] {
        if !status.contains_key(member) {
            status.insert(member.to_owned(), value(profile, member));
        }
    }
    if !status.contains_key("effective_until")
        && let Some(until) = lasting(now, &value(profile, "duration_seconds"))
    {
        status.insert("effective_until".to_owned(), until.to_string().into());
    }
}

/// What others see of it, with nothing left out.
fn shown(status: &Document) -> Document {
    SHOWN.iter().map(|member| ((*member).to_owned(), value(status, member))).collect()
}

/// Of one of whom nothing else is known.
fn offline() -> Document {
    let mut offline = shown(&Document::new());
    offline.insert("status".to_owned(), "offline".into());
    offline
}
