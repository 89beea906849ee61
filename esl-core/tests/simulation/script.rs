//! What is done in a world: who is there, and the calls that they make.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use esl_core::{
    Actor, CallbackPolicy, CallbackUrl, DeliveryId, Esl, EventId, EventType, LaneId, Limit,
    NewEvent, NewReplay, NewSubscription, OnExhausted, OptionsUpdate, Organization, OrganizationId,
    Plan, ReplayOf, Secret, SendOrder, SubscriptionId, SubscriptionOptions, SubscriptionUpdate,
    Tier,
    storage::{Idempotency, Tenancy as _},
};

use crate::{
    dice::Dice,
    faults::RECEIVERS,
    ledger::{PublishCall, Tenant},
    node::Node,
    world::{START, World, at_once},
};

const TYPES: [&str; 4] = ["person.updated", "person.created", "pet.fed", "toy.made.late"];
const PATTERNS: [&str; 7] =
    ["*", "*", "person.*", "person.updated", "pet.*", "toy.made.*", "system.*"];

pub(crate) struct Script {
    dice: Dice,
    world: Arc<World>,
    next_number: u64,
    next_url: u64,
    /// Whether subscriptions are changed in how they are sent to.
    changes_options: bool,
}

impl Script {
    pub(crate) fn new(world: &Arc<World>, dice: Dice) -> Self {
        let changes_options = dice.permille(300);
        let world = Arc::clone(world);
        Self { dice, world, next_number: 0, next_url: 0, changes_options }
    }

    /// Makes the organizations. They are there before anything goes wrong.
    pub(crate) fn populate(&self) {
        for index in 0..usize::try_from(self.dice.between(1, 3)).unwrap() {
            let id = OrganizationId::from_bytes([u8::try_from(index).unwrap() + 1; 16]);
            let mut organization = Organization::new(id, format!("tenant {index}"), START);
            let mut tenant = Tenant { index, ..Tenant::default() };
            if self.dice.permille(400) {
                let mut plan = Plan::new(Tier::Free);
                let (limit, retries) = (self.dice.between(5, 60), self.dice.below(4));
                let retries = u32::try_from(retries).unwrap();
                plan.events_per_hour = Some(Limit::AtMost(limit));
                plan.retries = Some(retries);
                (tenant.limit, tenant.retries) = (Some(limit), Some(retries));
                organization = organization.with_plan(plan);
            }
            at_once(self.world.truth.create_organization(organization, &Actor::APPLICATION))
                .unwrap();
            self.world.ledger().organizations.insert(id, tenant);
        }
    }

    /// One call, at this engine.
    pub(crate) fn act(&mut self, node: &mut Node, esl: Esl) {
        match self.dice.below(100) {
            0..46 => self.publish(node, esl, 1),
            46..56 => {
                let count = self.dice.between(2, 8);
                self.publish(node, esl, count);
            }
            56..62 => self.publish_again(node, esl),
            62..70 => self.subscribe(node, esl),
            70..75 => self.change(node, esl),
            75..79 => self.set_active(node, esl, false),
            79..86 => self.set_active(node, esl, true),
            86..87 => self.delete(node, esl),
            87..93 => self.redeliver(node, esl),
            93..95 => self.replay(node, esl),
            95..98 => self.ping(node, esl),
            _ => self.erase(node, esl),
        }
    }

    /// Subscriptions for the beginning, so that there is somebody to send to.
    pub(crate) fn begin(&mut self, node: &mut Node, esl: &Esl) {
        for _ in 0..self.dice.between(1, 4) {
            self.subscribe(node, esl.clone());
        }
    }

    fn organization(&self) -> (OrganizationId, usize) {
        let ledger = self.world.ledger();
        let index = self.dice.index(ledger.organizations.len());
        let (id, tenant) = ledger.organizations.iter().nth(index).unwrap();
        (*id, tenant.index)
    }

    fn lane(&self) -> Option<(OrganizationId, SubscriptionId, LaneId)> {
        let ledger = self.world.ledger();
        let live: Vec<_> = ledger.lanes.iter().filter(|(_, lane)| !lane.is_deleted).collect();
        if live.is_empty() {
            return None;
        }
        let (id, lane) = self.dice.pick(&live);
        Some((lane.organization, lane.id, **id))
    }

    fn publish(&mut self, node: &mut Node, esl: Esl, count: u64) {
        let (organization, tenant) = self.organization();
        let has_ids = self.dice.permille(300);
        let mut numbers = Vec::new();
        let mut ids = Vec::new();
        let mut events = Vec::new();
        for _ in 0..count {
            self.next_number += 1;
            let id = has_ids.then(|| {
                let mut bytes = [0; 16];
                bytes[4..12].copy_from_slice(&(self.next_number + (1 << 40)).to_be_bytes());
                EventId::from_bytes(bytes)
            });
            numbers.push(self.next_number);
            ids.push(id);
            events.push(self.event(organization, tenant, self.next_number, id));
        }
        let idempotency = self.dice.permille(300).then(|| idempotency(numbers[0]));
        let call = PublishCall {
            node: node.number,
            organization,
            numbers,
            ids,
            idempotency,
            result: None,
        };
        self.call(node, esl, call, events);
    }

