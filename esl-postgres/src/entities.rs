//! Reads of entities. What is written goes with its unit.

use async_trait::async_trait;
use esl_core::{
    EntityId, EntityKey, KindName, OrganizationId, Timestamp,
    storage::{
        DueEntity, ENTRIES_MAX, Entities, EntityPage, EntityPosition, EntityQuery, IndexEntry,
        IndexValue, REFERENCES_MAX, References, StorageError, StoredEntity,
    },
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    damage::Place,
    error::Damage,
    id::Id16,
    parameters::parameters,
    rows::{self, body, count, get, limit_number, optional_time, parsed, time, whole},
};

#[async_trait]
impl Entities for PostgresStorage {
    async fn entity(
        &self,
        organization: OrganizationId,
        key: &EntityKey,
    ) -> Result<Option<StoredEntity>, StorageError> {
        let operation = "read an entity";
        let values = parameters![Id16::from(organization), key.kind.as_str(), key.id.as_str()];
        let row = self.database().query_opt(operation, &entity_sql(), values).await?;
        whole(operation, row.map(|row| entity(&row, 0, key.clone())).transpose())
    }

    async fn entities(
        &self,
        organization: OrganizationId,
        query: &EntityQuery,
    ) -> Result<EntityPage, StorageError> {
        if query.limit == 0 {
            return Ok(EntityPage { items: Vec::new(), next: None });
        }
        match (&query.by, &query.having[..]) {
            (Some(field), having) => {
                by_index(self, organization, query, Walk::of_field(field, query), having).await
            }
            (None, [first, having @ ..]) => {
                by_index(self, organization, query, Walk::of_entry(first, query), having).await
            }
            (None, []) => by_id(self, organization, query).await,
        }
    }

    async fn referring(
        &self,
        organization: OrganizationId,
        kind: &KindName,
        field: &str,
        values: &[IndexValue],
    ) -> Result<Vec<Vec<StoredEntity>>, StorageError> {
        let operation = "read who refers to entities";
        let mut found = vec![Vec::new(); values.len()];
        let values: Vec<&[u8]> = values.iter().map(|value| &*value.0).collect();
        let values = parameters![
            Id16::from(organization),
            kind.as_str(),
            field.as_bytes(),
            values,
            i64::from(REFERENCES_MAX),
        ];
        for row in self.database().query(operation, &referring_sql(), values).await? {
            let place: i64 = whole(operation, get(&row, 0))?;
            let key = whole(operation, key(&row, 1, kind))?;
            let read = readable(self, organization, &row, 2, key);
            let of = usize::try_from(place - 1).ok().and_then(|index| found.get_mut(index));
            of.expect("a place among the values").extend(read);
        }
        Ok(found)
    }

    async fn next_entity_due(&self) -> Result<Option<Timestamp>, StorageError> {
        let operation = "look for when an entity is due";
        let row = self.database().query_opt(operation, NEXT_DUE, &[]).await?;
        whole(operation, row.map(|row| time(&row, 0)).transpose())
    }

    async fn due_entities(&self, limit: usize) -> Result<Vec<DueEntity>, StorageError> {
        let operation = "look for entities that are due";
        // What is damaged stays due, and must not keep the others from being found.
        let mut damaged = 0;
        loop {
            let asked = limit.saturating_add(damaged);
            let values = parameters![self.suite_time(), limit_number(asked)];
            let rows = self.database().query(operation, &due_sql(), values).await?;
            let mut due = Vec::new();
            for row in &rows {
                let organization = whole(operation, rows::id(row, 0))?;
                let key = parsed(row, 1).and_then(|kind| key(row, 2, &kind));
                let place = Place::Entity(organization, key.as_ref().ok().cloned());
                let entity = key.and_then(|key| entity(row, 3, key));
                let entity = self.damages().readable(place, entity);
                due.extend(entity.map(|entity| DueEntity { organization, entity }));
            }
            due.truncate(limit);
            if due.len() == limit || rows.len() < asked {
                return Ok(due);
            }
            damaged = rows.len() - due.len();
        }
    }
}

const LIST: &str = "list entities";

async fn by_id(
    storage: &PostgresStorage,
    organization: OrganizationId,
    query: &EntityQuery,
) -> Result<EntityPage, StorageError> {
    let limit = query.limit.min(ENTRIES_MAX);
    let after = query.after.as_ref().map(|after| after.id.as_str());
    let after = after.unwrap_or(if query.is_descending { ID_END } else { ID_BEGINNING });
    let values = parameters![
        Id16::from(organization),
        query.kind.as_str(),
        after,
        limit_number(limit).saturating_add(1),
    ];
    let rows = storage.database().query(LIST, &by_id_sql(query.is_descending), values).await?;
    let mut page = EntityPage { items: Vec::new(), next: None };
    for row in rows.iter().take(limit) {
        let key = whole(LIST, key(row, 0, &query.kind))?;
        page.next = Some(EntityPosition { value: None, id: key.id.clone() });
        page.items.extend(readable(storage, organization, row, 1, key));
    }
    if rows.len() <= limit {
        page.next = None;
    }
    Ok(page)
}

/// A way along the index of a field.
struct Walk<'q> {
    field: &'q str,
    /// Of this value alone.
    value: Option<&'q [u8]>,
    /// Behind this place.
    after: (&'q [u8], &'q str),
}

