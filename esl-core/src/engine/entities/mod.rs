//! Entities, written with the events that say so.

mod due;
mod recent;
mod steps;
mod transaction;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, MutexGuard};

pub use self::transaction::{Outcome, Transaction};
pub(super) use self::{due::run, recent::Recent};
use super::{Esl, driver::Driver, publish::Declined};
use crate::{
    Document, Entity, EntityError, EntityId, EntityKey, EntityKind, Kinds, OrganizationId, Origin,
    Representation, entity,
    storage::{EntityPage, EntityPosition, EntityQuery},
};

/// The entities of one kind.
///
/// Each write is one unit with its event: `created`, `updated` or `deleted`, after the kind's name. An update
/// that changes nothing writes nothing, and publishes nothing.
///
/// ```
/// use esl_core::{Esl, EntityError, OrganizationId};
/// use serde_json::json;
///
/// # async fn example(esl: Esl, acme: OrganizationId) -> Result<(), EntityError> {
/// let invoices = esl.entities("invoice")?;
/// let written = invoices.create(acme, json!({ "number": "2026-1", "paid": false })).await?;
/// let id = written.shown.entity.id();
/// invoices
///     .update(acme, id, |_, invoice| {
///         invoice.insert("paid".into(), true.into());
///         Ok::<_, EntityError>(())
///     })
///     .await?; // invoice.updated, {"paid": {"old": false, "new": true}}
/// invoices.delete(acme, id, |_| Ok::<_, EntityError>(())).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Entities {
    esl: Esl,
    kind: Arc<EntityKind>,
    origin: Option<Arc<Origin>>,
}

/// An entity as it is read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Shown {
    /// What is kept.
    pub entity: Arc<Entity>,
    /// What is shown of it.
    pub representation: Arc<Representation>,
}

impl Shown {
    /// Names what is shown: another representation has another tag, also where an id was given anew, or where
    /// what the kind's rules add has changed by itself.
    #[must_use]
    pub fn tag(&self) -> String {
        let json = self.representation.json().get();
        // Half of it is as good for this, and shorter.
        hex::encode(&Sha256::digest(json)[..16])
    }
}

/// What a write has come to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Written {
    /// The entity as it is now.
    pub shown: Shown,
    /// Whether it was not there before.
    pub is_new: bool,
    /// Whether anything was written.
    pub has_changed: bool,
    /// What was published.
    pub outcome: Outcome,
}

/// Some entities of a list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ShownPage {
    /// The entities.
    pub items: Vec<Shown>,
    /// Where to go on, if there may be more.
    pub next: Option<EntityPosition>,
}

impl Esl {
    /// The entities of a declared kind.
    ///
    /// # Errors
    /// [`EntityError::UnknownKind`].
    pub fn entities(&self, kind: &str) -> Result<Entities, EntityError> {
        Ok(Entities { esl: self.clone(), kind: self.engine.driver.kind(kind)?, origin: None })
    }

    /// The kinds that are declared.
    #[must_use]
    pub fn kinds(&self) -> &Kinds {
        &self.engine.driver.kinds
    }

    /// Begins to read and write an organization's entities together. What is published with it comes from
    /// `origin`.
    #[must_use]
    pub fn transaction(
        &self,
        organization: OrganizationId,
        origin: Option<Arc<Origin>>,
    ) -> Transaction<'_> {
        Transaction::new(&self.engine.driver, organization, origin, true)
    }
}

impl Driver {
    fn kind(&self, name: &str) -> Result<Arc<EntityKind>, EntityError> {
        let kind = self.kinds.get(name).cloned();
        kind.ok_or_else(|| EntityError::UnknownKind(name.to_owned()))
    }
}

impl From<Declined> for EntityError {
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::Publish(error) => Self::Publish(error),
            Declined::Stale(key) => Self::Contended(key),
            Declined::TooManyReferences(key) => Self::TooManyReferences(key),
        }
    }
}

impl Entities {
    /// What is published comes from there.
    #[must_use]
    pub fn from(mut self, origin: Arc<Origin>) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Their kind.
    #[must_use]
    pub fn kind(&self) -> &EntityKind {
        &self.kind
    }

    /// Writes a new entity.
    ///
    /// # Errors
    /// See [`EntityError`]; after [`EntityError::Storage`] it may have been written.
    ///
    /// # Cancellation
    /// A dropped call may or may not have written it.
    pub async fn create(
        &self,
        organization: OrganizationId,
        document: impl Into<serde_json::Value>,
    ) -> Result<Written, EntityError> {
        let serde_json::Value::Object(document) = document.into() else {
            return Err(EntityError::invalid("", "expected an object"));
        };
        let mut tries = Tries::default();
        loop {
            let mut transaction = self.begin(organization);
            let document = self.writable(document.clone(), &Document::new())?;
            let entity = transaction.create(self.name(), None, document).await?;
            match written(transaction, &entity, true).await {
                Err(EntityError::Contended(key)) => tries.again(&self.esl, key).await?,
                done => return done,
            }
        }
    }

