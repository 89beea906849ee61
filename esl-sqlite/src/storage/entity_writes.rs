//! Entities in units: what is expected of them, and what becomes of them.

use std::collections::BTreeSet;

use esl_core::{
    EntityKey,
    storage::{
        EntityAction, EntityStep, EntityWrite, IndexEntry, PutEntity, REFERENCES_MAX, References,
        Refused,
    },
};
use rusqlite::OptionalExtension;

use crate::storage::{
    changes::News,
    commit::Declined,
    entity_row::{EntityRow, index_bytes},
    error::is_damaged_value,
    session::Session,
};

/// The writes of a unit, and the rows that they were checked against.
pub(crate) struct Checked<'u> {
    organization: i64,
    /// By their keys; those of one entity in their order.
    steps: Vec<&'u EntityStep>,
    /// One for each entity that the steps are of.
    rows: Vec<Option<EntityRow>>,
}

/// Refuses writes that go by what is not so any more.
pub(crate) fn demand_expected<'u>(
    session: &mut Session<'_>,
    write: &'u EntityWrite,
) -> Result<Checked<'u>, Declined> {
    let organization = session.organization(write.organization)?;
    let organization = organization.ok_or(Refused::UnknownOrganization(write.organization))?.key;
    let mut steps: Vec<_> = write.steps.iter().collect();
    steps.sort_by(|one, other| one.key.cmp(&other.key));
    let mut rows = Vec::new();
    for steps in of_each(&steps) {
        let row = find(session, organization, &steps[0].key)?;
        demand(steps, row.as_ref())?;
        rows.push(row);
    }
    Ok(Checked { organization, steps, rows })
}

/// The steps of each entity.
fn of_each<'s, 'u>(steps: &'s [&'u EntityStep]) -> impl Iterator<Item = &'s [&'u EntityStep]> {
    steps.chunk_by(|one, other| one.key == other.key)
}

fn find(
    session: &mut Session<'_>,
    organization: i64,
    key: &EntityKey,
) -> Result<Option<EntityRow>, Declined> {
    let find = &mut session.statements.find_entity;
    let place = (organization, key.kind.as_str(), key.id.as_str());
    match find.query_row(place, EntityRow::read).optional() {
        // It is not what the writer has read. Whoever reads it anew is told of the damage.
        Err(error) if is_damaged_value(&error) => Err(Refused::Stale(key.clone()).into()),
        found => Ok(found?),
    }
}

/// Every expectation is of what was there before the unit.
fn demand(steps: &[&EntityStep], row: Option<&EntityRow>) -> Result<(), Refused> {
    let stands = row.map(|row| (row.revision, row.references));
    let mut count = stands.map_or(0, |(_, references)| i64::from(references.count));
    for step in steps {
        if !step.expected.is_met(stands) {
            return Err(Refused::Stale(step.key.clone()));
        }
        if let EntityAction::Refer(by) = step.action {
            count += i64::from(by);
            if by > 0 && count > i64::from(REFERENCES_MAX) {
                return Err(Refused::TooManyReferences(step.key.clone()));
            }
        }
    }
    Ok(())
}

/// Roughly how many rows a step writes.
pub(crate) fn weight(step: &EntityStep) -> usize {
    match &step.action {
        EntityAction::Put(put) => 1 + put.unindexed.len() + put.indexed.len(),
        EntityAction::Check | EntityAction::Delete | EntityAction::Refer(_) => 1,
    }
}

/// Writes what was checked, each entity once.
pub(crate) fn write(session: &mut Session<'_>, checked: &Checked<'_>) -> rusqlite::Result<()> {
    let Checked { organization, steps, rows } = checked;
    for (steps, row) in of_each(steps).zip(rows) {
        let place = Place { organization: *organization, key: &steps[0].key };
        let mut entity = row.as_ref().map(Standing::of);
        steps.iter().for_each(|step| Standing::take(&mut entity, &step.action));
        write_row(session, place, row.as_ref(), entity.as_ref())?;
        let before = row.iter().flat_map(|row| &row.index).collect();
        let after = entity.map(|entity| entity.index).unwrap_or_default();
        write_index(session, place, &before, &after)?;
    }
    if steps.iter().any(|step| is_scheduling(&step.action)) {
        session.tell_others(News::Schedule)?;
    }
    Ok(())
}

