use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use async_trait::async_trait;

use super::{
    MemoryStorage, State, conflict, not_found,
    rows::{FanOutRow, LaneRow, WorkerRow},
};
use crate::{
    LaneId, OrganizationId, SealedEvent, Seq, Timestamp, WorkerId,
    storage::{
        Change, Claimed, Due, EPOCH, FanOut, IntakeRow, Lanes, Renewed, StorageError,
        StorageErrorKind, Swept, Taken, Tenure, Waiting, Want, Worker, due_time,
        encoding::{Ending, Standing},
    },
};

#[async_trait]
impl Lanes for MemoryStorage {
    async fn enlist(
        &self,
        worker: WorkerId,
        tenure: Tenure,
    ) -> Result<(Worker, Renewed), StorageError> {
        let mut state = self.state();
        state.last_epoch += 1;
        let epoch = state.last_epoch;
        let now = state.now();
        // An earlier epoch of the same worker is over with this, and with it what it owned.
        let row = WorkerRow { epoch, lapses_at: now + EPOCH, handle: self.handle, tenure };
        state.workers.insert(worker, row);
        state.listeners.tell_others(self.handle, Change::Engines);
        let worker = Worker { id: worker, epoch };
        let renewed = state.renewed(&worker, now);
        Ok((worker, renewed))
    }

    async fn renew(&self, worker: &Worker) -> Result<Renewed, StorageError> {
        let mut state = self.state();
        let now = state.demand_running(worker, "renew the epoch")?;
        let row = state.workers.get_mut(&worker.id).expect("a running worker has a row");
        row.lapses_at = now + EPOCH;
        Ok(state.renewed(worker, now))
    }

