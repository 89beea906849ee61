//! The audit trail: written in the transaction of what it tells of, and kept as long as events are.

use std::net::IpAddr;

use esl_core::{
    Action, Actor, AuditEntry, AuditNumber, OrganizationId,
    storage::{Page, PageOf, StorageError},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    damage::Place,
    error::Damage,
    id::Id16,
    pages::PageReader,
    parameters::parameters,
    rows::{self, get, optional_strangers_text, parsed, strangers_text, whole},
    session::Session,
};

/// Writes what this transaction does.
pub(crate) async fn note(
    session: &Session<'_>,
    organization: OrganizationId,
    by: &Actor,
    action: Action,
    subject: &str,
    fields: &[&str],
) -> Result<(), StorageError> {
    let values = parameters![
        Id16::from(organization),
        session.now().as_millis(),
        by.kind(),
        by.name().map(str::as_bytes),
        by.address().map(|address| address.to_string()),
        action.as_str(),
        subject.as_bytes(),
        fields.join(" "),
    ];
    session.execute(INSERT, values).await.map(drop)
}

const INSERT: &str = "
INSERT INTO esl.audit
    (organization, at, actor_kind, actor_name, address, action, subject, fields)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// A part of an organization's trail.
pub(crate) async fn list(
    storage: &PostgresStorage,
    organization: OrganizationId,
    page: Page<AuditNumber>,
) -> Result<PageOf<AuditEntry>, StorageError> {
    let operation = "read the audit trail";
    let mut before = page.after.map_or(i64::MAX, |number| number.get().cast_signed());
    let mut reader = PageReader::new(page.limit);
    loop {
        let values = parameters![Id16::from(organization), before, reader.ask()];
        let rows = storage.database().query(operation, LIST, values).await?;
        for row in &rows {
            before = whole(operation, get(row, 0))?;
            let entry = entry(row, organization);
            reader.take(storage.damages().readable(Place::Audit(before), entry));
        }
        if reader.is_done(rows.len()) {
            return Ok(reader.into_page());
        }
    }
}

const LIST: &str = "
SELECT number, at, actor_kind, actor_name, address, action, subject, fields
FROM esl.audit
WHERE organization = $1 AND number < $2
ORDER BY number DESC LIMIT $3";

fn entry(row: &Row, organization: OrganizationId) -> Result<AuditEntry, Damage> {
    let address: Option<IpAddr> = match get::<Option<&str>>(row, 4)? {
        Some(_) => Some(parsed(row, 4)?),
        None => None,
    };
    let actor = Actor::from_parts(get(row, 2)?, optional_strangers_text(row, 3)?, address);
    let fields: &str = get(row, 7)?;
    Ok(AuditEntry {
        number: AuditNumber::new(get::<i64>(row, 0)?.cast_unsigned()),
        organization,
        at: rows::time(row, 1)?,
        actor: actor.ok_or_else(|| Damage::new(2, "there is no such actor"))?,
        action: parsed(row, 5)?,
        subject: strangers_text(row, 6)?,
        fields: fields.split_ascii_whitespace().map(str::to_owned).collect(),
    })
}
