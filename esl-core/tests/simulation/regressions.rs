//! Bugs that seeds have found in what the engine does after a call whose answer is lost.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use esl_core::{
    Actor, CallbackPolicy, CallbackUrl, Esl, InProcessWake, NewEvent, NewSubscription,
    Organization, OrganizationId, Role, Subscription, SubscriptionUpdate, storage::Tenancy as _,
};

use crate::{
    dice::Dice,
    ledger::Tenant,
    node::Node,
    world::{START, World, at_once},
};

const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([1; 16]);

/// A world in which nothing goes wrong that is not asked for, with one engine.
struct Calm {
    world: Arc<World>,
    node: Node,
}

impl Calm {
    fn new() -> Self {
        let dice = Dice::new(1);
        let world = Arc::new(World::new(&dice, None, false));
        world.heal();
        let organization = Organization::new(ORGANIZATION, "tenant 0", START);
        at_once(world.truth.create_organization(organization, &Actor::APPLICATION)).unwrap();
        world.ledger().organizations.insert(ORGANIZATION, Tenant::default());
        let node = Node::start(&world, 1, dice, (Role::All, InProcessWake::new()));
        let mut calm = Self { world, node };
        calm.pass(Duration::from_millis(100));
        calm
    }

    fn pass(&mut self, duration: Duration) {
        let until = self.world.now() + duration;
        loop {
            self.node.run_until_idle();
            let next = self.world.clock.next_deadline().filter(|next| *next <= until);
            let Some(next) = next else { return };
            self.world.advance(next - self.world.now());
        }
    }

    /// Makes a call, and lets some time pass.
    fn call<T: Send + 'static, F: Future<Output = T> + Send>(
        &mut self,
        call: impl FnOnce(Esl) -> F + Send + 'static,
    ) -> T {
        let esl = self.node.esl().unwrap();
        let answer = Arc::new(Mutex::new(None));
        let answered = Arc::clone(&answer);
        self.node.spawn(async move {
            let value = call(esl).await;
            *answered.lock().unwrap() = Some(value);
        });
        self.pass(Duration::from_secs(1));
        let value = answer.lock().unwrap().take();
        value.expect("the call has come back")
    }

    fn subscribe(&mut self, active: bool) -> Subscription {
        let url = "https://example.com/t0/1/0";
        let url = CallbackUrl::parse(url, &CallbackPolicy::default()).unwrap();
        let new = NewSubscription::new(url, vec!["*".parse().unwrap()]).with_active(active);
        self.call(move |esl| async move { esl.subscribe(ORGANIZATION, new).await.unwrap() })
    }

    /// Changes whether it is sent to; the answer is lost.
    fn set_active(&mut self, subscription: &Subscription, active: bool) {
        let mut update = SubscriptionUpdate::default();
        update.active = Some(active);
        let id = subscription.id;
        self.world.lose_answer_of("update_subscription");
        let changed =
            self.call(
                move |esl| async move { esl.update_subscription(ORGANIZATION, id, update).await },
            );
        assert!(changed.is_err(), "the answer is lost");
    }

    fn publish(&mut self) {
        let data = serde_json::json!({});
        let event = NewEvent::new(ORGANIZATION, "a.b".parse().unwrap(), &data).unwrap();
        self.call(move |esl| async move { esl.publish(event).await.unwrap() });
    }

    fn sends(&self) -> usize {
        self.world.ledger().sends.len()
    }
}

#[test]
fn a_resume_whose_answer_was_lost_is_followed() {
    let mut calm = Calm::new();
    let subscription = calm.subscribe(false);
    calm.publish();
    calm.set_active(&subscription, true);
    assert_eq!(calm.sends(), 1);
}

#[test]
fn a_pause_whose_answer_was_lost_is_followed() {
    let mut calm = Calm::new();
    let subscription = calm.subscribe(true);
    calm.publish();
    calm.set_active(&subscription, false);
    calm.publish();
    assert_eq!(calm.sends(), 1);
}

#[test]
fn a_deletion_whose_answer_was_lost_is_followed() {
    let mut calm = Calm::new();
    let subscription = calm.subscribe(true);
    let mut slow = SubscriptionUpdate::default();
    slow.options.max_per_second = Some(NonZeroU32::new(1));
    let id = subscription.id;
    calm.call(move |esl| async move {
        esl.update_subscription(ORGANIZATION, id, slow).await.unwrap();
        let event = || NewEvent::new(ORGANIZATION, "a.b".parse().unwrap(), &()).unwrap();
        let events = (0..20).map(|_| event()).collect();
        esl.publish_batch(ORGANIZATION, events, None).await.unwrap();
    });
    calm.world.lose_answer_of("delete_subscription");
    calm.call(move |esl| async move {
        esl.delete_subscription(ORGANIZATION, id).await.expect_err("the answer is lost");
    });
    let sent = calm.sends();
    calm.pass(Duration::from_secs(30));
    assert_eq!(calm.sends(), sent, "the rest is cancelled");
}
