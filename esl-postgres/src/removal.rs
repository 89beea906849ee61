//! Letting go of what is old, of what must not be kept, and of whole organizations.

use std::time::Duration;

use async_trait::async_trait;
use esl_core::{
    Actor, BlobKey, EventId, InstallationId, LinkKey, OrganizationId,
    storage::{Erased, Removal, Removed, StorageError, Worker},
};

use crate::PostgresStorage;

#[async_trait]
impl Removal for PostgresStorage {
    async fn remove_old(
        &self,
        _worker: &Worker,
        _age: Option<Duration>,
        _limit: usize,
    ) -> Result<Removed, StorageError> {
        unimplemented!("what is old is removed")
    }

    async fn erase_event(
        &self,
        _organization: OrganizationId,
        _id: EventId,
    ) -> Result<Erased, StorageError> {
        unimplemented!("an event is erased")
    }

    async fn organizations_of_event(
        &self,
        _id: EventId,
    ) -> Result<Vec<OrganizationId>, StorageError> {
        unimplemented!("organizations of an event are found")
    }

    async fn unnamed_blobs(&self, _keys: Vec<BlobKey>) -> Result<Vec<BlobKey>, StorageError> {
        unimplemented!("unnamed blobs are found")
    }

    async fn installation(&self, _fresh: InstallationId) -> Result<InstallationId, StorageError> {
        unimplemented!("the installation is read")
    }

    async fn link_keys(&self, _fresh: LinkKey) -> Result<Vec<LinkKey>, StorageError> {
        unimplemented!("keys of links are read")
    }

    async fn delete_organization(
        &self,
        _id: OrganizationId,
        _by: &Actor,
    ) -> Result<(), StorageError> {
        unimplemented!("an organization is deleted")
    }
}
