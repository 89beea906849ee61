//! Intake rows of organizations that there are not, which an application has committed all the same.

use std::collections::BTreeSet;

use esl_core::{OrganizationId, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use crate::storage::removal::Slice;

/// Where removing them stands.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    /// The organizations up to this id are done.
    after: Vec<u8>,
    is_done: bool,
    /// Those of which it was said that they do not exist.
    told: BTreeSet<Vec<u8>>,
}

/// What there is of an organization.
struct Standing {
    exists: bool,
    was_deleted: bool,
}

impl Strays {
    /// Removes those of organizations that were deleted, and of the others those that are old; true when
    /// none is left. An organization that is made in the meantime gets its rows: there is no other way to
    /// tell the two apart.
    pub(crate) fn remove(
        &mut self,
        connection: &Connection,
        old: Option<Timestamp>,
        slice: &mut Slice,
    ) -> rusqlite::Result<bool> {
        while !self.is_done && slice.left > 0 {
            let mut next = connection.prepare_cached(NEXT)?;
            let next = next.query_row([&self.after], |row| row.get::<_, Vec<u8>>(0)).optional()?;
            let Some(organization) = next else {
                self.is_done = true;
                break;
            };
            let mut standing = connection.prepare_cached(STANDING)?;
            let standing = standing.query_one([&organization], |row| {
                Ok(Standing { exists: row.get(0)?, was_deleted: row.get(1)? })
            })?;
            let is_all = standing.exists
                || remove_of(connection, &organization, slice, |sealed_at| {
                    standing.was_deleted || sealed_at.zip(old).is_some_and(|(at, old)| at <= old)
                })?;
            slice.use_up(1);
            if is_all {
                if !standing.exists && !standing.was_deleted {
                    self.tell(&organization);
                }
                self.after = organization;
            }
        }
        Ok(self.is_done)
    }

    /// The next round begins at the beginning.
    pub(crate) fn begin_anew(&mut self) {
        self.after.clear();
        self.is_done = false;
    }

    /// Says once that rows wait for an organization that may be made yet.
    fn tell(&mut self, organization: &[u8]) {
        if self.told.contains(organization) {
            return;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(organization.to_vec());
        let id: Option<[u8; 16]> = organization.try_into().ok();
        tracing::error!(
            organization = id.map(|id| tracing::field::display(OrganizationId::from_bytes(id))),
            "events stay in the intake: there is no such organization"
        );
    }
}

/// Removes the first of an organization's rows, if they are to go; true when it is done with them.
fn remove_of(
    connection: &Connection,
    organization: &[u8],
    slice: &mut Slice,
    is_to_go: impl Fn(Option<Timestamp>) -> bool,
) -> rusqlite::Result<bool> {
    let mut select = connection.prepare_cached(ROWS)?;
    let found = select.query_map((organization, slice.limit()), |row| {
        // Of a damaged row nobody can say that it is old.
        Ok((row.get(0)?, crate::storage::rows::time(row, 1).ok(), row.get(2)?))
    })?;
    let found = found.collect::<Result<Vec<(i64, Option<Timestamp>, i64)>, _>>()?;
    let is_last = found.len() < slice.left;
    let mut remove = connection.prepare_cached(REMOVE)?;
    let mut removed = 0;
    for (id, _, bytes) in found.iter().filter(|(_, sealed_at, _)| is_to_go(*sealed_at)) {
        if slice.left == 0 {
            return Ok(false);
        }
        remove.execute([id])?;
        removed += 1;
        slice.removed.events += 1;
        slice.removed.bytes += bytes.unsigned_abs();
        slice.use_up(1);
        slice.use_up_bytes(bytes.unsigned_abs());
    }
    Ok(is_last || removed == 0)
}

/// So many are remembered.
const TOLD_MAX: usize = 1024;

const NEXT: &str = "
SELECT organization FROM esl_intake WHERE organization > ?1 ORDER BY organization LIMIT 1";

const STANDING: &str = "
SELECT EXISTS (SELECT 1 FROM esl_organizations WHERE id = ?1),
    EXISTS (SELECT 1 FROM esl_deleted_organizations WHERE id = ?1)";

/// In the order in which they came, which is that of their times, as a rule.
const ROWS: &str = "
SELECT id, timestamp, length(body) + coalesce(length(changes), 0) FROM esl_intake
WHERE organization = ?1 ORDER BY id LIMIT ?2";

const REMOVE: &str = "DELETE FROM esl_intake WHERE id = ?1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn strays_are_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let next =
            "SEARCH esl_intake USING COVERING INDEX esl_intake_by_organization (organization>?)";
        assert_plan(&connection, NEXT, &[next]);
        let rows = "SEARCH esl_intake USING INDEX esl_intake_by_organization (organization=?)";
        assert_plan(&connection, ROWS, &[rows]);
        let exists = "SEARCH esl_organizations USING COVERING INDEX sqlite_autoindex_esl_organiz";
        let deleted = "SEARCH esl_deleted_organizations USING PRIMARY KEY (id=?)";
        let steps = ["SCAN CONSTANT ROW", "SCALAR SUBQUERY", exists, deleted];
        assert_plan(&connection, STANDING, &steps);
    }
}
