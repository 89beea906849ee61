//! Entities that are read and written together, with what is published of it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, value::RawValue};

use super::{
    super::{
        Published,
        driver::Driver,
        publish::{self, Counts, Declined, Manner},
    },
    Shown,
    steps::{self, Read, Write},
};
use crate::{
    Document, Entity, EntityError, EntityId, EntityKey, EntityKind, EventType, Fault, KindName,
    NewEvent, OnDelete, OrganizationId, Origin, Representation, Said, Timestamp, changes,
    storage::{EntityAction, EntityQuery, EntityStep, EntityWrite, References, Unit},
};

/// Reads and writes of an organization's entities that hold together: all that was read still stands when
/// they are committed, or nothing is written.
///
/// ```
/// # use esl_core::{Esl, EntityError, OrganizationId};
/// # async fn example(esl: Esl, acme: OrganizationId) -> Result<(), EntityError> {
/// let moved = loop {
///     let mut transaction = esl.transaction(acme, None);
///     let from = transaction.get("account", &"a".parse().unwrap()).await?;
///     // … create, update and delete …
///     match transaction.commit().await {
///         Err(EntityError::Contended(_)) => continue,
///         done => break done?,
///     }
/// };
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Transaction<'a> {
    driver: &'a Driver,
    organization: OrganizationId,
    origin: Option<Arc<Origin>>,
    /// Whether it is refused if the organization has published too much.
    is_refusable: bool,
    now: Timestamp,
    reads: BTreeMap<EntityKey, Read>,
    /// What is written, in order.
    writes: Vec<Write>,
    said: Vec<(EventType, Document)>,
}