    /// Writes an entity that is there. `change` is given what is shown of it, and changes that; where
    /// others have written it meanwhile, it is called once more with what they have made of it.
    ///
    /// # Errors
    /// What `change` says; see [`EntityError`]. After [`EntityError::Storage`] it may have been written.
    ///
    /// # Cancellation
    /// A dropped call may or may not have written it.
    pub async fn update<E: From<EntityError>>(
        &self,
        organization: OrganizationId,
        id: &EntityId,
        change: impl Fn(&Shown, &mut Document) -> Result<(), E> + Send + Sync,
    ) -> Result<Written, E> {
        let key = self.key(id);
        self.write(organization, id, |shown, representation| match shown {
            Some(shown) => change(shown, representation),
            None => Err(EntityError::NotFound(key.clone()).into()),
        })
        .await
    }

    /// Writes an entity under an id that its writer has chosen, whether it is there or not. `change` is as
    /// for [`update`](Self::update); if it is not there, it begins with nothing.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    ///
    /// # Panics
    /// If it is not there, and the ids of the kind are not chosen.
    pub async fn put<E: From<EntityError>>(
        &self,
        organization: OrganizationId,
        id: &EntityId,
        change: impl Fn(Option<&Shown>, &mut Document) -> Result<(), E> + Send + Sync,
    ) -> Result<Written, E> {
        self.write(organization, id, change).await
    }

    /// Deletes an entity, if `check` allows it of what is shown.
    ///
    /// # Errors
    /// What `check` says; [`EntityError::NotFound`]; [`EntityError::InUse`]; see [`EntityError`].
    ///
    /// # Cancellation
    /// A dropped call may or may not have deleted it.
    pub async fn delete<E: From<EntityError>>(
        &self,
        organization: OrganizationId,
        id: &EntityId,
        check: impl Fn(&Shown) -> Result<(), E> + Send + Sync,
    ) -> Result<Outcome, E> {
        let _turn = self.esl.engine.driver.writers.turn(&self.key(id)).await;
        let mut tries = Tries::default();
        loop {
            let mut transaction = self.begin(organization);
            let entity = transaction.get(self.name(), id).await?;
            let entity = entity.ok_or_else(|| EntityError::NotFound(self.key(id)))?;
            let shown = transaction.show(entity).await?;
            check(&shown)?;
            transaction.delete(&shown.entity).await?;
            match transaction.commit().await {
                Err(EntityError::Contended(key)) => tries.again(&self.esl, key).await?,
                done => return Ok(done?),
            }
        }
    }