impl<'q> Walk<'q> {
    fn of_field(field: &'q str, query: &'q EntityQuery) -> Self {
        let after = query.after.as_ref();
        let value = after.and_then(|after| after.value.as_ref()).map(|value| &*value.0);
        let id = after.map(|after| after.id.as_str());
        let (value_end, id_end) = match query.is_descending {
            true => (&VALUE_END[..], ID_END),
            false => (&[][..], ID_BEGINNING),
        };
        Self { field, value: None, after: (value.unwrap_or(value_end), id.unwrap_or(id_end)) }
    }

    fn of_entry(entry: &'q IndexEntry, query: &'q EntityQuery) -> Self {
        let after = query.after.as_ref().map(|after| after.id.as_str());
        let after = after.unwrap_or(if query.is_descending { ID_END } else { ID_BEGINNING });
        let value = &*entry.value.0;
        Self { field: &entry.field, value: Some(value), after: (value, after) }
    }
}

async fn by_index(
    storage: &PostgresStorage,
    organization: OrganizationId,
    query: &EntityQuery,
    walk: Walk<'_>,
    having: &[IndexEntry],
) -> Result<EntityPage, StorageError> {
    let fields: Vec<&[u8]> = having.iter().map(|entry| entry.field.as_bytes()).collect();
    let values: Vec<&[u8]> = having.iter().map(|entry| &*entry.value.0).collect();
    let values = parameters![
        Id16::from(organization),
        query.kind.as_str(),
        walk.field.as_bytes(),
        walk.value,
        walk.after.0,
        walk.after.1,
        query.is_descending,
        fields,
        values,
        limit_number(query.limit),
        limit_number(ENTRIES_MAX),
    ];
    let mut page = EntityPage { items: Vec::new(), next: None };
    for row in storage.database().query(LIST, &by_index_sql(), values).await? {
        let key = whole(LIST, key(&row, 1, &query.kind))?;
        if whole(LIST, get::<Option<i64>>(&row, 2))?.is_some() {
            page.items.extend(readable(storage, organization, &row, 2, key));
            continue;
        }
        let value: &[u8] = whole(LIST, get(&row, 0))?;
        let value = query.by.as_ref().map(|_| IndexValue(value.into()));
        page.next = Some(EntityPosition { value, id: key.id });
    }
    Ok(page)
}

/// Before every id, and behind every id.
const ID_BEGINNING: &str = "";
const ID_END: &str = "~";

/// Behind every value.
const VALUE_END: [u8; IndexValue::BYTES_MAX + 1] = [0xff; IndexValue::BYTES_MAX + 1];

/// An entity, if its row holds what was written there.
fn readable(
    storage: &PostgresStorage,
    organization: OrganizationId,
    row: &Row,
    first: usize,
    key: EntityKey,
) -> Option<StoredEntity> {
    let read = entity(row, first, key.clone());
    storage.damages().readable(Place::Entity(organization, Some(key)), read)
}

/// The columns that [`entity`] reads.
const ENTITY: &str =
    "revision, reference_count, reference_version, created_at, updated_at, due_at, document";

/// Reads [`ENTITY`], beginning at column `first`.
fn entity(row: &Row, first: usize, key: EntityKey) -> Result<StoredEntity, Damage> {
    Ok(StoredEntity {
        key,
        revision: version(row, first)?,
        references: References { count: count(row, first + 1)?, version: version(row, first + 2)? },
        created_at: time(row, first + 3)?,
        updated_at: time(row, first + 4)?,
        due_at: optional_time(row, first + 5)?,
        document: body(row, first + 6)?,
    })
}

/// A number that only goes up.
fn version(row: &Row, column: usize) -> Result<u64, Damage> {
    u64::try_from(get::<i64>(row, column)?).map_err(|error| Damage::new(column, error))
}

fn key(row: &Row, column: usize, kind: &KindName) -> Result<EntityKey, Damage> {
    parsed::<EntityId>(row, column).map(|id| EntityKey::new(kind.clone(), id))
}

fn entity_sql() -> String {
    format!(
        "SELECT {ENTITY} FROM esl.entities
         WHERE organization = ({KEY}) AND kind = $2 AND id = $3"
    )
}

fn by_id_sql(is_descending: bool) -> String {
    let (behind, order) = if is_descending { ("<", "DESC") } else { (">", "ASC") };
    format!(
        "SELECT id, {ENTITY} FROM esl.entities
         WHERE organization = ({KEY}) AND kind = $2 AND id {behind} $3
         ORDER BY id {order} LIMIT $4"
    )
}

fn by_index_sql() -> String {
    format!(
        "SELECT value, id, {ENTITY}
         FROM esl.entities_by_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
    )
}

fn referring_sql() -> String {
    format!("SELECT place, id, {ENTITY} FROM esl.referring_1($1, $2, $3, $4, $5)")
}

/// Nothing for an organization that was deleted: another one may have its id.
const KEY: &str = "SELECT g.key FROM esl.organizations g WHERE g.id = $1 AND g.deleted_at IS NULL";

const NEXT_DUE: &str = "
SELECT e.due_at FROM esl.entities e
CROSS JOIN LATERAL (
    SELECT FROM esl.organizations g
    WHERE g.key = e.organization AND g.deleted_at IS NULL LIMIT 1
) g
WHERE e.due_at IS NOT NULL ORDER BY e.due_at LIMIT 1";

fn due_sql() -> String {
    format!(
        "SELECT g.organization, kind, e.id, {ENTITY} FROM esl.entities e
         CROSS JOIN LATERAL (
             SELECT g.id AS organization FROM esl.organizations g
             WHERE g.key = e.organization AND g.deleted_at IS NULL LIMIT 1
         ) g
         WHERE e.due_at IS NOT NULL AND e.due_at <= (SELECT esl.now_1($1))
         ORDER BY e.due_at LIMIT $2"
    )
}