/// What a committed transaction has come to.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// What it has published; nothing while the event system is off.
    pub published: Vec<Published>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        driver: &'a Driver,
        organization: OrganizationId,
        origin: Option<Arc<Origin>>,
        is_refusable: bool,
    ) -> Self {
        Self {
            driver,
            organization,
            origin,
            is_refusable,
            now: driver.time.now(),
            reads: BTreeMap::new(),
            writes: Vec::new(),
            said: Vec::new(),
        }
    }

    /// The time as of which it is made, storage's: what it writes is written then.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Whose entities they are.
    #[must_use]
    pub const fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// Reads an entity, with what this transaction has written.
    ///
    /// # Errors
    /// [`EntityError::UnknownKind`], or when storage fails.
    pub async fn get(
        &mut self,
        kind: &str,
        id: &EntityId,
    ) -> Result<Option<Arc<Entity>>, EntityError> {
        let key = EntityKey::new(self.kind(kind)?.name().clone(), id.clone());
        self.read(&key).await
    }

    /// Writes a new entity; of a kind whose ids are chosen, under this id.
    ///
    /// # Errors
    /// [`EntityError::Invalid`]; [`EntityError::Exists`]; when storage fails.
    ///
    /// # Panics
    /// If the kind's ids are chosen and there is none, or the other way round.
    pub async fn create(
        &mut self,
        kind: &str,
        id: Option<EntityId>,
        document: Document,
    ) -> Result<Arc<Entity>, EntityError> {
        let kind = self.kind(kind)?;
        assert_eq!(
            kind.has_chosen_ids(),
            id.is_some(),
            "ids of {} are chosen or made",
            kind.name()
        );
        let is_chosen = id.is_some();
        let ids = &self.driver.ids;
        let id = id.unwrap_or_else(|| ids.entity(kind.id_prefix()));
        let key = EntityKey::new(kind.name().clone(), id);
        if !is_chosen {
            // Nobody has it.
            self.reads.insert(key.clone(), Read { entity: None, with_references: false });
        }
        if self.read(&key).await?.is_some() {
            return Err(EntityError::Exists(key));
        }
        let document = self.completed(&kind, None, document).await?;
        let entity = Arc::new(Entity {
            key,
            revision: 1,
            references: References::default(),
            created_at: self.now,
            updated_at: self.now,
            due_at: kind.rules().due_at(&document, self.now),
            document,
        });
        self.write(&kind, None, Some(Arc::clone(&entity)), None);
        Ok(entity)
    }

    /// Writes an entity that was read; `None`, and nothing is written, if the document says the same.
    ///
    /// # Errors
    /// [`EntityError::Invalid`], or when storage fails.
    pub async fn update(
        &mut self,
        before: &Arc<Entity>,
        document: Document,
    ) -> Result<Option<Arc<Entity>>, EntityError> {
        let kind = self.kind(before.kind().as_str())?;
        let document = self.completed(&kind, Some(before), document).await?;
        let due_at = kind.rules().due_at(&document, self.now);
        if document == before.document && due_at == before.due_at {
            return Ok(None);
        }
        let entity = Arc::new(Entity {
            key: before.key.clone(),
            revision: before.revision + 1,
            references: before.references,
            created_at: before.created_at,
            // Whatever the clock does, later is not earlier.
            updated_at: self.now.max(before.updated_at),
            due_at,
            document,
        });
        self.write(&kind, Some(before), Some(Arc::clone(&entity)), None);
        Ok(Some(entity))
    }

    /// Deletes an entity that was read. Those that refer to it are updated first, if they may be.
    ///
    /// # Errors
    /// [`EntityError::InUse`], or when storage fails.
    pub async fn delete(&mut self, entity: &Arc<Entity>) -> Result<(), EntityError> {
        let kind = self.kind(entity.kind().as_str())?;
        let kinds = self.driver.kinds.clone();
        for (other, reference) in kinds.referring_to(kind.name()) {
            let referring = self.referring(entity, other, &reference.field).await?;
            if referring.is_empty() {
                continue;
            }
            match reference.on_delete {
                OnDelete::Restrict => {
                    let (key, by) = (entity.key.clone(), other.name().clone());
                    return Err(EntityError::InUse { key, by });
                }
                OnDelete::Clear => {
                    for one in referring {
                        let mut document = one.document.clone();
                        document.insert(reference.field.to_string(), Value::Null);
                        self.update(&one, document).await?;
                    }
                }
            }
        }
        // As it was at the end: nobody refers to it any more.
        let shown = Arc::new(self.representation(entity).await?);
        self.write(&kind, Some(entity), None, Some(shown));
        Ok(())
    }

    /// How many entities of a kind the organization has, counted up to `at_most`. Unlike what is
    /// [read](Self::get), it need not be so any more when this is committed.
    ///
    /// # Errors
    /// [`EntityError::UnknownKind`], or when storage fails.
    pub async fn count(&self, kind: &str, at_most: usize) -> Result<usize, EntityError> {
        let mut query = EntityQuery {
            kind: self.kind(kind)?.name().clone(),
            having: Vec::new(),
            by: None,
            is_descending: false,
            after: None,
            limit: at_most,
        };
        let mut count = 0;
        loop {
            let page = self.driver.storage.entities(self.organization, &query).await?;
            count += page.items.len();
            query.after = page.next;
            query.limit = at_most.saturating_sub(count);
            if query.after.is_none() || query.limit == 0 {
                return Ok(count);
            }
        }
    }

    /// Says on whose behalf all of it is: `triggered_by` in the events' metadata.
    pub fn on_behalf_of(&mut self, whom: &str) {
        if let Some(origin) = &mut self.origin {
            Arc::make_mut(origin).triggered_by = whom.to_owned();
        }
    }

    /// Publishes an event of the organization, after those that say what was written.
    pub fn publish(&mut self, event_type: EventType, data: Document) {
        self.said.push((event_type, data));
    }

    /// Writes and publishes all of it, or nothing.
    ///
    /// # Errors
    /// [`EntityError::Contended`] if something that was read has changed meanwhile; what publishing refuses;
    /// [`EntityError::Storage`], after which it may have been committed.
    ///
    /// # Cancellation
    /// A dropped call may or may not have committed.
    pub async fn commit(mut self) -> Result<Outcome, EntityError> {
        let events = if self.driver.is_enabled { self.events().await? } else { Vec::new() };
        let write = Arc::new(steps::of(self.organization, &self.reads, &self.writes));
        if write.steps.is_empty() && events.is_empty() {
            return Ok(Outcome::default());
        }
        let is_scheduled = self.writes.iter().any(Write::is_scheduled);
        let driver = self.driver;
        let committed = if events.is_empty() {
            let results = driver.storage.commit(vec![Unit::write(Arc::clone(&write))]).await;
            let first = |results: Vec<_>| results.into_iter().next().expect("one unit, one result");
            results.map_err(EntityError::from).and_then(|results| {
                first(results).map_err(|refused| Declined::from(refused).into())
            })
        } else {
            let _room = driver.room.acquire().await.expect("it is never closed");
            let manner = Manner {
                counts: if self.is_refusable { Counts::Refusing } else { Counts::Counting },
                write: Some(&write),
                at: Some(self.now),
                ..Manner::PLAIN
            };
            let committed =
                publish::seal_and_publish(driver, self.organization, &events, manner).await;
            committed.map_err(EntityError::from)
        };
        self.remember(&write, committed.is_ok());
        let committed = committed?;
        if is_scheduled {
            driver.due.notify_one();
        }
        Ok(Outcome { published: committed.events.iter().map(Published::from).collect() })
    }

    /// Takes an entity for read, which is found out when this is committed.
    pub(super) fn guess(&mut self, entity: Arc<Entity>) {
        let key = entity.key.clone();
        self.reads.insert(key, Read { entity: Some(entity), with_references: false });
    }

    /// Notes what stands now, or that it is not known.
    fn remember(&self, write: &EntityWrite, is_committed: bool) {
        let (recent, organization) = (&self.driver.recent, self.organization);
        for EntityStep { key, action, .. } in &write.steps {
            let written = || self.writes.iter().find(|write| write.key == *key)?.after.as_ref();
            match action {
                EntityAction::Check => {}
                EntityAction::Put(put) if is_committed => {
                    let entity = written().expect("what is put was written");
                    recent.put(organization, entity, put.document.len());
                }
                EntityAction::Put(_) | EntityAction::Delete | EntityAction::Refer(_) => {
                    recent.forget(organization, key);
                }
            }
        }
    }

    /// An entity as it is read, with those that are shown in it.
    pub(super) async fn show(&mut self, entity: Arc<Entity>) -> Result<Shown, EntityError> {
        let representation = Arc::new(self.representation(&entity).await?);
        let is_it =
            |write: &&mut Write| write.after.as_ref().is_some_and(|it| Arc::ptr_eq(it, &entity));
        if let Some(write) = self.writes.iter_mut().find(is_it) {
            write.shown = Some(Arc::clone(&representation));
        }
        Ok(Shown { entity, representation })
    }

    /// What is shown of what a write has made.
    async fn shown(&mut self, index: usize) -> Result<Arc<Representation>, EntityError> {
        let write = &self.writes[index];
        match (&write.shown, &write.after) {
            (Some(shown), _) => Ok(Arc::clone(shown)),
            (None, Some(after)) => {
                let after = Arc::clone(after);
                Ok(Arc::new(self.representation(&after).await?))
            }
            (None, None) => Ok(Arc::new(Document::new().into())),
        }
    }

    async fn representation(&mut self, entity: &Entity) -> Result<Representation, EntityError> {
        let kind = self.kind(entity.kind().as_str())?;
        let mut embedded = Vec::new();
        for shown in kind.embedded() {
            let other = self.kind(shown.kind.as_str())?;
            let referring = self.referring(entity, &other, &shown.by).await?;
            embedded.push(shown.show(referring.iter().map(|one| &**one)));
        }
        Ok(entity.representation(&kind, embedded, self.now).into())
    }

    fn kind(&self, name: &str) -> Result<Arc<EntityKind>, EntityError> {
        self.driver.kind(name)
    }

    async fn read(&mut self, key: &EntityKey) -> Result<Option<Arc<Entity>>, EntityError> {
        if let Some(written) = self.writes.iter().rev().find(|write| write.key == *key) {
            return Ok(written.after.clone());
        }
        if let Some(read) = self.reads.get(key) {
            return Ok(read.entity.clone());
        }
        let stored = self.driver.storage.entity(self.organization, key).await?;
        let entity = stored.map(Entity::read).transpose()?.map(Arc::new);
        let read = Read { entity: entity.clone(), with_references: false };
        self.reads.insert(key.clone(), read);
        Ok(entity)
    }

    /// Those that refer to an entity, by id, with what this transaction has written.
    async fn referring(
        &mut self,
        entity: &Entity,
        kind: &EntityKind,
        field: &str,
    ) -> Result<Vec<Arc<Entity>>, EntityError> {
        let mut found = BTreeMap::new();
        if let Some(read) = self.reads.get_mut(&entity.key)
            && let Some(stands) = &read.entity
        {
            read.with_references = true;
            if stands.references.count > 0 {
                let (name, values) = (kind.name(), [EntityKind::reference_value(entity.id())]);
                let storage = &self.driver.storage;
                let stored = storage.referring(self.organization, name, field, &values).await?;
                for stored in stored.into_iter().flatten() {
                    found.insert(stored.key.id.clone(), Arc::new(Entity::read(stored)?));
                }
            }
        }
        for write in self.writes.iter().filter(|write| write.key.kind == *kind.name()) {
            match write
                .after
                .as_ref()
                .filter(|after| after.reference(field) == Some(entity.id().as_str()))
            {
                Some(after) => _ = found.insert(write.key.id.clone(), Arc::clone(after)),
                None => _ = found.remove(&write.key.id),
            }
        }
        Ok(found.into_values().collect())
    }

    /// A document as it is to be kept, which is as its kind asks for.
    async fn completed(
        &mut self,
        kind: &Arc<EntityKind>,
        before: Option<&Entity>,
        document: Document,
    ) -> Result<Document, EntityError> {
        let mut document = kind.checked(kind.completed(document)).map_err(EntityError::Invalid)?;
        let rules = Arc::clone(kind);
        rules.rules().complete(self, before, &mut document).await?;
        let mut faults = Vec::new();
        for reference in kind.references() {
            let field = &*reference.field;
            let named = document.get(field).and_then(Value::as_str);
            let stood = before.and_then(|before| before.reference(field));
            // What is referred to stays while it is.
            let Some(named) = named.filter(|named| stood != Some(named)) else { continue };
            if !self.exists(&reference.to, named).await? {
                faults.push(Fault::member(
                    "",
                    field,
                    format!("there is no such {}", reference.to.noun()),
                ));
            }
        }
        if faults.is_empty() { Ok(document) } else { Err(EntityError::Invalid(faults)) }
    }

    /// Whether there is such an entity; that it still is when this is committed goes with the reference.
    async fn exists(&self, kind: &KindName, id: &str) -> Result<bool, EntityError> {
        let Ok(id) = id.parse() else { return Ok(false) };
        let key = EntityKey::new(kind.clone(), id);
        if let Some(written) = self.writes.iter().find(|write| write.key == key) {
            return Ok(written.after.is_some());
        }
        let storage = &self.driver.storage;
        Ok(storage.entity(self.organization, &key).await?.is_some())
    }

    /// Adds a write. Of several of one entity the first says what was before, and the last what is.
    fn write(
        &mut self,
        kind: &Arc<EntityKind>,
        before: Option<&Arc<Entity>>,
        after: Option<Arc<Entity>>,
        shown: Option<Arc<Representation>>,
    ) {
        let key = before.or(after.as_ref()).expect("one of the two is there").key.clone();
        if let Some(write) = self.writes.iter_mut().find(|write| write.key == key) {
            let revision = write.before.as_ref().map_or(0, |before| before.revision) + 1;
            write.after = after.map(|after| Arc::new(Entity { revision, ..(*after).clone() }));
            // A deletion says what was there before all of it.
            write.shown = shown;
            return;
        }
        let (kind, before) = (Arc::clone(kind), before.cloned());
        self.writes.push(Write { kind, key, before, after, shown });
    }

    /// Whether it writes this entity.
    pub(super) fn writes(&self, key: &EntityKey) -> bool {
        self.writes.iter().any(|write| write.key == *key)
    }

    /// What is published of what is written, and what else there is to publish.
    async fn events(&mut self) -> Result<Vec<NewEvent>, EntityError> {
        let mut events = Vec::new();
        for index in 0..self.writes.len() {
            let write = &self.writes[index];
            let (kind, before, after) =
                (Arc::clone(&write.kind), write.before.clone(), write.after.clone());
            if let Some(said) = kind.rules().says(before.as_deref(), after.as_deref()) {
                for Said { event_type, data } in said {
                    events.push(self.event(event_type, raw(&data)));
                }
                continue;
            }
            let (action, changes) = match (&before, &after) {
                (None, Some(_)) => ("created", None),
                (Some(before), Some(after)) => {
                    let changes = changes(&before.document, &after.document);
                    if changes.is_empty() {
                        // It is only due at another time.
                        continue;
                    }
                    ("updated", Some(changes))
                }
                (Some(_), None) => ("deleted", None),
                (None, None) => continue,
            };
            let data = self.shown(index).await?.json().to_owned();
            let mut event = self.event(kind.name().event_type(action), data);
            event.changes = changes.as_ref().map(raw);
            events.push(event);
        }
        for (event_type, data) in std::mem::take(&mut self.said) {
            events.push(self.event(event_type, raw(&data)));
        }
        Ok(events)
    }

    fn event(&self, event_type: EventType, data: Box<RawValue>) -> NewEvent {
        let mut event = NewEvent::from_raw(self.organization, event_type, data);
        event.origin.clone_from(&self.origin);
        event
    }
}

fn raw(document: &Document) -> Box<RawValue> {
    serde_json::value::to_raw_value(document).expect("a document is JSON")
}
