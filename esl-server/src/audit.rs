//! The command `audit`.

use std::{fmt::Write as _, sync::Arc};

use esl_core::{Actor, AuditEntry, SystemClock, storage::Page};
use serde_json::{Value, json};

use crate::{config::Config, database, organizations, output::print};

/// Shows the last so many changes.
pub(crate) async fn run(
    config: &Config,
    organization: &str,
    limit: usize,
    as_json: bool,
) -> anyhow::Result<()> {
    let storage = database::open_existing(config, Arc::new(SystemClock::new())).await?;
    // One that was deleted has a trail, too.
    let id = match organization.parse() {
        Ok(id) => id,
        Err(_) => organizations::find(&*storage, organization).await?,
    };
    let trail = storage.audit(id, Page { after: None, limit: limit.max(1) }).await?;
    let all = Value::Array(trail.items.iter().map(entry_json).collect());
    print(as_json, &all, || trail.items.iter().map(line).collect())
}

/// As `GET /api/v1/audit` has it.
fn entry_json(entry: &AuditEntry) -> Value {
    json!({
        "at": entry.at,
        "action": entry.action.as_str(),
        "subject": entry.subject,
        "fields": entry.fields,
        "actor": {
            "kind": entry.actor.kind(),
            "name": entry.actor.name(),
            "address": entry.actor.address(),
        },
    })
}

fn line(entry: &AuditEntry) -> String {
    let AuditEntry { at, actor, action, subject, fields, .. } = entry;
    let fields = fields.join(" ");
    let mut line = format!("{at}  {action}  {subject}  {}", who(actor));
    if !fields.is_empty() {
        write!(line, "  {fields}").expect("strings take everything");
    }
    line.push('\n');
    line
}

fn who(actor: &Actor) -> String {
    let mut text = actor.kind().to_owned();
    if let Some(name) = actor.name() {
        write!(text, " {name}").expect("strings take everything");
    }
    if let Some(address) = actor.address() {
        write!(text, " at {address}").expect("strings take everything");
    }
    text
}