    fn event(
        &self,
        organization: OrganizationId,
        tenant: usize,
        number: u64,
        id: Option<EventId>,
    ) -> NewEvent {
        // The same number is the same content, also when it is published again.
        let index = usize::try_from(number).unwrap() % TYPES.len();
        let event_type: EventType = TYPES[index].parse().unwrap();
        let data = serde_json::json!({ "tenant": tenant, "will": "come", "n": number });
        let event = NewEvent::new(organization, event_type, &data).unwrap();
        match id {
            Some(id) => event.with_id(id),
            None => event,
        }
    }

    /// Publishes once more what has an id or a key, or something else under the same.
    fn publish_again(&mut self, node: &mut Node, esl: Esl) {
        let is_other = self.dice.permille(250);
        let (mut call, tenant) = {
            let ledger = self.world.ledger();
            let known = ledger
                .publishes
                .iter()
                .filter(|call| call.idempotency.is_some() || call.ids.iter().all(Option::is_some));
            let known: Vec<_> = known.collect();
            if known.is_empty() {
                return;
            }
            let call = self.dice.pick(&known);
            let again = PublishCall {
                node: node.number,
                organization: call.organization,
                numbers: call.numbers.clone(),
                ids: call.ids.clone(),
                idempotency: call.idempotency.clone(),
                result: None,
            };
            (again, ledger.organizations[&call.organization].index)
        };
        if is_other {
            for number in &mut call.numbers {
                self.next_number += 1;
                *number = self.next_number;
            }
            let key = call.idempotency.take();
            let fingerprint = fingerprint(call.numbers[0]);
            call.idempotency = key.map(|key| Idempotency { fingerprint, ..key });
        }
        let events = call.numbers.iter().zip(&call.ids);
        let events = events
            .map(|(number, id)| self.event(call.organization, tenant, *number, *id))
            .collect();
        self.call(node, esl, call, events);
    }

    fn call(&self, node: &mut Node, esl: Esl, call: PublishCall, events: Vec<NewEvent>) {
        let world = Arc::clone(&self.world);
        let (organization, key) = (call.organization, call.idempotency.clone());
        world.note(format_args!("node {} publishes {:?}", node.number, call.numbers));
        let index = {
            let mut ledger = world.ledger();
            ledger.publishes.push(call);
            ledger.publishes.len() - 1
        };
        node.spawn(async move {
            let result = esl.publish_batch(organization, events, key).await;
            world.note(format_args!("call {index}: {result:?}"));
            world.ledger().publishes[index].result = Some(result);
        });
    }

    fn subscribe(&mut self, node: &mut Node, esl: Esl) {
        let (organization, tenant) = self.organization();
        if self.world.ledger().lanes.len() > 8 {
            return;
        }
        self.next_url += 1;
        let receiver = self.dice.index(RECEIVERS);
        let url = format!("https://example.com/t{tenant}/{}/{receiver}", self.next_url);
        let url = CallbackUrl::parse(&url, &CallbackPolicy::default()).unwrap();
        let new = NewSubscription::new(url, self.patterns())
            .with_secret(Secret::new("0123456789abcdef0123456789abcdef").unwrap())
            .with_active(self.dice.permille(900))
            .with_options(self.options());
        self.spawn(
            node,
            "subscribe",
            async move { esl.subscribe(organization, new).await.map(drop) },
        );
    }

    fn patterns(&self) -> Vec<esl_core::EventPattern> {
        let count = self.dice.between(1, 2);
        (0..count).map(|_| self.dice.pick(&PATTERNS).parse().unwrap()).collect()
    }

    fn options(&self) -> SubscriptionOptions {
        let mut options = SubscriptionOptions::default();
        let some = |permille| self.dice.permille(permille);
        if some(400) {
            options = options.with_order(SendOrder::Strict);
        }
        if some(300) {
            options = options.with_on_exhausted(OnExhausted::Pause);
        }
        if some(400) {
            options = options.with_max_in_flight(self.small());
        }
        if some(200) {
            options = options.with_max_per_second(
                *self.dice.pick(&[self.small(), NonZeroU32::new(100).unwrap()]),
            );
        }
        if some(300) {
            options = options.with_retry_schedule(self.schedule());
        }
        if some(300) {
            options = options.with_timeout(Duration::from_secs(self.dice.between(1, 20)));
        }
        options
    }

