//! Workers, lanes, subscriptions and replays, watched and failing.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use esl_core::{
    Actor, DeliveryId, LaneId, OrganizationId, Replay, ReplayId, ReplayNumber, SealedEvent, Seq,
    Subscription, SubscriptionId, SubscriptionUpdate, Tiers, WorkerId,
    storage::{
        Candidates, Change, Claimed, FanOut, IntakeRow, Lanes, Page, PageOf, Records as _, Renewed,
        ReplayStep, Replays, RouteTable, StorageError, StorageErrorKind, Subscriptions, Swept,
        Taken, Tenure, Waiting, Want, Worker,
    },
};

use super::{FaultyStorage, faulty};
use crate::{bug::Bug, faults::NEWS_LATE_MILLIS_MAX, world::at_once};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Lanes for FaultyStorage {
    async fn enlist(
        &self,
        worker: WorkerId,
        tenure: Tenure,
    ) -> Result<(Worker, Renewed), StorageError> {
        faulty!(self.enlist(worker, tenure), |enlisted| {
            let (worker, _) = enlisted;
            self.world.note(format_args!("node {} has epoch {}", self.node, worker.epoch));
            let now = self.world.now();
            self.world.ledger().enlisted(self.node, worker.epoch, now);
        })
    }

    async fn renew(&self, worker: &Worker) -> Result<Renewed, StorageError> {
        if self.world.strikes("storage: renewal fails", self.world.faults.storage.renew_fails) {
            return Err(StorageError::new(StorageErrorKind::Unavailable, "renew"));
        }
        faulty!(self.renew(worker), |_done| {
            let now = self.world.now();
            if let Some(epoch) = self.world.ledger().epochs.get_mut(&worker.epoch) {
                (epoch.renewed_at, epoch.is_doubtful) = (now, false);
            }
        })
    }

    async fn resign(&self, worker: &Worker) -> Result<(), StorageError> {
        faulty!(self.resign(worker), |_done| {
            if let Some(epoch) = self.world.ledger().epochs.get_mut(&worker.epoch) {
                epoch.is_over = true;
            }
        })
    }

    async fn release(&self, worker: &Worker, lanes: &[LaneId]) -> Result<(), StorageError> {
        faulty!(self.release(worker, lanes), |_done| {
            lanes.iter().for_each(|_| self.world.count("lanes let go of"));
        })
    }

    async fn take(&self, worker: &Worker, lanes: &[LaneId]) -> Result<Vec<Taken>, StorageError> {
        let mut taken = faulty!(self.take(worker, lanes))?;
        if self.world.bug == Some(Bug::OneMoreInFlight) {
            for options in taken.iter_mut().map(|one| &mut one.subscription.options) {
                let limit = options.max_in_flight.map_or(32, NonZeroU32::get);
                options.max_in_flight = NonZeroU32::new(limit + 1);
            }
        }
        Ok(taken)
    }

    async fn waiting(
        &self,
        worker: &Worker,
        after: Option<LaneId>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StorageError> {
        faulty!(self.waiting(worker, after, limit))
    }

    async fn claim(
        &self,
        worker: &Worker,
        wants: &[Want],
        bytes_max: usize,
    ) -> Result<Vec<Claimed>, StorageError> {
        for want in wants {
            self.world.note(format_args!("node {} asks for lane {}", self.node, want.lane.get()));
        }
        let mut claimed = faulty!(self.claim(worker, wants, bytes_max), |claimed| {
            for want in wants {
                let found = claimed.iter().find(|claimed| claimed.lane == want.lane);
                self.note_claim(want, found);
            }
        })?;
        if self.world.bug == Some(Bug::OneAttemptForgotten) {
            for due in claimed.iter_mut().flat_map(|claimed| &mut claimed.due) {
                due.charged = due.charged.saturating_sub(1);
            }
        }
        Ok(claimed)
    }

    async fn fan_outs(
        &self,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Option<(OrganizationId, Vec<FanOut>)>, StorageError> {
        faulty!(self.fan_outs(after, limit, bytes_max))
    }

    async fn reopen(
        &self,
        organization: OrganizationId,
        lane: LaneId,
        seq: Seq,
    ) -> Result<(), StorageError> {
        faulty!(self.reopen(organization, lane, seq), |_done| {
            self.world.note(format_args!("reopened {}/{}", lane.get(), seq.get()));
            self.world.count("redeliveries");
            let mut ledger = self.world.ledger();
            let event = ledger.organizations[&organization].ids[&seq];
            ledger.reopened(lane, seq, event);
        })
    }

    async fn intake(
        &self,
        after: Option<IntakeRow>,
        limit: usize,
        left_out: &[OrganizationId],
    ) -> Result<Vec<(IntakeRow, Arc<SealedEvent>)>, StorageError> {
        faulty!(self.intake(after, limit, left_out))
    }

    async fn enqueue(&self, events: Vec<Arc<SealedEvent>>) -> Result<(), StorageError> {
        faulty!(self.enqueue(events))
    }

    async fn changed(&self) -> Vec<Change> {
        loop {
            if self.untold.lock().unwrap().is_empty() {
                let news = self.inner.changed().await;
                self.untold.lock().unwrap().extend(news);
            }
            // Dropped here, it is told at the next call.
            if self.world.strikes("storage: late news", self.world.faults.storage.late_news) {
                let millis = self.world.dice.below(NEWS_LATE_MILLIS_MAX);
                self.world.sleep(Duration::from_millis(millis)).await;
            }
            let news = std::mem::take(&mut *self.untold.lock().unwrap());
            if !news.is_empty() {
                return news;
            }
        }
    }

    async fn sweep(&self, worker: &Worker, limit: usize) -> Result<Swept, StorageError> {
        faulty!(self.sweep(worker, limit))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Subscriptions for FaultyStorage {
    async fn create_subscription(
        &self,
        subscription: Subscription,
        tiers: &Tiers,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        faulty!(self.create_subscription(subscription, tiers, by), |created| {
            self.world.note(format_args!("created lane {}", created.lane.get()));
            self.world.ledger().subscribed(created, self.world.retry.budget());
        })
    }

    async fn subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>, StorageError> {
        faulty!(self.subscription(organization, id))
    }

    async fn subscriptions(
        &self,
        organization: OrganizationId,
        page: Page<LaneId>,
    ) -> Result<PageOf<Subscription>, StorageError> {
        faulty!(self.subscriptions(organization, page))
    }

    async fn count_subscriptions(&self, organization: OrganizationId) -> Result<u64, StorageError> {
        faulty!(self.count_subscriptions(organization))
    }

    async fn update_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        update: SubscriptionUpdate,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        faulty!(self.update_subscription(organization, id, update, by), |updated| {
            self.world.note(format_args!("changed lane {}", updated.lane.get()));
            self.world.ledger().subscribed(updated, self.world.retry.budget());
        })
    }

    async fn delete_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        by: &Actor,
    ) -> Result<LaneId, StorageError> {
        faulty!(self.delete_subscription(organization, id, by), |lane| {
            self.world.note(format_args!("deleted lane {}", lane.get()));
            let mut ledger = self.world.ledger();
            ledger.lanes.get_mut(lane).unwrap().is_deleted = true;
        })
    }

    async fn routes(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<RouteTable>, StorageError> {
        faulty!(self.routes(organization))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Replays for FaultyStorage {
    async fn create_replay(&self, replay: Replay) -> Result<Replay, StorageError> {
        faulty!(self.create_replay(replay))
    }

    async fn replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StorageError> {
        faulty!(self.replay(organization, id))
    }

    async fn replays(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        page: Page<ReplayNumber>,
    ) -> Result<Option<PageOf<Replay>>, StorageError> {
        faulty!(self.replays(organization, subscription, page))
    }

    async fn cancel_replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Replay, StorageError> {
        faulty!(self.cancel_replay(organization, id))
    }

    async fn running_replays(
        &self,
        after: ReplayNumber,
        limit: usize,
    ) -> Result<Vec<Replay>, StorageError> {
        faulty!(self.running_replays(after, limit))
    }

    async fn candidates(&self, replay: &Replay, limit: usize) -> Result<Candidates, StorageError> {
        faulty!(self.candidates(replay, limit))
    }

    async fn advance_replay(
        &self,
        worker: &Worker,
        step: ReplayStep,
    ) -> Result<Replay, StorageError> {
        let seqs = step.seqs.clone();
        self.before("advance_replay").await?;
        let lane = at_once(self.inner.replay(step.organization, step.replay)).ok().flatten();
        let lane = lane.map(|replay| replay.lane);
        let open = |seq: &Seq| lane.is_some_and(|lane| self.is_open(step.organization, lane, *seq));
        let before: Vec<bool> = seqs.iter().map(open).collect();
        let result = self.inner.advance_replay(worker, step.clone()).await;
        if let Ok(replay) = &result {
            for (seq, was_open) in seqs.iter().zip(before) {
                if !was_open && self.is_open(step.organization, replay.lane, *seq) {
                    self.world.count("replayed");
                    let mut ledger = self.world.ledger();
                    let event = ledger.organizations[&step.organization].ids[seq];
                    ledger.reopened(replay.lane, *seq, event);
                }
            }
        }
        self.after("advance_replay", result).await
    }
}

impl FaultyStorage {
    fn note_claim(&self, want: &Want, found: Option<&Claimed>) {
        let Want { lane, room, after, in_order, .. } = want;
        let mut held: Vec<_> = want.held.iter().map(|seq| seq.get()).collect();
        held.sort_unstable();
        let due = found.map(|claimed| {
            let due: Vec<_> = claimed.due.iter().map(|due| (due.seq.get(), due.is_retry)).collect();
            (due, claimed.is_all, claimed.next_due)
        });
        let (lane, after) = (lane.get(), after.map(Seq::get));
        self.world.note(format_args!(
            "claim for lane {lane}: {room} after {after:?} but {held:?}, in order {in_order}: {due:?}"
        ));
    }

    fn is_open(&self, organization: OrganizationId, lane: LaneId, seq: Seq) -> bool {
        let event = self.world.ledger().organizations[&organization].ids.get(&seq).copied();
        let id = event.map(|event| DeliveryId::new(event, seq, lane));
        let found = id.and_then(|id| at_once(self.inner.delivery(organization, id)).ok().flatten());
        found.is_some_and(|(delivery, _)| delivery.state.is_open())
    }
}
