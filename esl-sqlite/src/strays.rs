//! Intake rows of organizations that there are not, which an application has committed all the same.

use esl_core::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use crate::removal::Slice;

/// Where removing them stands.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    /// The organizations up to this id are done.
    after: Vec<u8>,
    is_done: bool,
}

impl Strays {
    /// Removes those that are old. One that is made in the meantime gets its rows: there is no other way
    /// to tell the two apart.
    pub(crate) fn remove(
        &mut self,
        connection: &Connection,
        old: Timestamp,
        slice: &mut Slice,
    ) -> rusqlite::Result<()> {
        while !self.is_done && slice.left > 0 {
            let mut next = connection.prepare_cached(NEXT)?;
            let next = next.query_row([&self.after], |row| row.get::<_, Vec<u8>>(0)).optional()?;
            let Some(organization) = next else {
                self.is_done = true;
                break;
            };
            let is_stray = !connection.prepare_cached(EXISTS)?.exists([&organization])?;
            let is_all = !is_stray || remove_of(connection, &organization, old, slice)?;
            slice.use_up(1);
            if is_all {
                self.after = organization;
            }
        }
        Ok(())
    }
}

/// Removes the first of an organization's rows, if they are old; true when it is done with them.
fn remove_of(
    connection: &Connection,
    organization: &[u8],
    old: Timestamp,
    slice: &mut Slice,
) -> rusqlite::Result<bool> {
    let mut select = connection.prepare_cached(ROWS)?;
    let found = select.query_map((organization, slice.limit()), |row| {
        Ok((row.get(0)?, crate::rows::time(row, 1)?, row.get(2)?))
    })?;
    let found = found.collect::<Result<Vec<(i64, Timestamp, i64)>, _>>()?;
    let is_last = found.len() < slice.left;
    let mut remove = connection.prepare_cached(REMOVE)?;
    let mut removed = 0;
    for (id, _, bytes) in found.iter().filter(|(_, timestamp, _)| *timestamp <= old) {
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

const NEXT: &str = "
SELECT organization FROM esl_intake WHERE organization > ?1 ORDER BY organization LIMIT 1";

const EXISTS: &str = "SELECT 1 FROM esl_organizations WHERE id = ?1";

/// In the order of ids, which is that of their times, as a rule.
const ROWS: &str = "
SELECT id, timestamp, length(body) + coalesce(length(changes), 0) FROM esl_intake
WHERE organization = ?1 ORDER BY event_id LIMIT ?2";

const REMOVE: &str = "DELETE FROM esl_intake WHERE id = ?1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plans::assert_plan;

    #[test]
    fn strays_are_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let covering =
            "SEARCH esl_intake USING COVERING INDEX esl_intake_by_event (organization>?)";
        assert_plan(&connection, NEXT, &[covering]);
        let rows = "SEARCH esl_intake USING INDEX esl_intake_by_event (organization=?)";
        assert_plan(&connection, ROWS, &[rows]);
    }
}
