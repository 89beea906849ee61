//! Reading the intake: the rows of organizations that there are, in their order.
//!
//! An application may commit very many rows for an organization that does not exist. So it is not the
//! rows that are gone through but the organizations that have some, each found by one search; the rows
//! of those that exist are merged.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use esl_core::{OrganizationId, SealedEvent, storage::IntakeRow};
use rusqlite::OptionalExtension;

use crate::storage::{
    damage::Place,
    readers::Snapshot,
    rows::{self, SEALED_EVENT},
};

/// The first rows after `after` of organizations that exist.
pub(crate) fn read(
    snapshot: &Snapshot<'_>,
    after: Option<IntakeRow>,
    limit: usize,
    left_out: &[OrganizationId],
) -> rusqlite::Result<Vec<(IntakeRow, Arc<SealedEvent>)>> {
    let connection = snapshot.connection;
    let mut next = connection.prepare_cached(NEXT_ROW)?;
    let mut next = |organization: OrganizationId, after: i64| {
        let row = next.query_row((organization.to_bytes(), after), |row| row.get::<_, i64>(0));
        row.optional().map(|row| row.map(|row| Reverse((row, organization))))
    };
    let after = after.map_or(i64::MIN, |row| row.0);
    // The next row of each organization.
    let mut waiting = BinaryHeap::new();
    for organization in organizations(snapshot)? {
        if !left_out.contains(&organization) {
            waiting.extend(next(organization, after)?);
        }
    }
    let mut select = connection.prepare_cached(&row_sql())?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(Reverse((row, organization))) = waiting.pop()
    {
        let event = select.query_row([row], |row| rows::sealed_event(row, 0, organization));
        // A damaged one stays where it is, and those after it pass it: nobody knows when it is mended.
        // One that is gone was moved or erased after the moment of the database that named it.
        let event = snapshot.readable(Place::Intake(row), event.optional())?.flatten();
        found.extend(event.map(|event| (IntakeRow(row), event)));
        waiting.extend(next(organization, row)?);
    }
    Ok(found)
}

/// The organizations that exist and have rows.
fn organizations(snapshot: &Snapshot<'_>) -> rusqlite::Result<Vec<OrganizationId>> {
    let mut select = snapshot.connection.prepare_cached(NEXT_ORGANIZATION)?;
    let mut found = Vec::new();
    let mut after = Vec::new();
    loop {
        // Each costs a search; there may be very many of them that do not exist.
        snapshot.refresh()?;
        let next = select
            .query_row([&after], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, bool>(1)?)));
        let Some((organization, exists)) = next.optional()? else { return Ok(found) };
        if exists && let Ok(id) = organization.as_slice().try_into() {
            found.push(OrganizationId::from_bytes(id));
        }
        after = organization;
    }
}

fn row_sql() -> String {
    let event = SEALED_EVENT.replacen("id", "event_id", 1);
    format!("SELECT {event} FROM esl_intake WHERE id = ?1")
}

const NEXT_ORGANIZATION: &str = "
SELECT organization, EXISTS (SELECT 1 FROM esl_organizations o WHERE o.id = organization)
FROM esl_intake INDEXED BY esl_intake_by_organization
WHERE organization > ?1 ORDER BY organization LIMIT 1";

const NEXT_ROW: &str = "
SELECT id FROM esl_intake INDEXED BY esl_intake_by_organization
WHERE organization = ?1 AND id > ?2 ORDER BY id LIMIT 1";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn rows_that_wait_for_nobody_are_passed_over_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let intake = "SEARCH esl_intake USING COVERING INDEX esl_intake_by_organization";
        let next = format!("{intake} (organization>?)");
        let exists = "SEARCH o USING COVERING INDEX sqlite_autoindex_esl_organizations_1 (id=?)";
        assert_plan(&connection, NEXT_ORGANIZATION, &[&next, "CORRELATED SCALAR SUBQUERY", exists]);
        let row = format!("{intake} (organization=? AND rowid>?)");
        assert_plan(&connection, NEXT_ROW, &[&row]);
        let key = "SEARCH esl_intake USING INTEGER PRIMARY KEY (rowid=?)";
        assert_plan(&connection, &row_sql(), &[key]);
    }
}
