//! What was published before: sent again, shown, or erased.

use std::sync::Arc;

use super::{Esl, blobs, delete_erased, replays};
use crate::{
    BlobStore, Delivery, DeliveryId, EventId, LinkError, NewReplay, OrganizationId, Replay,
    ReplayId, SubscriptionId,
    storage::{Erased, StorageError, StorageErrorKind, StoredEvent},
};

impl Esl {
    /// Sends a delivery again that is exhausted or expired: now, with a fresh retry budget. Its id
    /// stays, and its attempt numbers go on.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound); [`Conflict`](StorageErrorKind::Conflict) if it is
    /// in another state; [`Gone`](StorageErrorKind::Gone) if its event was removed or erased;
    /// [`Unavailable`](StorageErrorKind::Unavailable) while the event system is off.
    ///
    /// # Cancellation
    /// A call that has begun goes on to its end.
    pub async fn redeliver(
        &self,
        organization: OrganizationId,
        id: DeliveryId,
    ) -> Result<Delivery, StorageError> {
        const OPERATION: &str = "redeliver";
        self.demand_recording(OPERATION)?;
        let driver = Arc::clone(&self.engine.driver);
        self.to_its_end(async move {
            let not_found = || StorageError::new(StorageErrorKind::NotFound, OPERATION);
            // Read first, because only that tells a made-up id from a real one.
            driver.storage.delivery(organization, id).await?.ok_or_else(not_found)?;
            driver.storage.reopen(organization, id.lane(), id.seq()).await?;
            driver.update(|lanes| {
                lanes.wake(id.lane());
                lanes.unblock(id.lane());
            });
            let delivery = driver.storage.delivery(organization, id).await?;
            delivery.map(|(delivery, _)| delivery).ok_or_else(not_found)
        })
        .await
    }

    /// Begins a replay: sends many deliveries of a subscription again, or events that it never had.
    /// It goes on by itself, over restarts, until it is done or cancelled.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound) if there is no such subscription;
    /// [`Conflict`](StorageErrorKind::Conflict) if a replay to it is running;
    /// [`Unavailable`](StorageErrorKind::Unavailable) while the event system is off.
    pub async fn replay(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        new: NewReplay,
    ) -> Result<Replay, StorageError> {
        self.demand_recording("create a replay")?;
        let driver = &self.engine.driver;
        let replay = Replay::new(driver.ids.replay(), organization, subscription, new, self.now());
        let replay = driver.storage.create_replay(replay).await?;
        driver.replays.notify_one();
        Ok(replay)
    }

    /// Counts the deliveries that a replay would open now; `None` if there is no such subscription.
    /// It reads all that the range covers, in bounded stretches.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn count_replay(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        new: NewReplay,
    ) -> Result<Option<u64>, StorageError> {
        replays::count(&self.engine.driver, (organization, subscription), new).await
    }

    /// Stops a replay. What it has opened is sent all the same.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound).
    pub async fn cancel_replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Replay, StorageError> {
        self.engine.driver.storage.cancel_replay(organization, id).await
    }

    /// Erases an event: what it said is gone, and that there was one stays. What is under way of it
    /// cannot be called back; nothing more is sent.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound); [`Unavailable`](StorageErrorKind::Unavailable) also if
    /// its data may still be in the blob store: erase it once more.
    ///
    /// # Cancellation
    /// A call that has begun goes on to its end.
    pub async fn erase_event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError> {
        let driver = Arc::clone(&self.engine.driver);
        self.to_its_end(async move {
            let erased = driver.storage.erase_event(organization, id).await;
            // First, so that nothing more is sent whatever becomes of the blob; and also if it failed, for
            // it may be erased all the same.
            driver.update(|lanes| lanes.let_go(organization));
            let erased = erased?;
            if let Some(store) = &driver.blobs {
                let deleted = delete_erased(&**store, (organization, id), &erased).await;
                deleted.map_err(|error| {
                    StorageError::new(StorageErrorKind::Unavailable, "erase a blob")
                        .with_source(error)
                })?;
            }
            Ok(erased)
        })
        .await
    }

    /// An event's envelope as it would go out now: with a link that works, if its data is in the blob
    /// store.
    #[must_use]
    pub fn envelope(&self, organization: OrganizationId, event: &StoredEvent) -> bytes::Bytes {
        let driver = &self.engine.driver;
        driver.outgoing_body((organization, event.id), &event.body, event.timestamp, self.now())
    }

    /// Where large payloads are kept, if there is such a store.
    #[must_use]
    pub fn blobs(&self) -> Option<&Arc<dyn BlobStore>> {
        self.engine.driver.blobs.as_ref()
    }

    /// Whose event it is whose data a link opens: the event in its path, and `exp` and `sig` of its
    /// query. Its envelope says [which blob](crate::BlobKey::named_by) that is. A key that another
    /// engine has made is looked for, at most every few seconds.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn check_link(
        &self,
        event: EventId,
        exp: u64,
        sig: &str,
    ) -> Result<OrganizationId, LinkError> {
        let driver = &self.engine.driver;
        let checked = driver.links.check(event, exp, sig, self.now());
        if checked != Err(LinkError::NotGenuine) || !driver.links.may_look(driver.clock.monotonic())
        {
            return checked;
        }
        if let Err(error) = blobs::read_keys(driver).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "keys of links not read");
        }
        driver.links.check(event, exp, sig, self.now())
    }
}
