//! Subscriptions, as an embedder makes and changes them. A call that has begun goes on to its end, even
//! if it is dropped, so that what is in memory never stays behind storage.

use std::{sync::Arc, time::Duration};

use super::Esl;
use crate::{
    NewSubscription, OrganizationId, Secret, SecretChange, Subscription, SubscriptionId,
    SubscriptionUpdate,
    storage::{StorageError, StorageErrorKind},
};

impl Esl {
    /// Subscribes. The answer holds the secret, which was generated if none was given.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound) if there is no such organization;
    /// [`OverLimit`](StorageErrorKind::OverLimit) if it has as many subscriptions as its plan allows.
    pub async fn subscribe(
        &self,
        organization: OrganizationId,
        new: NewSubscription,
    ) -> Result<Subscription, StorageError> {
        let (driver, by) = (Arc::clone(&self.engine.driver), Arc::clone(&self.actor));
        let secret = match new.secret.clone() {
            Some(secret) => secret,
            None => generate_secret()?,
        };
        let id = driver.ids.subscription();
        let subscription = Subscription::new(id, organization, new, secret, self.now());
        self.to_its_end(async move {
            let created =
                driver.storage.create_subscription(subscription, &driver.tiers, &by).await?;
            driver.routes.forget(organization);
            Ok(created)
        })
        .await
    }

    /// Changes a subscription. What is sent from now on follows the change.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound).
    pub async fn update_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        update: SubscriptionUpdate,
    ) -> Result<Subscription, StorageError> {
        let (driver, by) = (Arc::clone(&self.engine.driver), Arc::clone(&self.actor));
        self.to_its_end(async move {
            let has_new_events = update.events.is_some();
            let updated = driver.storage.update_subscription(organization, id, update, &by).await;
            let updated =
                updated.inspect_err(|error| driver.follow_failure(organization, error))?;
            if has_new_events {
                driver.routes.forget(organization);
            }
            if updated.expiring.is_some() {
                driver.chores.notify_one();
            }
            driver.update(|lanes| lanes.changed(&updated));
            Ok(updated)
        })
        .await
    }

    /// Begins a rotation of a subscription's secret: for the grace, deliveries are signed with the old
    /// one and the new. A generated secret is taken where none is given; the answer holds it.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound); [`Conflict`](StorageErrorKind::Conflict) while the
    /// grace of an earlier rotation runs.
    pub async fn rotate_secret(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        to: Option<Secret>,
        grace: Duration,
    ) -> Result<Subscription, StorageError> {
        let to = match to {
            Some(secret) => secret,
            None => generate_secret()?,
        };
        let secret = Some(SecretChange::Rotate { to, grace });
        let update = SubscriptionUpdate { secret, ..SubscriptionUpdate::default() };
        self.update_subscription(organization, id, update).await
    }

    /// Deletes a subscription. Its open deliveries are cancelled.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound).
    pub async fn delete_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Result<(), StorageError> {
        let (driver, by) = (Arc::clone(&self.engine.driver), Arc::clone(&self.actor));
        self.to_its_end(async move {
            let lane = driver.storage.delete_subscription(organization, id, &by).await;
            let lane = lane.inspect_err(|error| driver.follow_failure(organization, error))?;
            driver.routes.forget(organization);
            driver.update(|lanes| lanes.remove(lane));
            Ok(())
        })
        .await
    }
}

fn generate_secret() -> Result<Secret, StorageError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        StorageError::new(StorageErrorKind::Unavailable, "generate a secret")
            .with_source(error.to_string())
    })?;
    Ok(Secret::from_random(&bytes))
}
