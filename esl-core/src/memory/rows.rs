//! What is kept of each thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{changes::HandleId, entities::EntityRows};
use crate::{
    Attempt, AttemptError, Delivery, DeliveryState, EventId, LaneId, Organization, OrganizationId,
    SealedEvent, Seq, Subscription, Timestamp, Token, Usage,
    storage::{
        Accepted, Audience, IntakeRow, LaneState, RouteVersion, Tenure, Worker,
        encoding::{self, EventHead, LaneHead, Standing},
    },
};

pub(super) struct OrganizationRow {
    pub(super) organization: Organization,
    pub(super) route_version: RouteVersion,
    pub(super) last_seq: Seq,
    pub(super) events: BTreeMap<Seq, EventRow>,
    pub(super) idempotency_keys: BTreeMap<String, IdempotencyRow>,
    pub(super) fan_outs: BTreeMap<Seq, FanOutRow>,
    /// Up to here deliveries were removed, and events, but for those that are still owed.
    pub(super) removed_to: Seq,
    pub(super) usage: Usage,
    pub(super) entities: EntityRows,
}

#[derive(Clone)]
pub(super) struct TokenRow {
    pub(super) token: Token,
    /// Of a refresh token: whether it was traded for another one.
    pub(super) is_used: bool,
}

/// How far an event is expanded.
#[derive(Clone, Copy)]
pub(super) struct FanOutRow {
    pub(super) after: LaneId,
    pub(super) last: LaneId,
    pub(super) except: Option<LaneId>,
}

pub(super) struct EventRow {
    pub(super) event: Arc<SealedEvent>,
    pub(super) deliveries: u32,
    pub(super) audience: Audience,
    pub(super) erased_at: Option<Timestamp>,
}

pub(super) struct IdempotencyRow {
    pub(super) fingerprint: [u8; 32],
    pub(super) used_at: Timestamp,
    /// The first answer.
    pub(super) answer: Vec<Accepted>,
}

#[derive(Default)]
pub(super) struct Intake {
    pub(super) rows: BTreeMap<i64, Arc<SealedEvent>>,
    pub(super) last_row: i64,
}

impl Intake {
    pub(super) fn push(&mut self, event: Arc<SealedEvent>) {
        self.last_row += 1;
        self.rows.insert(self.last_row, event);
    }

    /// Takes the rows of an event out.
    pub(super) fn erase(
        &mut self,
        organization: OrganizationId,
        id: EventId,
    ) -> Vec<Arc<SealedEvent>> {
        let is_of = |_: &i64, event: &mut Arc<SealedEvent>| {
            (event.organization, event.id) == (organization, id)
        };
        self.rows.extract_if(.., is_of).map(|(_, event)| event).collect()
    }

    /// Whether a row is there, and that event's.
    pub(super) fn has(&self, row: IntakeRow, event: &SealedEvent) -> bool {
        self.rows.get(&row.0).is_some_and(|held| held.id == event.id)
    }

    /// Removes a row, if it is that event's.
    pub(super) fn remove(&mut self, row: IntakeRow, event: &SealedEvent) {
        if self.has(row, event) {
            self.rows.remove(&row.0);
        }
    }
}

pub(super) struct WorkerRow {
    pub(super) epoch: u64,
    /// From then on the epoch is over.
    pub(super) lapses_at: Timestamp,
    /// Through which handle it was enlisted.
    pub(super) handle: HandleId,
    pub(super) tenure: Tenure,
}

/// A subscription, how its receiver has fared, and its deliveries.
pub(super) struct LaneRow {
    pub(super) subscription: Subscription,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) state: LaneState,
    /// Its owner, as long as that worker's epoch runs.
    pub(super) owner: Option<Worker>,
    pub(super) deliveries: BTreeMap<Seq, DeliveryRow>,
    /// The deliveries that stand at [`Standing::Untried`].
    pub(super) untried: BTreeSet<Seq>,
    /// The deliveries that stand at [`Standing::RetryAt`], by due time.
    pub(super) retries: BTreeSet<(Timestamp, Seq)>,
}

pub(super) struct DeliveryRow {
    pub(super) standing: Standing,
    /// When it came to be owed.
    pub(super) created_at: Timestamp,
    pub(super) attempts: u32,
    pub(super) charged: u32,
    pub(super) last_status: Option<u16>,
    pub(super) last_error: Option<AttemptError>,
    pub(super) log: Vec<Attempt>,
}

impl OrganizationRow {
    pub(super) fn is_erased(&self, seq: Seq) -> bool {
        self.events.get(&seq).is_some_and(|event| event.erased_at.is_some())
    }
}

impl LaneRow {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            deleted_at: None,
            state: LaneState::default(),
            owner: None,
            deliveries: BTreeMap::new(),
            untried: BTreeSet::new(),
            retries: BTreeSet::new(),
        }
    }

    pub(super) const fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    /// Whether its deliveries may be handed out.
    pub(super) const fn is_running(&self) -> bool {
        self.subscription.is_sending() && !self.is_deleted()
    }

    pub(super) fn has_open(&self) -> bool {
        !self.untried.is_empty() || !self.retries.is_empty()
    }

    pub(super) fn open_seqs(&self) -> impl Iterator<Item = Seq> {
        self.untried.iter().copied().chain(self.retries.iter().map(|(_, seq)| *seq))
    }

    /// Adds a delivery of an event that was never tried.
    pub(super) fn owe(&mut self, seq: Seq, created_at: Timestamp) {
        let row = DeliveryRow {
            standing: Standing::Untried,
            created_at,
            attempts: 0,
            charged: 0,
            last_status: None,
            last_error: None,
            log: Vec::new(),
        };
        self.deliveries.insert(seq, row);
        self.untried.insert(seq);
    }

    /// Moves a delivery from where it stands to elsewhere. All moves come through here.
    pub(super) fn set_standing(&mut self, seq: Seq, standing: Standing) {
        let row = self.deliveries.get_mut(&seq).expect("callers have looked the delivery up");
        match std::mem::replace(&mut row.standing, standing) {
            Standing::Untried => self.untried.remove(&seq),
            Standing::RetryAt(due_at) => self.retries.remove(&(due_at, seq)),
            Standing::Closed(..) => true,
        };
        match standing {
            Standing::Untried => self.untried.insert(seq),
            Standing::RetryAt(due_at) => self.retries.insert((due_at, seq)),
            Standing::Closed(..) => true,
        };
    }

    /// A delivery as its organization sees it.
    pub(super) fn delivery(&self, seq: Seq, row: &DeliveryRow, event: &SealedEvent) -> Delivery {
        let row = encoding::DeliveryRow {
            seq,
            attempts: row.attempts,
            created_at: Some(row.created_at),
            last_status: row.last_status,
            last_error: row.last_error,
            standing: row.standing,
        };
        let event_type = event.event_type.clone();
        let event = EventHead { id: event.id, event_type, timestamp: event.timestamp };
        self.head().delivery(&row, event)
    }

    pub(super) const fn delivery_state(&self, row: &DeliveryRow) -> DeliveryState {
        self.head().state(row.standing)
    }

    const fn head(&self) -> LaneHead {
        LaneHead {
            lane: self.subscription.lane,
            subscription: self.subscription.id,
            is_active: self.subscription.active,
            deleted_at: self.deleted_at,
            not_before: self.state.not_before,
        }
    }
}

impl DeliveryRow {
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.standing, Standing::Untried | Standing::RetryAt(_))
    }
}
