//! What the oracle remembers: what was promised, what was committed, and what the network saw.

use std::collections::{BTreeMap, BTreeSet};

use esl_core::{
    EventId, EventPattern, EventType, Hour, LaneId, Monotonic, OrganizationId, PublishError,
    Published, SendOrder, Seq, Subscription, SubscriptionId,
    storage::{EPOCH, Idempotency},
};

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) violations: Vec<String>,
    pub(crate) publishes: Vec<PublishCall>,
    pub(crate) organizations: BTreeMap<OrganizationId, Tenant>,
    pub(crate) lanes: BTreeMap<LaneId, Receiver>,
    pub(crate) deliveries: BTreeMap<(LaneId, Seq), Owed>,
    pub(crate) sends: Vec<SendSeen>,
    pub(crate) epochs: BTreeMap<u64, Epoch>,
    pub(crate) nodes: BTreeMap<usize, NodeSeen>,
    pub(crate) erased: BTreeSet<(OrganizationId, EventId)>,
    pub(crate) duplicates: u64,
}

/// A call of publish, as its caller saw it.
#[derive(Debug)]
pub(crate) struct PublishCall {
    pub(crate) node: usize,
    pub(crate) organization: OrganizationId,
    /// The numbers in the data of its events.
    pub(crate) numbers: Vec<u64>,
    pub(crate) ids: Vec<Option<EventId>>,
    pub(crate) idempotency: Option<Idempotency>,
    /// `None` while it runs, and for ever if its engine was killed.
    pub(crate) result: Option<Result<Vec<Published>, PublishError>>,
}

#[derive(Debug, Default)]
pub(crate) struct Tenant {
    pub(crate) index: usize,
    /// So many events an hour.
    pub(crate) limit: Option<u64>,
    pub(crate) retries: Option<u32>,
    pub(crate) last_seq: u64,
    pub(crate) committed: BTreeMap<EventId, Seq>,
    pub(crate) ids: BTreeMap<Seq, EventId>,
    /// Those that are not owed to all of their lanes yet.
    pub(crate) fan_outs: BTreeMap<Seq, FanOutSeen>,
    pub(crate) used: BTreeMap<Hour, u64>,
}

/// An event whose deliveries come to be in slices.
#[derive(Debug, Clone)]
pub(crate) struct FanOutSeen {
    pub(crate) event: EventId,
    pub(crate) event_type: EventType,
    /// The last lane that it is for.
    pub(crate) last: LaneId,
    pub(crate) except: Option<LaneId>,
    /// Up to here it is expanded.
    pub(crate) after: LaneId,
}

/// A subscription as storage has it, and what it ever was.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) organization: OrganizationId,
    pub(crate) id: SubscriptionId,
    pub(crate) events: Vec<EventPattern>,
    pub(crate) is_deleted: bool,
    pub(crate) was_strict: bool,
    pub(crate) was_parallel: bool,
    pub(crate) in_flight_max: u32,
    pub(crate) retries: (u32, u32),
    pub(crate) accepted_to: Seq,
    /// Sends under way, as indices of [`Ledger::sends`].
    pub(crate) in_flight: Vec<usize>,
}

/// A delivery.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) event: EventId,
    /// How often it was opened again.
    pub(crate) generation: u32,
    pub(crate) is_open: bool,
    pub(crate) charged: u32,
    /// How often the receiver said, since it was opened, that it wants no more.
    pub(crate) gone: u32,
    pub(crate) sends: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct SendSeen {
    pub(crate) node: usize,
    pub(crate) epoch: u64,
    pub(crate) lane: LaneId,
    pub(crate) seq: Seq,
    pub(crate) attempt: u32,
    pub(crate) generation: u32,
    pub(crate) is_under_way: bool,
    /// Whether the receiver has taken it.
    pub(crate) is_taken: bool,
    /// Whether the engine heard so.
    pub(crate) is_accepted: bool,
    pub(crate) is_settled: bool,
}

#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) node: usize,
    pub(crate) renewed_at: Monotonic,
    /// It may have lapsed, since the clock was set forward.
    pub(crate) is_doubtful: bool,
    pub(crate) is_over: bool,
}

