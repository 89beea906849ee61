//! What becomes of an organization as a whole.

use std::sync::Arc;

use super::{Esl, Standing, usage};
use crate::{Organization, OrganizationId, Plan, storage::StorageError};

impl Esl {
    /// Makes an organization.
    ///
    /// # Errors
    /// [`Conflict`](crate::storage::StorageErrorKind::Conflict) if its id or name is taken.
    pub async fn create_organization(
        &self,
        organization: Organization,
    ) -> Result<(), StorageError> {
        self.storage().create_organization(organization, &self.actor).await
    }

    /// What an organization may use, and what it has used of its hour; `None` if there is no such
    /// organization, or there is no limit to what it may use.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub async fn standing(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<Standing>, StorageError> {
        usage::standing(&self.engine.driver, organization).await
    }

    /// Gives an organization another plan, or none. It holds for what is published, subscribed and tried
    /// again from now on.
    ///
    /// # Errors
    /// [`NotFound`](crate::storage::StorageErrorKind::NotFound).
    pub async fn set_plan(
        &self,
        organization: OrganizationId,
        plan: Option<Plan>,
    ) -> Result<(), StorageError> {
        let (driver, by) = (Arc::clone(&self.engine.driver), Arc::clone(&self.actor));
        self.to_its_end(async move {
            let set = driver.storage.set_plan(organization, plan, &by).await;
            set.inspect_err(|error| driver.follow_failure(organization, error))?;
            driver.routes.forget(organization);
            driver.usages.forget(organization);
            driver.update(|lanes| lanes.take_again(organization));
            Ok(())
        })
        .await
    }

    /// Deletes an organization and all that is its own: nothing of it is found, accepted or sent any
    /// more. Its rows are removed bit by bit.
    ///
    /// # Errors
    /// [`NotFound`](crate::storage::StorageErrorKind::NotFound).
    ///
    /// # Cancellation
    /// A call that has begun goes on to its end.
    pub async fn delete_organization(&self, id: OrganizationId) -> Result<(), StorageError> {
        let (driver, by) = (Arc::clone(&self.engine.driver), Arc::clone(&self.actor));
        self.to_its_end(async move {
            driver.storage.delete_organization(id, &by).await?;
            driver.routes.forget(id);
            driver.update(|lanes| {
                lanes.let_go(id);
                lanes.take_again(id);
            });
            Ok(())
        })
        .await
    }
}
