//! Intake rows of organizations that there are not, which an application has committed all the same.

use std::collections::BTreeSet;

use esl_core::{OrganizationId, Timestamp, storage::StorageError};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    error::Damage,
    id::Id16,
    parameters::parameters,
    removal::{OPERATION, Slice, counted},
    rows::{get, whole},
};

/// Where removing them stands.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    /// The organizations up to this id are done.
    after: Option<Id16>,
    is_done: bool,
    /// Those of which it was said that they do not exist.
    told: BTreeSet<Id16>,
}

/// What there is of an organization that has rows.
struct Standing {
    id: Id16,
    exists: bool,
    was_deleted: bool,
}

impl Standing {
    fn read(row: &Row) -> Result<Self, Damage> {
        Ok(Self { id: get(row, 0)?, exists: get(row, 1)?, was_deleted: get(row, 2)? })
    }
}

impl Strays {
    /// Removes those of organizations that were deleted, and of the others those that are old; true when
    /// none is left. An organization that is made in the meantime gets its rows: there is no other way to
    /// tell the two apart.
    pub(crate) async fn remove(
        &mut self,
        storage: &PostgresStorage,
        old: Option<Timestamp>,
        slice: &mut Slice,
    ) -> Result<bool, StorageError> {
        while !self.is_done && slice.left > 0 {
            let values = parameters![self.after];
            let next = storage.database().query_opt(OPERATION, NEXT, values).await?;
            let Some(row) = next else {
                self.is_done = true;
                break;
            };
            let standing = whole(OPERATION, Standing::read(&row))?;
            let is_all = standing.exists || remove_of(storage, standing.id, old, slice).await?;
            slice.use_up(1);
            if is_all {
                if !standing.exists && !standing.was_deleted {
                    self.tell(standing.id);
                }
                self.after = Some(standing.id);
            }
        }
        Ok(self.is_done)
    }

    /// The next round begins at the beginning.
    pub(crate) fn begin_anew(&mut self) {
        self.after = None;
        self.is_done = false;
    }

    /// Says once that rows wait for an organization that may be made yet.
    fn tell(&mut self, organization: Id16) {
        if self.told.contains(&organization) {
            return;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(organization);
        tracing::error!(
            organization = %OrganizationId::from(organization),
            "events stay in the intake: there is no such organization"
        );
    }
}

/// Removes the first of an organization's rows, if they are to go; true when it is done with them.
async fn remove_of(
    storage: &PostgresStorage,
    organization: Id16,
    old: Option<Timestamp>,
    slice: &mut Slice,
) -> Result<bool, StorageError> {
    let limit = slice.left;
    let old = old.map(Timestamp::as_millis);
    let values = parameters![storage.suite_time(), organization, old, slice.limit()];
    let row = storage.database().query_one(OPERATION, REMOVE, values).await?;
    let (found, removed) =
        (whole(OPERATION, counted(&row, 0))?, whole(OPERATION, counted(&row, 1))?);
    let bytes = whole(OPERATION, get::<i64>(&row, 2))?.unsigned_abs();
    slice.removed.events += removed;
    slice.removed.bytes += bytes;
    slice.use_up(removed);
    slice.use_up_bytes(bytes);
    Ok(found < limit || removed == 0)
}

/// So many are remembered.
const TOLD_MAX: usize = 1024;

const NEXT: &str = "
SELECT q.organization,
    EXISTS (SELECT FROM esl.organizations g WHERE g.id = q.organization AND g.deleted_at IS NULL),
    EXISTS (SELECT FROM esl.deleted_organizations d WHERE d.id = q.organization)
FROM (
    SELECT i.organization FROM esl.intake i
    WHERE i.organization > coalesce($1, '00000000-0000-0000-0000-000000000000')
    ORDER BY i.organization LIMIT 1
) q";

const REMOVE: &str = "SELECT found, removed, bytes FROM esl.remove_strays_1($1, $2, $3, $4)";
