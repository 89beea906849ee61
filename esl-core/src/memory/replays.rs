use async_trait::async_trait;

use super::{MemoryStorage, State, conflict, not_found, rows::LaneRow, subscriptions::page_of};
use crate::{
    OrganizationId, Replay, ReplayId, ReplayNumber, ReplayOf, ReplayState, Seq, SubscriptionId,
    Timestamp,
    storage::{
        Candidates, Change, Page, PageOf, ReplayStep, Replays, StorageError, Worker,
        encoding::Standing,
    },
};

/// Rows that are looked at in one call.
const LOOKED_AT_MAX: usize = 1000;

#[async_trait]
impl Replays for MemoryStorage {
    async fn create_replay(&self, mut replay: Replay) -> Result<Replay, StorageError> {
        const OPERATION: &str = "create a replay";
        let mut state = self.state();
        let lane = state.lane(replay.organization, replay.subscription);
        let lane = lane.filter(|lane| !lane.is_deleted()).ok_or(not_found(OPERATION))?;
        replay.lane = lane.subscription.lane;
        if state.replays.values().any(|other| other.lane == replay.lane && is_running(other)) {
            return Err(conflict(OPERATION));
        }
        let last_seq = state.organizations[&replay.organization].last_seq;
        replay.range.to = replay.range.to.min(last_seq);
        let last = state.replays.last_key_value().map_or(0, |(number, _)| number.0);
        replay.number = ReplayNumber(last + 1);
        state.replays.insert(replay.number, replay.clone());
        state.listeners.tell_others(self.handle, Change::Replays);
        Ok(replay)
    }

    async fn replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StorageError> {
        let state = self.state();
        Ok(state.find_replay(organization, id).map(|replay| state.as_it_stands(replay)))
    }

    async fn replays(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        page: Page<ReplayNumber>,
    ) -> Result<Option<PageOf<Replay>>, StorageError> {
        let state = self.state();
        let Some(lane) = state.lane(organization, subscription) else { return Ok(None) };
        let lane = lane.subscription.lane;
        let before = page.after.unwrap_or(ReplayNumber(u64::MAX));
        let wanted = state.replays.range(..before).rev().map(|(_, replay)| replay);
        let wanted = wanted.filter(|replay| replay.lane == lane);
        Ok(Some(page_of(wanted.map(|replay| state.as_it_stands(replay)), page.limit)))
    }

    async fn cancel_replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Replay, StorageError> {
        let mut state = self.state();
        let now = state.now();
        let found = state.find_replay(organization, id).ok_or(not_found("cancel a replay"))?;
        let mut replay = state.as_it_stands(found);
        if is_running(&replay) {
            replay.state = ReplayState::Cancelled;
            replay.finished_at = Some(now);
            state.replays.insert(replay.number, replay.clone());
        }
        Ok(replay)
    }

    async fn running_replays(
        &self,
        after: ReplayNumber,
        limit: usize,
    ) -> Result<Vec<Replay>, StorageError> {
        let state = self.state();
        let later = state.replays.range(ReplayNumber(after.0 + 1)..).map(|(_, replay)| replay);
        let running = later.map(|replay| state.as_it_stands(replay)).filter(is_running);
        Ok(running.take(limit).collect())
    }

    async fn candidates(&self, replay: &Replay, limit: usize) -> Result<Candidates, StorageError> {
        let state = self.state();
        let Some(lane) = state.lane(replay.organization, replay.subscription) else {
            return Ok(Candidates { is_end: true, ..Candidates::default() });
        };
        let organization = &state.organizations[&replay.organization];
        let reachable = organization.fan_outs.first_key_value();
        let reachable = reachable.map_or(Seq::MAX, |(seq, _)| Seq::new(seq.get() - 1));
        let to = replay.range.to.min(reachable);
        // What is old is not opened any more.
        let position = replay.position.max(organization.removed_to);
        let mut found = Candidates { position, ..Candidates::default() };
        if to > position {
            let events = organization.events.range(position.next()..=to);
            for (looked_at, (seq, row)) in events.enumerate() {
                if found.events.len() == limit || looked_at == LOOKED_AT_MAX {
                    return Ok(found);
                }
                found.position = *seq;
                let is_wanted = row.erased_at.is_none()
                    && row.audience.includes(replay.lane)
                    && replay.range.covers(row.event.timestamp);
                if is_wanted && lane.is_candidate(*seq, &replay.of) {
                    found.events.push((*seq, row.event.event_type.clone()));
                }
            }
            found.position = to;
        }
        found.is_end = found.position >= replay.range.to;
        Ok(found)
    }

    async fn advance_replay(
        &self,
        worker: &Worker,
        step: ReplayStep,
    ) -> Result<Replay, StorageError> {
        const OPERATION: &str = "advance a replay";
        let mut state = self.state();
        let now = state.demand_running(worker, OPERATION)?;
        let found = state.find_replay(step.organization, step.replay).ok_or(conflict(OPERATION))?;
        let mut replay = state.as_it_stands(found);
        if !is_running(&replay) || replay.position != step.from {
            return Err(conflict(OPERATION));
        }
        for seq in &step.seqs {
            replay.opened += u64::from(state.replay_one(&replay, *seq, now));
        }
        replay.position = step.to;
        if step.is_done {
            replay.state = ReplayState::Done;
            replay.finished_at = Some(now);
        }
        state.replays.insert(replay.number, replay.clone());
        Ok(replay)
    }
}

fn is_running(replay: &Replay) -> bool {
    replay.state == ReplayState::Running
}

impl State {
    fn find_replay(&self, organization: OrganizationId, id: ReplayId) -> Option<&Replay> {
        self.replays.values().find(|it| it.id == id && it.organization == organization)
    }

    /// A replay to a subscription that was deleted is cancelled.
    pub(super) fn as_it_stands(&self, replay: &Replay) -> Replay {
        let mut replay = replay.clone();
        replay.end_with_subscription(self.lanes[&replay.lane].deleted_at);
        replay
    }

    /// Opens a delivery, if the event is still what the replay is of.
    fn replay_one(&mut self, replay: &Replay, seq: Seq, now: Timestamp) -> bool {
        let organization = &self.organizations[&replay.organization];
        let is_reached =
            organization.fan_outs.first_key_value().is_none_or(|(first, _)| seq < *first);
        let Some(lane) = self.lanes.get_mut(&replay.lane) else { return false };
        let event = organization.events.get(&seq).filter(|row| row.erased_at.is_none());
        let is_there = seq > organization.removed_to
            && event.is_some_and(|row| row.audience.includes(replay.lane));
        if !is_reached || !is_there || !lane.is_candidate(seq, &replay.of) {
            return false;
        }
        match lane.deliveries.get_mut(&seq) {
            Some(delivery) => delivery.charged = 0,
            None => lane.owe(seq, now),
        }
        lane.set_standing(seq, Standing::RetryAt(now));
        true
    }
}

impl LaneRow {
    fn is_candidate(&self, seq: Seq, of: &ReplayOf) -> bool {
        match (of, self.deliveries.get(&seq)) {
            (ReplayOf::Missing, delivery) => delivery.is_none(),
            (ReplayOf::Deliveries { .. }, None) => false,
            (ReplayOf::Deliveries { .. }, Some(delivery)) => match delivery.standing {
                Standing::Closed(ending, _) => of.includes(ending.state()),
                Standing::Untried | Standing::RetryAt(_) => false,
            },
        }
    }
}
