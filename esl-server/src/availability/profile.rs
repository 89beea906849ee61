//! Profiles: statuses under a name, for users and schedules to take.

use esl_core::{EntityKind, KindError};
use serde_json::json;

use super::{duration_schema, reason_schema, status_schema};

pub(super) const KIND: &str = "availability.profile";

pub(super) fn kind() -> Result<EntityKind, KindError> {
    let mut reason = reason_schema();
    reason["default"] = json!(null);
    let mut duration = duration_schema();
    duration["default"] = json!(null);
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {
                "description": "What it is called.",
                "type": "string",
                "minLength": 1,
                "maxLength": 200
            },
            "description": {
                "description": "What it is for.",
                "type": ["string", "null"],
                "maxLength": 2000,
                "default": null
            },
            "status": status_schema(&json!("string")),
            "reason": reason,
            "duration_seconds": duration
        },
        "required": ["name", "status"],
        "additionalProperties": false
    });
    let kind = EntityKind::new(KIND, "availability/profiles", schema)?;
    let example = json!({
        "name": "Lunch", "status": "away", "reason": "At lunch", "duration_seconds": 1800
    });
    Ok(kind.indexed("name").indexed("status").with_example(example))
}
