use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use esl_core::{
    Actor, CallbackPolicy, CallbackUrl, Clock, Delivery, DeliveryId, DeliveryState, Esl,
    EslBuilder, EventType, MemoryStorage, NewEvent, NewSubscription, Organization, OrganizationId,
    Published, Subscription, SubscriptionOptions, Timestamp,
    storage::{Page, Tenancy},
    testing::{ManualClock, ScriptedTransport, SeededChance, Sighting},
};

pub(crate) const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([7; 16]);
pub(crate) const START: Timestamp = Timestamp::from_millis(1_705_329_120_000);

/// An engine, and everything around it that a test wants to turn.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) storage: MemoryStorage,
    pub(crate) transport: ScriptedTransport,
    pub(crate) esl: Esl,
}

/// Runs a test on one thread, where the tasks run in the same order every time.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    run_with(|builder| builder, test);
}

pub(crate) fn run_with<F: Future<Output = ()>>(
    configure: impl FnOnce(EslBuilder) -> EslBuilder,
    test: impl FnOnce(World) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let clock = ManualClock::new(START);
        let storage = MemoryStorage::with_clock(Arc::new(clock.clone()));
        let organization = Organization::new(ORGANIZATION, "acme", START);
        storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
        let transport = ScriptedTransport::new(Arc::new(clock.clone()));
        let builder = engine(1, &storage, &clock, &transport);
        let esl = configure(builder).build().await.unwrap();
        test(World { clock, storage, transport, esl }).await;
    });
}

/// Engines over one storage need different seeds, or they take each other for themselves.
pub(crate) fn engine(
    seed: u64,
    storage: &MemoryStorage,
    clock: &ManualClock,
    transport: &ScriptedTransport,
) -> EslBuilder {
    Esl::builder(storage.clone())
        .clock(Arc::new(clock.clone()))
        .chance(Arc::new(SeededChance::new(seed)))
        .transport(transport.clone())
}

pub(crate) fn url(path: &str) -> CallbackUrl {
    CallbackUrl::parse(&format!("https://example.com/{path}"), &CallbackPolicy::default()).unwrap()
}

pub(crate) fn event(event_type: &str, data: u64) -> NewEvent {
    let event_type: EventType = event_type.parse().unwrap();
    NewEvent::new(ORGANIZATION, event_type, &serde_json::json!({ "n": data })).unwrap()
}

impl World {
    pub(crate) async fn subscribe(&self, path: &str, pattern: &str) -> Subscription {
        self.subscribe_with(path, pattern, SubscriptionOptions::default()).await
    }

    pub(crate) async fn subscribe_with(
        &self,
        path: &str,
        pattern: &str,
        options: SubscriptionOptions,
    ) -> Subscription {
        let new = NewSubscription::new(url(path), vec![pattern.parse().unwrap()]);
        self.esl.subscribe(ORGANIZATION, new.with_options(options)).await.unwrap()
    }

    pub(crate) async fn publish(&self, event_type: &str, data: u64) -> Published {
        self.esl.publish(event(event_type, data)).await.unwrap()
    }

    pub(crate) async fn deliveries(&self, subscription: &Subscription) -> Vec<Delivery> {
        deliveries(&self.esl, subscription).await
    }

    pub(crate) async fn delivery(&self, subscription: &Subscription, of: Published) -> Delivery {
        let id = DeliveryId::new(of.id, of.seq, subscription.lane);
        self.esl.storage().delivery(ORGANIZATION, id).await.unwrap().unwrap().0
    }

    /// Lets the engine work and the clock run until something has come about.
    pub(crate) async fn until<T, F: Future<Output = Option<T>>>(&self, seen: impl Fn() -> F) -> T {
        until(&self.clock, seen).await
    }

    /// Waits until a delivery has a state.
    pub(crate) async fn until_state(
        &self,
        subscription: &Subscription,
        of: Published,
        state: DeliveryState,
    ) -> Delivery {
        self.until(|| async {
            let delivery = self.delivery(subscription, of).await;
            (delivery.state == state).then_some(delivery)
        })
        .await
    }

    /// Waits until so many of a subscription's deliveries are done.
    pub(crate) async fn until_delivered(&self, subscription: &Subscription, count: usize) {
        self.until(|| async {
            let deliveries = self.deliveries(subscription).await;
            let done = deliveries.iter().filter(|one| one.state == DeliveryState::Delivered);
            (done.count() == count).then_some(())
        })
        .await;
    }

    /// Lets the engine do all that it can do without time passing.
    pub(crate) async fn settle_down(&self) {
        settle_down().await;
    }

    /// Lets a quarter of a second pass, in which the engine adapts how much it sends at once.
    pub(crate) async fn adapt(&self) {
        for _ in 0..50 {
            self.clock.advance(Duration::from_millis(5));
            self.settle_down().await;
        }
    }

    /// The data of the events that were sent to a path, in the order of the sends.
    pub(crate) fn sent_to(&self, path: &str) -> Vec<u64> {
        sent_to(&self.transport, path)
    }
}

pub(crate) fn sent_to(transport: &ScriptedTransport, path: &str) -> Vec<u64> {
    transport.sightings_at(&url(path)).iter().map(number).collect()
}

/// The same for all at once, by URL: for a crowd, of which each would go through what was sent to all.
pub(crate) fn sent_to_each(transport: &ScriptedTransport) -> HashMap<CallbackUrl, Vec<u64>> {
    let mut sent: HashMap<_, Vec<_>> = HashMap::new();
    for sighting in transport.sightings() {
        let number = number(&sighting);
        sent.entry(sighting.outbound.url).or_default().push(number);
    }
    sent
}

fn number(sighting: &Sighting) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(&sighting.outbound.body).unwrap();
    body["data"]["n"].as_u64().unwrap()
}

pub(crate) async fn deliveries(esl: &Esl, subscription: &Subscription) -> Vec<Delivery> {
    let page = Page { after: None, limit: 100_000 };
    let storage = esl.storage();
    let list = storage.deliveries(ORGANIZATION, subscription.id, None, page).await.unwrap();
    list.unwrap().items
}

/// How often every task gets its turn before time moves on. No task needs as many steps between
/// two sleeps.
const TURNS: usize = 300;

pub(crate) async fn settle_down() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    clock: &ManualClock,
    seen: impl Fn() -> F,
) -> T {
    let limit = clock.monotonic() + Duration::from_secs(3 * 60 * 60);
    loop {
        settle_down().await;
        if let Some(value) = seen().await {
            return value;
        }
        assert!(clock.monotonic() < limit, "it has not come about in three hours");
        let next = clock.next_deadline().expect("the engine renews its epoch");
        clock.advance(next.saturating_sub(clock.monotonic()));
    }
}
