//! Reads of entities.

use async_trait::async_trait;
use esl_core::{
    EntityId, EntityKey, KindName, OrganizationId, Timestamp,
    storage::{
        DueEntity, ENTRIES_MAX, Entities, EntityPage, EntityQuery, IndexEntry, IndexValue,
        REFERENCES_MAX, StorageError, StoredEntity,
    },
};
use rusqlite::{CachedStatement, OptionalExtension, params_from_iter};

use crate::storage::{
    SqliteStorage,
    damage::Place,
    entity_row::{ENTITY, stored_entity},
    entity_walk::{Walk, entry_sql},
    readers::Snapshot,
    rows::parsed,
    session::read_organization,
    subscriptions::page_of,
};

#[async_trait]
impl Entities for SqliteStorage {
    async fn entity(
        &self,
        organization: OrganizationId,
        key: &EntityKey,
    ) -> Result<Option<StoredEntity>, StorageError> {
        let key = key.clone();
        let work = move |snapshot: &Snapshot<'_>| {
            let finder = Finder::new(snapshot, organization, &key.kind)?;
            Ok(finder.map_or(Ok(None), |mut finder| finder.find(&key.id))?)
        };
        self.readers().run("read an entity", work).await
    }

    async fn entities(
        &self,
        organization: OrganizationId,
        query: &EntityQuery,
    ) -> Result<EntityPage, StorageError> {
        let query = query.clone();
        let work = move |snapshot: &Snapshot<'_>| {
            let none = EntityPage { items: Vec::new(), next: None };
            let finder = Finder::new(snapshot, organization, &query.kind)?;
            Ok(finder.map_or(Ok(none), |finder| list(finder, &query))?)
        };
        self.readers().run("list entities", work).await
    }

    async fn referring(
        &self,
        organization: OrganizationId,
        kind: &KindName,
        field: &str,
        values: &[IndexValue],
    ) -> Result<Vec<Vec<StoredEntity>>, StorageError> {
        let (kind, field, values) = (kind.clone(), field.to_owned(), values.to_vec());
        let work = move |snapshot: &Snapshot<'_>| {
            let Some(mut finder) = Finder::new(snapshot, organization, &kind)? else {
                return Ok(vec![Vec::new(); values.len()]);
            };
            let mut walk = snapshot.connection.prepare_cached(&entry_sql("", "ASC"))?;
            let values = values.iter();
            let found = values.map(|value| referring(&mut finder, &mut walk, &field, value));
            Ok(found.collect::<Result<_, _>>()?)
        };
        self.readers().run("look for those who refer to an entity", work).await
    }

    async fn next_entity_due(&self) -> Result<Option<Timestamp>, StorageError> {
        let work = |snapshot: &Snapshot<'_>| {
            // One that cannot be read is due for nobody, who would else look for it again and again.
            let next = due(snapshot, Timestamp::from_millis(i64::MAX), 1)?;
            Ok(next.first().and_then(|due| due.entity.due_at))
        };
        self.readers().run("look for entities that are due", work).await
    }

    async fn due_entities(&self, limit: usize) -> Result<Vec<DueEntity>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(due(snapshot, snapshot.now, limit)?);
        self.readers().run("read entities that are due", work).await
    }
}

/// Finds entities of a kind by their ids.
struct Finder<'s> {
    snapshot: &'s Snapshot<'s>,
    organization: i64,
    kind: &'s str,
    one: CachedStatement<'s>,
    is_indexed: CachedStatement<'s>,
}

impl<'s> Finder<'s> {
    /// `None` if there is no such organization.
    fn new(
        snapshot: &'s Snapshot<'_>,
        organization: OrganizationId,
        kind: &'s KindName,
    ) -> rusqlite::Result<Option<Self>> {
        let connection = snapshot.connection;
        let Some(row) = read_organization(connection, organization)? else { return Ok(None) };
        Ok(Some(Self {
            snapshot,
            organization: row.key,
            kind: kind.as_str(),
            one: connection.prepare_cached(&one_sql())?,
            is_indexed: connection.prepare_cached(IS_INDEXED)?,
        }))
    }

    fn find(&mut self, id: &EntityId) -> rusqlite::Result<Option<StoredEntity>> {
        let place = (self.organization, self.kind, id.as_str());
        self.one.query_row(place, |row| stored_entity(row, 0)).optional()
    }