    /// Reads an entity.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn get(
        &self,
        organization: OrganizationId,
        id: &EntityId,
    ) -> Result<Option<Shown>, EntityError> {
        let storage = self.esl.storage();
        let Some(stored) = storage.entity(organization, &self.key(id)).await? else {
            return Ok(None);
        };
        let page = EntityPage { items: vec![stored], next: None };
        Ok(self.shown(organization, page).await?.items.pop())
    }

    /// Reads those that a query asks for.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn list(
        &self,
        organization: OrganizationId,
        query: &EntityQuery,
    ) -> Result<ShownPage, EntityError> {
        let page = self.esl.storage().entities(organization, query).await?;
        self.shown(organization, page).await
    }

    fn begin(&self, organization: OrganizationId) -> Transaction<'_> {
        Transaction::new(&self.esl.engine.driver, organization, self.origin.clone(), true)
    }

    fn name(&self) -> &str {
        self.kind.name().as_str()
    }

    fn key(&self, id: &EntityId) -> EntityKey {
        EntityKey::new(self.kind.name().clone(), id.clone())
    }

    fn writable(&self, written: Document, shown: &Document) -> Result<Document, EntityError> {
        let document = self.kind.writable(written, shown).map_err(EntityError::Invalid)?;
        entity::check(&document)?;
        Ok(document)
    }

    async fn write<E: From<EntityError>>(
        &self,
        organization: OrganizationId,
        id: &EntityId,
        change: impl Fn(Option<&Shown>, &mut Document) -> Result<(), E> + Send + Sync,
    ) -> Result<Written, E> {
        // Those who write one entity do not get into each other's way; what comes from elsewhere may.
        let _turn = self.esl.engine.driver.writers.turn(&self.key(id)).await;
        let driver = &self.esl.engine.driver;
        let key = self.key(id);
        // An id that is given anew begins at the first revision again, and could be taken for what it was.
        if !self.kind.has_chosen_ids()
            && let Some(recent) = driver.recent.get(organization, &key)
        {
            let mut transaction = self.begin(organization);
            transaction.guess(recent);
            match self.try_write(transaction, id, &change).await {
                Ok(written) if written.has_changed => return Ok(written),
                Err(Failed::Committing(error)) => return Err(error),
                // What comes of a guess without a commit is no answer.
                Ok(_) | Err(Failed::Contended(_) | Failed::Reading(_)) => {
                    driver.recent.forget(organization, &key);
                }
            }
        }
        let mut tries = Tries::default();
        loop {
            match self.try_write(self.begin(organization), id, &change).await {
                Ok(written) => return Ok(written),
                Err(Failed::Contended(key)) => tries.again(&self.esl, key).await?,
                Err(Failed::Reading(error) | Failed::Committing(error)) => return Err(error),
            }
        }
    }

    async fn try_write<E: From<EntityError>>(
        &self,
        mut transaction: Transaction<'_>,
        id: &EntityId,
        change: &(impl Fn(Option<&Shown>, &mut Document) -> Result<(), E> + Send + Sync),
    ) -> Result<Written, Failed<E>> {
        let before = match transaction.get(self.name(), id).await? {
            Some(entity) => Some(transaction.show(entity).await?),
            None => None,
        };
        let nothing = Document::new();
        let stood = before.as_ref().map_or(&nothing, |shown| &**shown.representation);
        let mut representation = stood.clone();
        change(before.as_ref(), &mut representation).map_err(Failed::Reading)?;
        let document = self.writable(representation, stood)?;
        let is_new = before.is_none();
        let entity = match &before {
            Some(shown) => transaction.update(&shown.entity, document).await?,
            None => Some(transaction.create(self.name(), Some(id.clone()), document).await?),
        };
        match entity {
            Some(entity) => Ok(written(transaction, &entity, is_new).await?),
            None => {
                let shown = before.expect("what is not there is written");
                let outcome = Outcome::default();
                Ok(Written { shown, is_new: false, has_changed: false, outcome })
            }
        }
    }

    /// What was read, with those that are shown in it.
    async fn shown(
        &self,
        organization: OrganizationId,
        page: EntityPage,
    ) -> Result<ShownPage, EntityError> {
        let driver = &self.esl.engine.driver;
        let mut items = Vec::with_capacity(page.items.len());
        for stored in page.items {
            items.push((Arc::new(Entity::read(stored)?), Vec::new()));
        }
        for embedded in self.kind.embedded() {
            let mut values = Vec::new();
            for (entity, _) in &items {
                if entity.references.count > 0 {
                    values.push(EntityKind::reference_value(entity.id()));
                }
            }
            let found = if values.is_empty() {
                Vec::new()
            } else {
                let (kind, by) = (&embedded.kind, &*embedded.by);
                driver.storage.referring(organization, kind, by, &values).await?
            };
            let mut found = found.into_iter();
            for (entity, shown) in &mut items {
                let referring = if entity.references.count > 0 { found.next() } else { None }
                    .unwrap_or_default();
                let referring: Vec<_> =
                    referring.into_iter().map(Entity::read).collect::<Result<_, _>>()?;
                shown.push(embedded.show(referring.iter()));
            }
        }
        let now = driver.time.now();
        let items = items.into_iter().map(|(entity, embedded)| {
            let representation = entity.representation(&self.kind, embedded, now);
            Shown { entity, representation: Arc::new(representation.into()) }
        });
        Ok(ShownPage { items: items.collect(), next: page.next })
    }
}

/// Commits what was written of one entity.
async fn written(
    mut transaction: Transaction<'_>,
    entity: &Arc<Entity>,
    is_new: bool,
) -> Result<Written, EntityError> {
    let shown = transaction.show(Arc::clone(entity)).await?;
    let outcome = transaction.commit().await?;
    Ok(Written { shown, is_new, has_changed: true, outcome })
}

/// Why a try to write failed.
enum Failed<E> {
    /// What was read has changed.
    Contended(EntityKey),
    /// For what was read, or what became of it.
    Reading(E),
    /// When it was committed, or was to be: it may have been.
    Committing(E),
}

impl<E: From<EntityError>> From<EntityError> for Failed<E> {
    fn from(error: EntityError) -> Self {
        match error {
            EntityError::Contended(key) => Self::Contended(key),
            EntityError::Publish(_) | EntityError::Storage(_) => Self::Committing(error.into()),
            _ => Self::Reading(error.into()),
        }
    }
}

/// Who writes an entity waits for those of this process that do before.
#[derive(Debug)]
pub(crate) struct Writers([Mutex<()>; 64]);

impl Default for Writers {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Writers {
    async fn turn(&self, key: &EntityKey) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = hasher.finish() % self.0.len() as u64;
        self.0[usize::try_from(index).expect("there are few")].lock().await
    }
}

/// How often what was read had changed when it was to be written.
#[derive(Debug, Default)]
struct Tries(u32);

impl Tries {
    /// Waits a little, longer and longer, or gives up.
    async fn again(&mut self, esl: &Esl, key: EntityKey) -> Result<(), EntityError> {
        self.0 += 1;
        if self.0 > TRIES_MAX {
            return Err(EntityError::Contended(key));
        }
        let driver = &esl.engine.driver;
        let most = 1_u64 << self.0.min(6);
        let wait = Duration::from_millis(driver.chance.bits() % most);
        driver.clock.sleep_until(driver.clock.monotonic() + wait).await;
        Ok(())
    }
}

/// With waits of up to 64 ms in between, that is some three seconds.
const TRIES_MAX: u32 = 100;