    fn small(&self) -> NonZeroU32 {
        NonZeroU32::new(u32::try_from(self.dice.between(1, 6)).unwrap()).unwrap()
    }

    fn schedule(&self) -> Vec<Duration> {
        let millis = || *self.dice.pick(&[0, 10, 1000, 30_000, 400_000]);
        (0..self.dice.below(5)).map(|_| Duration::from_millis(millis())).collect()
    }

    fn change(&self, node: &mut Node, esl: Esl) {
        let Some((organization, id, _)) = self.lane() else { return };
        let mut update = SubscriptionUpdate::default();
        if self.changes_options && self.dice.permille(600) {
            let mut options = OptionsUpdate::default();
            match self.dice.below(4) {
                0 => options.order = Some(*self.dice.pick(&SendOrder::ALL)),
                1 => options.max_in_flight = Some(self.dice.permille(500).then(|| self.small())),
                2 => options.retry_schedule = Some(Some(self.schedule())),
                _ => options.on_exhausted = Some(*self.dice.pick(&OnExhausted::ALL)),
            }
            update.options = options;
        } else {
            update.events = Some(self.patterns());
        }
        self.update(node, esl, (organization, id), update);
    }

    fn set_active(&self, node: &mut Node, esl: Esl, active: bool) {
        let Some((organization, id, _)) = self.lane() else { return };
        let mut update = SubscriptionUpdate::default();
        update.active = Some(active);
        self.update(node, esl, (organization, id), update);
    }

    fn update(
        &self,
        node: &mut Node,
        esl: Esl,
        (organization, id): (OrganizationId, SubscriptionId),
        update: SubscriptionUpdate,
    ) {
        self.spawn(node, "update", async move {
            esl.update_subscription(organization, id, update).await.map(drop)
        });
    }

    fn delete(&self, node: &mut Node, esl: Esl) {
        let Some((organization, id, _)) = self.lane() else { return };
        self.spawn(node, "delete", async move { esl.delete_subscription(organization, id).await });
    }

    fn redeliver(&self, node: &mut Node, esl: Esl) {
        let Some((organization, id)) = self.delivery() else { return };
        self.spawn(
            node,
            "redeliver",
            async move { esl.redeliver(organization, id).await.map(drop) },
        );
    }

    /// One of those that are over, if there is one.
    fn delivery(&self) -> Option<(OrganizationId, DeliveryId)> {
        let ledger = self.world.ledger();
        let over = ledger.deliveries.iter().filter(|(_, owed)| {
            !owed.is_open && owed.sends.last().is_some_and(|send| !ledger.sends[*send].is_accepted)
        });
        let over: Vec<_> = over.collect();
        if over.is_empty() {
            return None;
        }
        let ((lane, seq), owed) = self.dice.pick(&over);
        Some((ledger.lanes[lane].organization, DeliveryId::new(owed.event, *seq, *lane)))
    }

    fn replay(&self, node: &mut Node, esl: Esl) {
        let Some((organization, id, _)) = self.lane() else { return };
        let all = ReplayOf::Deliveries { exhausted: true, expired: true, delivered: true };
        let of = *self.dice.pick(&[ReplayOf::Missing, ReplayOf::UNDELIVERED, all]);
        let pace = *self.dice.pick(&[10, 1000]);
        let new = NewReplay::new(of).with_max_per_second(NonZeroU32::new(pace).unwrap());
        self.spawn(
            node,
            "replay",
            async move { esl.replay(organization, id, new).await.map(drop) },
        );
    }

    fn ping(&self, node: &mut Node, esl: Esl) {
        let Some((organization, id, _)) = self.lane() else { return };
        self.spawn(node, "ping", async move { esl.ping(organization, id, None).await.map(drop) });
    }

    fn erase(&self, node: &mut Node, esl: Esl) {
        let chosen = {
            let ledger = self.world.ledger();
            let events = ledger.organizations.iter().flat_map(|(organization, tenant)| {
                tenant.committed.keys().map(|id| (*organization, *id))
            });
            let events: Vec<_> = events.collect();
            if events.is_empty() {
                return;
            }
            *self.dice.pick(&events)
        };
        let (organization, id) = chosen;
        self.spawn(node, "erase", async move { esl.erase_event(organization, id).await.map(drop) });
    }

    fn spawn<E: std::fmt::Debug>(
        &self,
        node: &mut Node,
        what: &'static str,
        call: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let world = Arc::clone(&self.world);
        world.note(format_args!("node {}: {what}", node.number));
        node.spawn(async move {
            let is_done = call.await.is_ok();
            world.note(format_args!("{what}: {is_done}"));
        });
    }
}

fn idempotency(number: u64) -> Idempotency {
    Idempotency { key: format!("key-{number}"), fingerprint: fingerprint(number) }
}

fn fingerprint(number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}