const fn is_scheduling(action: &EntityAction) -> bool {
    matches!(action, EntityAction::Put(PutEntity { due_at: Some(_), .. }))
}

#[derive(Clone, Copy)]
struct Place<'u> {
    organization: i64,
    key: &'u EntityKey,
}

/// What a unit makes of an entity.
struct Standing<'u> {
    revision: u64,
    references: References,
    index: BTreeSet<&'u IndexEntry>,
    /// What was put last; `None` if its document stays as it is.
    put: Option<&'u PutEntity>,
}

impl<'u> Standing<'u> {
    fn of(row: &'u EntityRow) -> Self {
        let EntityRow { revision, references, ref index, .. } = *row;
        Self { revision, references, index: index.iter().collect(), put: None }
    }

    const fn new() -> Self {
        let references = References { count: 0, version: 0 };
        Self { revision: 0, references, index: BTreeSet::new(), put: None }
    }

    /// What becomes of an entity that is there, or is not.
    fn take(entity: &mut Option<Self>, action: &'u EntityAction) {
        match action {
            EntityAction::Check => {}
            EntityAction::Put(put) => entity.get_or_insert_with(Self::new).put(put),
            EntityAction::Delete => *entity = None,
            EntityAction::Refer(by) => {
                if let Some(entity) = entity {
                    entity.references = entity.references.referred(*by);
                }
            }
        }
    }

    fn put(&mut self, put: &'u PutEntity) {
        self.revision += 1;
        for entry in &put.unindexed {
            self.index.remove(entry);
        }
        self.index.extend(&put.indexed);
        self.put = Some(put);
    }
}

/// Makes the row of an entity what it is to be.
fn write_row(
    session: &mut Session<'_>,
    Place { organization, key }: Place<'_>,
    row: Option<&EntityRow>,
    entity: Option<&Standing<'_>>,
) -> rusqlite::Result<()> {
    let statements = &mut session.statements;
    match (row, entity) {
        (None, None) => {}
        (None, Some(entity)) => {
            let put = entity.put.expect("nothing but a document makes an entity");
            statements.insert_entity.execute((
                organization,
                key.kind.as_str(),
                key.id.as_str(),
                entity.revision.cast_signed(),
                entity.references.count,
                entity.references.version.cast_signed(),
                put.created_at.as_millis(),
                put.updated_at.as_millis(),
                put.due_at.map(|at| at.as_millis()),
                index_bytes(entity.index.iter().copied()),
                &*put.document,
            ))?;
        }
        (Some(row), Some(Standing { references, put: None, .. })) => {
            if *references != row.references {
                let version = references.version.cast_signed();
                statements.refer.execute((row.rowid, references.count, version))?;
            }
        }
        (Some(row), Some(Standing { revision, references, index, put: Some(put) })) => {
            statements.update_entity.execute((
                row.rowid,
                revision.cast_signed(),
                references.count,
                references.version.cast_signed(),
                put.created_at.as_millis(),
                put.updated_at.as_millis(),
                put.due_at.map(|at| at.as_millis()),
                index_bytes(index.iter().copied()),
                &*put.document,
            ))?;
        }
        (Some(row), None) => _ = statements.delete_entity.execute([row.rowid])?,
    }
    Ok(())
}

/// Takes out of the index what is no longer in it, and adds what is new.
fn write_index(
    session: &mut Session<'_>,
    Place { organization, key }: Place<'_>,
    before: &BTreeSet<&IndexEntry>,
    after: &BTreeSet<&IndexEntry>,
) -> rusqlite::Result<()> {
    let (kind, id) = (key.kind.as_str(), key.id.as_str());
    let statements = &mut session.statements;
    for gone in before.difference(after) {
        statements.unindex.execute((organization, kind, &*gone.field, &*gone.value.0, id))?;
    }
    for new in after.difference(before) {
        statements.index.execute((organization, kind, &*new.field, &*new.value.0, id))?;
    }
    Ok(())
}