#[derive(Debug, Default)]
pub(crate) struct NodeSeen {
    /// With when it began.
    pub(crate) epoch: Option<(u64, Monotonic)>,
    /// When time last passed while it had something to do.
    pub(crate) lagged_at: Option<Monotonic>,
}

impl Ledger {
    /// Whether an epoch runs for sure.
    pub(crate) fn runs(&self, epoch: u64, now: Monotonic) -> bool {
        self.epochs.get(&epoch).is_some_and(|epoch| {
            !epoch.is_over && !epoch.is_doubtful && now < epoch.renewed_at + EPOCH
        })
    }

    /// An engine begins an epoch; those it had are over.
    pub(crate) fn enlisted(&mut self, node: usize, epoch: u64, now: Monotonic) {
        self.node_ended(node);
        let begun = Epoch { node, renewed_at: now, is_doubtful: false, is_over: false };
        self.epochs.insert(epoch, begun);
        self.nodes.entry(node).or_default().epoch = Some((epoch, now));
    }

    /// Whatever an engine held is nobody's.
    pub(crate) fn node_ended(&mut self, node: usize) {
        for epoch in self.epochs.values_mut().filter(|epoch| epoch.node == node) {
            epoch.is_over = true;
        }
    }

    pub(crate) fn clock_jumped(&mut self) {
        self.epochs.values_mut().for_each(|epoch| epoch.is_doubtful = true);
    }

    /// The lanes that an event goes to by what storage has now.
    pub(crate) fn routed(
        &self,
        organization: OrganizationId,
        event_type: &EventType,
    ) -> Vec<LaneId> {
        let lanes = self.lanes.iter().filter(|(_, lane)| {
            lane.organization == organization
                && !lane.is_deleted
                && lane.events.iter().any(|pattern| pattern.matches(event_type))
        });
        lanes.map(|(id, _)| *id).collect()
    }

    /// A subscription was made or changed to this; `None` for the retries of the engine.
    pub(crate) fn subscribed(&mut self, subscription: &Subscription, retries_default: u32) {
        let options = &subscription.options;
        let is_strict = options.order == SendOrder::Strict;
        let in_flight_max = options.max_in_flight.map_or(32, std::num::NonZeroU32::get);
        let planned = self.organizations[&subscription.organization].retries;
        let schedule = options.retry_schedule.as_ref();
        let own = schedule.map(|delays| u32::try_from(delays.len()).unwrap());
        let retries = match (own, planned) {
            (Some(own), Some(planned)) => own.min(planned),
            (Some(own), None) => own,
            (None, planned) => planned.unwrap_or(retries_default),
        };
        let lane = self.lanes.entry(subscription.lane).or_insert_with(|| Receiver {
            organization: subscription.organization,
            id: subscription.id,
            events: Vec::new(),
            is_deleted: false,
            was_strict: false,
            was_parallel: false,
            in_flight_max: 0,
            retries: (retries, retries),
            accepted_to: Seq::ZERO,
            in_flight: Vec::new(),
        });
        lane.events.clone_from(&subscription.events);
        lane.was_strict |= is_strict;
        lane.was_parallel |= !is_strict;
        lane.in_flight_max = lane.in_flight_max.max(if is_strict { 1 } else { in_flight_max });
        lane.retries = (lane.retries.0.min(retries), lane.retries.1.max(retries));
    }

    pub(crate) fn owe(&mut self, lane: LaneId, seq: Seq, event: EventId, generation: u32) {
        let owed =
            Owed { event, generation, is_open: true, charged: 0, gone: 0, sends: Vec::new() };
        self.deliveries.insert((lane, seq), owed);
    }

    /// A delivery was opened again.
    pub(crate) fn reopened(&mut self, lane: LaneId, seq: Seq, event: EventId) {
        match self.deliveries.get_mut(&(lane, seq)) {
            Some(owed) => {
                owed.generation += 1;
                (owed.is_open, owed.charged, owed.gone) = (true, 0, 0);
            }
            None => self.owe(lane, seq, event, 1),
        }
    }
}

impl Receiver {
    pub(crate) const fn is_strict(&self) -> bool {
        self.was_strict && !self.was_parallel
    }
}
