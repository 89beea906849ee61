//! Entities that this engine has written of late: whoever writes one again need not read it first.
//!
//! Only a guess. Where another engine has written since, the unit is refused, and what is there is read.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Entity, EntityKey, OrganizationId};

/// What was written last, and before.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: Entities,
    old: Entities,
}

type Entities = HashMap<(OrganizationId, EntityKey), Arc<Entity>>;

/// A generation has so many, of which none is large.
const COUNT_MAX: usize = 1024;
const BYTES_MAX: usize = 4096;

impl Recent {
    pub(super) fn get(&self, organization: OrganizationId, key: &EntityKey) -> Option<Arc<Entity>> {
        let generations = self.lock();
        let place = (organization, key.clone());
        generations.young.get(&place).or_else(|| generations.old.get(&place)).cloned()
    }

    /// Notes what was committed.
    pub(super) fn put(&self, organization: OrganizationId, entity: &Arc<Entity>, bytes: usize) {
        if bytes > BYTES_MAX {
            return self.forget(organization, &entity.key);
        }
        let mut generations = self.lock();
        let place = (organization, entity.key.clone());
        generations.young.insert(place, Arc::clone(entity));
        if generations.young.len() >= COUNT_MAX {
            generations.old = mem::take(&mut generations.young);
        }
    }

    pub(super) fn forget(&self, organization: OrganizationId, key: &EntityKey) {
        let mut generations = self.lock();
        let place = (organization, key.clone());
        generations.young.remove(&place);
        generations.old.remove(&place);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        // Whatever is in it is a guess.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