    /// One that is there and can be read.
    fn readable(&mut self, id: &EntityId) -> rusqlite::Result<Option<StoredEntity>> {
        let mut rows = self.one.query((self.organization, self.kind, id.as_str()))?;
        let Some(row) = rows.next()? else { return Ok(None) };
        self.snapshot.readable(Place::Entity(row.get(0)?), stored_entity(row, 0))
    }

    /// Whether it has all of these entries in its index.
    fn has_all(&mut self, id: &EntityId, entries: &[IndexEntry]) -> rusqlite::Result<bool> {
        for IndexEntry { field, value: IndexValue(value) } in entries {
            let entry = (self.organization, self.kind, &**field, &**value, id.as_str());
            if !self.is_indexed.exists(entry)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Goes through a range, and takes those entities of which all else is so, too.
fn list(mut finder: Finder<'_>, query: &EntityQuery) -> rusqlite::Result<EntityPage> {
    let snapshot = finder.snapshot;
    let (walk, filters) = Walk::of(query);
    let mut entries = snapshot.connection.prepare_cached(&walk.sql(query))?;
    let parameters = walk.parameters(finder.organization, query);
    let mut entries = entries.query(params_from_iter(parameters))?;
    let (mut items, mut looked_at, mut last) = (Vec::new(), 0, None);
    while let Some(entry) = entries.next()? {
        let place = Place::EntityIndex(finder.organization);
        let Some(position) = snapshot.readable(place, walk.position(entry))? else { continue };
        if items.len() >= query.limit || looked_at == ENTRIES_MAX {
            return Ok(EntityPage { items, next: last });
        }
        looked_at += 1;
        if finder.has_all(&position.id, filters)? {
            items.extend(finder.readable(&position.id)?);
        }
        last = Some(position);
    }
    Ok(EntityPage { items, next: None })
}

fn referring(
    finder: &mut Finder<'_>,
    walk: &mut CachedStatement<'_>,
    field: &str,
    IndexValue(value): &IndexValue,
) -> rusqlite::Result<Vec<StoredEntity>> {
    let mut ids = walk.query((finder.organization, finder.kind, field, &**value))?;
    let mut found = Vec::new();
    while let Some(row) = ids.next()?
        && found.len() < REFERENCES_MAX as usize
    {
        let place = Place::EntityIndex(finder.organization);
        if let Some(id) = finder.snapshot.readable(place, parsed(row, 0))? {
            found.extend(finder.readable(&id)?);
        }
    }
    Ok(found)
}

/// Those that are due by a time, those that have been for longest first.
fn due(snapshot: &Snapshot<'_>, by: Timestamp, limit: usize) -> rusqlite::Result<Vec<DueEntity>> {
    let mut select = snapshot.connection.prepare_cached(&due_sql())?;
    let page = page_of(select.query([by.as_millis()])?, limit, |row| {
        let read = || {
            let organization = OrganizationId::from_bytes(row.get(0)?);
            Ok(DueEntity { organization, entity: stored_entity(row, 1)? })
        };
        snapshot.readable(Place::Entity(row.get(1)?), read())
    })?;
    Ok(page.items)
}

fn one_sql() -> String {
    format!(
        "SELECT {ENTITY} FROM esl_entities e WHERE e.organization = ?1 AND e.kind = ?2 AND e.id = ?3"
    )
}

/// Those of deleted organizations are the first of their rows to be removed, and are passed until then.
fn due_sql() -> String {
    format!(
        "SELECT o.id, {ENTITY}
         FROM esl_entities e CROSS JOIN esl_organizations o ON o.key = e.organization
         WHERE e.due_at <= ?1 AND o.deleted_at IS NULL
         ORDER BY e.due_at"
    )
}

const IS_INDEXED: &str = "
SELECT 1 FROM esl_entity_index
WHERE organization = ?1 AND kind = ?2 AND field = ?3 AND value = ?4 AND id = ?5";

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn entities_are_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let one = "SEARCH e USING INDEX sqlite_autoindex_esl_entities_1 \
                   (organization=? AND kind=? AND id=?)";
        assert_plan(&connection, &one_sql(), &[one]);
        let entry = "SEARCH esl_entity_index USING PRIMARY KEY \
                     (organization=? AND kind=? AND field=? AND value=? AND id=?)";
        assert_plan(&connection, IS_INDEXED, &[entry]);
        let due = "SEARCH e USING INDEX esl_entities_due (due_at<?)";
        let organization = "SEARCH o USING INTEGER PRIMARY KEY (rowid=?)";
        assert_plan(&connection, &due_sql(), &[due, organization]);
    }
}