    async fn resign(&self, worker: &Worker) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.workers.get(&worker.id).is_some_and(|row| row.epoch == worker.epoch) {
            state.workers.remove(&worker.id);
            state.listeners.tell_others(self.handle, Change::Engines);
        }
        Ok(())
    }

    async fn release(&self, worker: &Worker, lanes: &[LaneId]) -> Result<(), StorageError> {
        let mut state = self.state();
        let mut is_news = false;
        for lane in lanes {
            let Some(row) = state.lanes.get_mut(lane) else { continue };
            is_news |= row.owner.take_if(|owner| *owner == *worker).is_some();
        }
        if is_news {
            state.listeners.tell_others(self.handle, Change::Lanes);
        }
        Ok(())
    }

    async fn take(&self, worker: &Worker, lanes: &[LaneId]) -> Result<Vec<Taken>, StorageError> {
        let mut state = self.state();
        let now = state.demand_running(worker, "take lanes")?;
        let mut taken = Vec::new();
        for lane in lanes {
            if !state.is_takeable(*lane, worker, now) {
                continue;
            }
            let row = state.lanes.get_mut(lane).expect("a lane that can be taken has a row");
            row.owner = Some(*worker);
            let (subscription, state_of_lane) = (row.subscription.clone(), row.state);
            let plan = state.organizations[&subscription.organization].organization.plan;
            taken.push(Taken { subscription, state: state_of_lane, plan });
        }
        Ok(taken)
    }

    async fn waiting(
        &self,
        worker: &Worker,
        after: Option<LaneId>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StorageError> {
        let state = self.state();
        let now = state.now();
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = state
            .lanes
            .range((after, Bound::Unbounded))
            .filter(|(lane, row)| row.is_running() && state.is_takeable(**lane, worker, now))
            .filter_map(|(lane, row)| Some(Waiting { lane: *lane, due_at: row.first_due(now)? }));
        Ok(waiting.take(limit).collect())
    }

    async fn claim(
        &self,
        worker: &Worker,
        wants: &[Want],
        bytes_max: usize,
    ) -> Result<Vec<Claimed>, StorageError> {
        let mut state = self.state();
        let now = state.demand_running(worker, "claim deliveries")?;
        let mut bytes_left = bytes_max;
        let mut claimed = Vec::new();
        for want in wants {
            let row = state.lanes.get(&want.lane);
            if let Some(row) = row.filter(|row| row.is_running() && row.owner == Some(*worker)) {
                claimed.push(state.claim_lane(row, want, now, &mut bytes_left));
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
        let state = self.state();
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut organizations = state.organizations.range((after, Bound::Unbounded));
        let next = organizations.find(|(_, row)| !row.fan_outs.is_empty());
        let Some((organization, row)) = next else { return Ok(None) };
        let mut fan_outs = Vec::new();
        let mut bytes = 0;
        for (seq, fan_out) in row.fan_outs.iter().take(limit) {
            let event = Arc::clone(&row.events[seq].event);
            bytes += event.body.len();
            if bytes > bytes_max && !fan_outs.is_empty() {
                break;
            }
            let FanOutRow { after, last, except } = *fan_out;
            fan_outs.push(FanOut { seq: *seq, event, after, last, except });
        }
        Ok(Some((*organization, fan_outs)))
    }

    async fn reopen(
        &self,
        organization: OrganizationId,
        lane: LaneId,
        seq: Seq,
    ) -> Result<(), StorageError> {
        const OPERATION: &str = "open a delivery again";
        let mut state = self.state();
        let now = state.now();
        let events = state.organizations.get(&organization);
        let removed_to = events.map(|row| row.removed_to);
        let is_erased = events.is_some_and(|row| row.is_erased(seq));
        let row =
            state.lanes.get_mut(&lane).filter(|row| row.subscription.organization == organization);
        let row = row.ok_or(not_found(OPERATION))?;
        if seq > Seq::ZERO && removed_to.is_some_and(|to| seq <= to) {
            return Err(StorageError::new(StorageErrorKind::Gone, OPERATION));
        }
        let is_deleted = row.is_deleted();
        let delivery = row.deliveries.get_mut(&seq).ok_or(not_found(OPERATION))?;
        if is_erased {
            return Err(StorageError::new(StorageErrorKind::Gone, OPERATION));
        }
        if is_deleted {
            return Err(conflict(OPERATION));
        }
        match delivery.standing {
            Standing::Closed(Ending::Exhausted | Ending::Expired, _) => {}
            Standing::Closed(Ending::Delivered | Ending::Cancelled, _)
            | Standing::Untried
            | Standing::RetryAt(_) => return Err(conflict(OPERATION)),
        }
        delivery.charged = 0;
        row.set_standing(seq, Standing::RetryAt(now));
        state.listeners.tell_others(self.handle, Change::Lanes);
        Ok(())
    }

    async fn intake(
        &self,
        after: Option<IntakeRow>,
        limit: usize,
        left_out: &[OrganizationId],
    ) -> Result<Vec<(IntakeRow, Arc<SealedEvent>)>, StorageError> {
        let state = self.state();
        let after = after.map_or(Bound::Unbounded, |row| Bound::Excluded(row.0));
        let rows = state.intake.rows.range((after, Bound::Unbounded));
        let rows = rows.filter(|(_, event)| {
            let organization = &event.organization;
            state.organizations.contains_key(organization) && !left_out.contains(organization)
        });
        Ok(rows.take(limit).map(|(row, event)| (IntakeRow(*row), Arc::clone(event))).collect())
    }

    async fn enqueue(&self, events: Vec<Arc<SealedEvent>>) -> Result<(), StorageError> {
        let mut state = self.state();
        for event in events {
            state.intake.push(event);
        }
        state.listeners.tell_all(Change::Intake);
        Ok(())
    }

    async fn changed(&self) -> Vec<Change> {
        loop {
            let untold = self.state().listeners.take(self.handle);
            if !untold.is_empty() {
                return untold;
            }
            // Dropped here, nothing is lost: what is untold stays untold.
            self.news.notified().await;
        }
    }

    async fn sweep(&self, worker: &Worker, limit: usize) -> Result<Swept, StorageError> {
        let mut state = self.state();
        let now = state.demand_running(worker, "sweep")?;
        let mut swept = Swept::default();
        swept.idempotency_keys = state.sweep_idempotency_keys(now, limit);
        swept.tokens = state.sweep_tokens(now, limit - swept.idempotency_keys);
        let mut left = limit - swept.idempotency_keys - swept.tokens;
        swept.cancelled = state.sweep_cancelled(left);
        left -= swept.cancelled;
        state.sweep_expired(now, left, &mut swept);
        for lane in &swept.ready {
            let organization = state.lanes[lane].subscription.organization;
            state.listeners.tell_others(self.handle, Change::Subscriptions(organization));
        }
        state.forget_retired_secrets(now);
        swept.more = state.has_chores(now);
        Ok(swept)
    }
}

impl State {
    /// Whether a worker's epoch runs.
    pub(super) fn is_running(&self, worker: &Worker, now: Timestamp) -> bool {
        let row = self.workers.get(&worker.id);
        row.is_some_and(|row| row.epoch == worker.epoch && now < row.lapses_at)
    }

    /// The time, if at that time the worker's epoch runs.
    pub(super) fn demand_running(
        &mut self,
        worker: &Worker,
        operation: &'static str,
    ) -> Result<Timestamp, StorageError> {
        let now = self.now();
        if self.is_running(worker, now) {
            Ok(now)
        } else {
            Err(StorageError::new(StorageErrorKind::Fenced, operation))
        }
    }

    /// How things stand for a worker whose epoch runs.
    fn renewed(&mut self, worker: &Worker, now: Timestamp) -> Renewed {
        let leads = self.workers[&worker.id].tenure.leads.is_some_and(|duty| {
            let leader = self.leaders.get(duty).copied();
            let leader = leader.filter(|leader| self.is_running(leader, now)).unwrap_or(*worker);
            self.leaders.insert(duty, leader);
            leader == *worker
        });
        let peers = self.workers.iter();
        let peers = peers.filter(|(_, row)| row.tenure.takes_lanes && now < row.lapses_at);
        Renewed { at: now, peers: peers.map(|(id, _)| *id).collect(), leads }
    }

    /// Whether a lane is the worker's, or free.
    fn is_takeable(&self, lane: LaneId, worker: &Worker, now: Timestamp) -> bool {
        let Some(row) = self.lanes.get(&lane).filter(|row| !row.is_deleted()) else { return false };
        row.owner.is_none_or(|owner| owner == *worker || !self.is_running(&owner, now))
    }

    fn claim_lane(
        &self,
        row: &LaneRow,
        want: &Want,
        now: Timestamp,
        bytes_left: &mut usize,
    ) -> Claimed {
        if want.in_order {
            return self.claim_in_order(row, want, now, bytes_left);
        }
        let held = BTreeSet::from_iter(&want.held);
        let retries = || row.retries.iter().filter(|(_, seq)| !held.contains(seq));
        let is_due = |due_at: Timestamp| due_time(due_at, now) <= now;
        let due_retries = retries().filter(|(due_at, _)| is_due(*due_at)).map(|(_, seq)| *seq);
        let untried = || {
            let after = want.after.map(|after| (Bound::Excluded(after), Bound::Unbounded));
            after.into_iter().flat_map(|range| row.untried.range(range)).copied()
        };

        let mut due = Vec::new();
        for seq in due_retries.chain(untried()).take(want.room) {
            let handed_out = self.due(row, seq);
            let bytes = handed_out.event.body.len();
            // The first one of a lane goes in any case, so that no lane waits for ever.
            if bytes > *bytes_left && !due.is_empty() {
                break;
            }
            *bytes_left = bytes_left.saturating_sub(bytes);
            due.push(handed_out);
        }

        let handed_out: BTreeSet<Seq> = due.iter().map(|handed_out| handed_out.seq).collect();
        let is_all = untried().all(|seq| handed_out.contains(&seq));
        let mut left = retries().filter(|(_, seq)| !handed_out.contains(seq));
        let next_due = left.next().map(|(due_at, _)| due_time(*due_at, now));
        Claimed { lane: want.lane, due, is_all, next_due }
    }

    fn claim_in_order(
        &self,
        row: &LaneRow,
        want: &Want,
        now: Timestamp,
        bytes_left: &mut usize,
    ) -> Claimed {
        let open: BTreeSet<Seq> = row.open_seqs().collect();
        let mut claimed =
            Claimed { lane: want.lane, due: Vec::new(), is_all: true, next_due: None };
        for seq in open {
            if let Standing::RetryAt(due_at) = row.deliveries[&seq].standing
                && due_time(due_at, now) > now
            {
                claimed.next_due = Some(due_time(due_at, now));
                break;
            }
            let due = self.due(row, seq);
            let bytes = due.event.body.len();
            let is_too_much = bytes > *bytes_left && !claimed.due.is_empty();
            if claimed.due.len() == want.room || is_too_much {
                claimed.is_all = false;
                break;
            }
            *bytes_left = bytes_left.saturating_sub(bytes);
            claimed.due.push(due);
        }
        claimed
    }

    fn due(&self, row: &LaneRow, seq: Seq) -> Due {
        let delivery = &row.deliveries[&seq];
        let organization = &self.organizations[&row.subscription.organization];
        Due {
            seq,
            event: Arc::clone(&organization.events[&seq].event),
            is_retry: delivery.standing != Standing::Untried,
            attempts: delivery.attempts,
            charged: delivery.charged,
        }
    }

    fn sweep_idempotency_keys(&mut self, now: Timestamp, limit: usize) -> usize {
        let mut removed = 0;
        for organization in self.organizations.values_mut() {
            organization.idempotency_keys.retain(|_, row| {
                let is_kept = removed == limit || !row.is_expired(now);
                removed += usize::from(!is_kept);
                is_kept
            });
        }
        removed
    }

    fn sweep_tokens(&mut self, now: Timestamp, limit: usize) -> usize {
        let mut removed = 0;
        self.tokens.retain(|_, row| {
            let is_kept = removed == limit || row.token.expires_at > now;
            removed += usize::from(!is_kept);
            is_kept
        });
        removed
    }

    fn sweep_cancelled(&mut self, limit: usize) -> usize {
        let mut closed = 0;
        for row in self.lanes.values_mut() {
            let Some(deleted_at) = row.deleted_at else { continue };
            let seqs: Vec<_> = row.open_seqs().take(limit - closed).collect();
            for seq in &seqs {
                row.set_standing(*seq, Standing::Closed(Ending::Cancelled, deleted_at));
            }
            closed += seqs.len();
        }
        closed
    }

    fn sweep_expired(&mut self, now: Timestamp, limit: usize, swept: &mut Swept) {
        for (id, row) in self.lanes.iter_mut().filter(|(_, row)| !row.is_deleted()) {
            let Some(until) = row.subscription.expires_until(now) else { continue };
            let seqs = row.to_expire(until);
            for seq in seqs.iter().take(limit - swept.expired) {
                row.set_standing(*seq, Standing::Closed(Ending::Expired, now));
                swept.expired += 1;
            }
            if row.to_expire(until).is_empty() && row.subscription.expiring.take().is_some() {
                swept.ready.push(*id);
            }
        }
    }

    fn forget_retired_secrets(&mut self, now: Timestamp) {
        for row in self.lanes.values_mut() {
            row.subscription.retiring.take_if(|retiring| !retiring.is_in_use(now));
        }
    }

    fn has_chores(&self, now: Timestamp) -> bool {
        let mut keys = self.organizations.values().flat_map(|row| row.idempotency_keys.values());
        keys.any(|key| key.is_expired(now))
            || self.tokens.values().any(|row| row.token.expires_at <= now)
            || self.lanes.values().any(|row| row.has_chores(now))
    }
}

impl LaneRow {
    fn has_chores(&self, now: Timestamp) -> bool {
        if self.is_deleted() {
            return self.has_open();
        }
        let until = self.subscription.expires_until(now);
        self.subscription.expiring.is_some()
            || until.is_some_and(|until| !self.to_expire(until).is_empty())
    }

    /// The open deliveries that were held for too long.
    fn to_expire(&self, until: Timestamp) -> Vec<Seq> {
        let retries = self.retries.iter().take_while(|(due_at, _)| *due_at <= until);
        let untried = self.untried.iter();
        let old = untried.take_while(|seq| self.deliveries[seq].created_at <= until);
        retries.map(|(_, seq)| *seq).chain(old.copied()).collect()
    }

    /// When the open delivery that is due first was due, or will be.
    pub(super) fn oldest_due(&self) -> Option<Timestamp> {
        let untried = self.untried.first().map(|seq| self.deliveries[seq].created_at);
        let retry = self.retries.first().map(|(due_at, _)| *due_at);
        untried.into_iter().chain(retry).min()
    }

    /// When the first open delivery is due.
    fn first_due(&self, now: Timestamp) -> Option<Timestamp> {
        let untried = self.untried.first().map(|seq| self.deliveries[seq].created_at.min(now));
        let retry = self.retries.first().map(|(due_at, _)| due_time(*due_at, now));
        untried.into_iter().chain(retry).min()
    }
}
