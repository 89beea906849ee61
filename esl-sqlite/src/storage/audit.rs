//! The audit trail: written in the transaction of what it tells of, and kept as long as events are.

use std::net::IpAddr;

use esl_core::{
    Action, Actor, AuditEntry, AuditNumber, OrganizationId, Timestamp,
    storage::{Page, PageOf},
};
use rusqlite::{Connection, Row, types::Type};

use crate::storage::{
    damage::Place,
    readers::Snapshot,
    removal::Slice,
    rows::{self, damaged},
    session::Session,
    subscriptions::page_of,
};

/// Writes what this transaction does.
pub(crate) fn note(
    session: &Session<'_>,
    organization: OrganizationId,
    by: &Actor,
    action: Action,
    subject: &str,
    fields: &[&str],
) -> rusqlite::Result<()> {
    session.connection.prepare_cached(INSERT)?.execute((
        organization.to_bytes(),
        session.now.as_millis(),
        by.kind(),
        by.name(),
        by.address().map(|address| address.to_string()),
        action.as_str(),
        subject,
        fields.join(" "),
    ))?;
    Ok(())
}

const INSERT: &str = "
INSERT INTO esl_audit
    (organization, at, actor_kind, actor_name, address, action, subject, fields)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// A part of an organization's trail.
pub(crate) fn list(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
    page: Page<AuditNumber>,
) -> rusqlite::Result<PageOf<AuditEntry>> {
    let before = page.after.map_or(i64::MAX, |number| number.get().cast_signed());
    let mut select = snapshot.connection.prepare_cached(LIST)?;
    let rows = select.query((organization.to_bytes(), before))?;
    page_of(rows, page.limit, |row| {
        snapshot.readable(Place::Audit(row.get(0)?), entry(row, organization))
    })
}

const LIST: &str = "
SELECT number, at, actor_kind, actor_name, address, action, subject, fields
FROM esl_audit
WHERE organization = ?1 AND number < ?2
ORDER BY number DESC";

fn entry(row: &Row<'_>, organization: OrganizationId) -> rusqlite::Result<AuditEntry> {
    let address: Option<IpAddr> = match row.get::<_, Option<String>>(4)? {
        Some(_) => Some(rows::parsed(row, 4)?),
        None => None,
    };
    let kind: String = row.get(2)?;
    let actor = Actor::from_parts(&kind, row.get(3)?, address);
    let fields: String = row.get(7)?;
    Ok(AuditEntry {
        number: AuditNumber::new(row.get::<_, i64>(0)?.cast_unsigned()),
        organization,
        at: rows::time(row, 1)?,
        actor: actor
            .ok_or_else(|| damaged(2, Type::Text, format!("there is no actor `{kind}`")))?,
        action: rows::parsed(row, 5)?,
        subject: row.get(6)?,
        fields: fields.split_ascii_whitespace().map(str::to_owned).collect(),
    })
}

/// Removes what is as old as events that are removed.
pub(crate) fn remove(
    connection: &Connection,
    old: Timestamp,
    slice: &mut Slice,
) -> rusqlite::Result<()> {
    let mut remove = connection.prepare_cached(REMOVE)?;
    let entries = remove.execute((old.as_millis(), slice.limit()))?;
    slice.removed.audit += entries;
    slice.use_up(entries);
    Ok(())
}

const REMOVE: &str = "
DELETE FROM esl_audit
WHERE number IN (SELECT number FROM esl_audit WHERE at <= ?1 LIMIT ?2)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn the_trail_is_read_and_removed_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let list = "SEARCH esl_audit USING INDEX esl_audit_by_organization \
                    (organization=? AND number<?)";
        assert_plan(&connection, LIST, &[list]);
        let steps = [
            "SEARCH esl_audit USING INTEGER PRIMARY KEY (rowid=?)",
            "LIST SUBQUERY 1",
            "SEARCH esl_audit USING COVERING INDEX esl_audit_by_age (at<?)",
        ];
        assert_plan(&connection, REMOVE, &steps);
    }
}
