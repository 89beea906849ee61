//! What a call costs in a small database and in a large one, in steps of SQLite's machine: these are the
//! same on every computer, however busy it is.

mod world;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use esl_core::{
    DeliveryId, DeliveryState, Limit, OrganizationId, Revoked, Seq, Subscription,
    storage::{
        Commit, Entities, EntityAction, EntityPosition, EntityQuery, EntityWrite, Expected, Feed,
        FeedBatch, FeedStep, IndexValue, Lanes, Outcome, Page, PutEntity, Records, Removal,
        Replays, Schedule, Subscriptions, Tenancy, Unit, Want,
    },
};

use self::world::{
    BY, DUE, HOUR, NOON, PAGE, World, again, client, create_organization, entity_key, entity_step,
    entry, pause, put_entity, secret, settlement, subscribe,
};
use super::watch::in_database;

const FEW: usize = 100;
const MANY: usize = 20_000;
/// Rows in a slice of the chores.
const SWEEP: usize = 10;

#[tokio::test]
async fn no_call_costs_more_the_more_there_is() {
    let mut world = World::new().await;
    world.grow_to(FEW).await;
    // What is read once for a handle is read by now.
    world.costs().await;
    let few = world.costs().await;
    world.grow_to(MANY).await;
    let many = world.costs().await;
    let mut wrong = Vec::new();
    for (call, few) in few.0 {
        let many = &many.0[call];
        let [small, large] = [&few, many].map(|cost| cost.values().sum::<u64>());
        assert!(small > 0, "{call} costs nothing: nobody has looked");
        if large > small * 3 / 2 {
            let more = many.iter().filter(|(sql, steps)| few.get(*sql).is_none_or(|it| it < steps));
            let more: Vec<_> = more.collect();
            wrong.push(format!("{call}: {small} steps, then {large}: {more:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What a call took, by statement.
type Cost = BTreeMap<String, u64>;

impl World {
    /// What each call costs. Each does the same whenever it is called, and leaves as much behind.
    async fn costs(&mut self) -> Costs {
        let mut costs = Costs(BTreeMap::new());
        let (storage, organization) = (self.storage.clone(), self.organization);
        let path = storage.path().to_owned();
        macro_rules! cost {
            ($call:literal, $future:expr) => {
                costs.of($call, &path, $future).await.unwrap()
            };
        }

        let event = self.event_for_all();
        let units = self.routed(vec![event]).await;
        let published = cost!("publish", storage.commit(units.clone()));
        let published = published.into_iter().next().unwrap().unwrap().events[0];
        cost!("publish once more", storage.commit(units));
        let settled = self.settle(vec![
            settlement(&self.quick, published.seq, Outcome::Delivered),
            settlement(&self.failing, published.seq, Outcome::Exhausted),
        ]);
        cost!("settle", storage.commit(vec![settled]));
        let given_up = DeliveryId::new(published.id, published.seq, self.failing.lane);
        cost!("read a delivery", storage.delivery(organization, given_up));
        cost!("read an event", storage.event(organization, published.id));
        let (lane, seq) = (self.failing.lane, published.seq);
        cost!("send again", storage.reopen(organization, lane, seq));
        let settled = self.settle(vec![again(&self.failing, published)]);
        cost!("settle once more", storage.commit(vec![settled]));

        for (call, subscription, in_order, expected) in [
            ("claim what was never tried", &self.backlog, false, 10),
            ("claim retries", &self.failing, false, 10),
            ("claim in order", &self.backlog, true, 10),
            // The next one is not due yet, and blocks the others.
            ("claim retries in order", &self.failing, true, DUE),
        ] {
            let lane = subscription.lane;
            let (after, held) = (Some(Seq::ZERO), Vec::new());
            let wants = [Want { lane, room: 10, after, held, in_order }];
            let claim = storage.claim(&self.worker, &wants, 1 << 20);
            let claimed = costs.of(call, &path, claim).await.unwrap();
            let handed_out: Vec<_> =
                claimed.iter().map(|claimed| claimed.due.len() as u64).collect();
            assert_eq!(handed_out, [expected], "{call}");
        }
        cost!("look for lanes", storage.waiting(&self.worker, None, 100));
        cost!("take lanes", storage.take(&self.worker, &[self.quick.lane, self.failing.lane]));
        cost!("read the intake", storage.intake(None, PAGE, &[]));
        cost!("look for what is due", storage.next_due());
        let due = (0..10).map(|_| (NOON, self.event(self.beside))).collect();
        storage.schedule(due, Limit::Unlimited).await.unwrap();
        assert_eq!(cost!("release what is due", storage.release_due(10)), 10);
        cost!("look for fan-outs", storage.fan_outs(None, 10, 1 << 20));
        let fed = cost!("read a feed", storage.feed("feed", None, 10, 1 << 20));
        let FeedBatch { organization: fed_of, from, to, ref events } = fed.batches[0];
        assert_eq!(events.len(), 10);
        let steps = vec![FeedStep { organization: fed_of, from, to }];
        cost!("advance a feed", storage.advance_feed(&self.worker, "feed", steps));
        self.delete_one_that_is_owed(SWEEP + 1).await;
        let swept = cost!("sweep", storage.sweep(&self.worker, SWEEP));
        assert_eq!((swept.cancelled, swept.more), (SWEEP, true));
        cost!("check", storage.check());

        cost!("list events", storage.events(organization, None, page()));
        let event_type = "person.updated".parse().unwrap();
        cost!("list events of a type", storage.events(organization, Some(event_type), page()));
        let list = |subscription: &Subscription, state| {
            let (storage, id) = (storage.clone(), subscription.id);
            async move { storage.deliveries(organization, id, state, page()).await }
        };
        cost!("list deliveries", list(&self.quick, None));
        cost!("list what was delivered", list(&self.quick, Some(DeliveryState::Delivered)));
        cost!("list deliveries that fail", list(&self.failing, None));
        cost!("list what was given up", list(&self.failing, Some(DeliveryState::Exhausted)));
        cost!("list what waits", list(&self.failing, Some(DeliveryState::Pending)));
        cost!("list what is held", list(&self.paused, Some(DeliveryState::Held)));
        cost!("list what has expired", list(&self.failing, Some(DeliveryState::Expired)));
        cost!("list subscriptions", storage.subscriptions(organization, page()));
        cost!("count subscriptions", storage.count_subscriptions(organization));
        cost!("route", storage.routes(organization));
        cost!("list clients", storage.clients(organization, page()));
        cost!("read the audit trail", storage.audit(organization, page()));
        cost!("list what is scheduled", storage.scheduled(self.beside, page()));
        cost!("list replays", storage.replays(organization, self.quick.id, page()));
        cost!("health", storage.health(organization, self.quick.id));
        cost!("usage", storage.usage(organization));

        self.entity_costs(&mut costs).await;

        let token = self.token();
        cost!("store a token", storage.store_tokens(&secret(), vec![token.clone()]));
        cost!("read a token", storage.token(&token.digest));
        let revoke = storage.revoke_token(organization, "client", &token.digest);
        assert_eq!(cost!("revoke a token", revoke), Revoked::Done);
        let waits = self.event(organization);
        cost!("enqueue", storage.enqueue(vec![self.event(self.beside)]));
        let later = vec![(NOON + HOUR, Arc::clone(&waits))];
        cost!("schedule", storage.schedule(later, Limit::Unlimited));
        cost!("unschedule", storage.unschedule(organization, waits.id));
        costs.of("replay", &path, self.replay()).await;

        let (id, other) = (self.ulid(), OrganizationId::from_ulid(self.ulid()));
        let subscription = costs.of("subscribe", &path, subscribe(&storage, organization, id));
        let subscription = subscription.await;
        cost!("read a subscription", storage.subscription(organization, subscription.id));
        let update = storage.update_subscription(organization, subscription.id, pause(), BY);
        cost!("pause", update);
        cost!("unsubscribe", storage.delete_subscription(organization, subscription.id, BY));
        cost!("make a client", storage.create_client(client(organization, "gone"), BY));
        cost!("delete a client", storage.delete_client(organization, "gone", BY));
        costs.of("make an organization", &path, create_organization(&storage, other)).await;
        cost!("delete an organization", storage.delete_organization(other, BY));
        while storage.remove_old(&self.worker, None, 1000).await.unwrap().more {}
        while storage.sweep(&self.worker, 1000).await.unwrap().more {}
        costs
    }
}

impl World {
    /// The same of entities: one comes, is written twice and goes.
    async fn entity_costs(&mut self, costs: &mut Costs) {
        let (storage, organization) = (self.storage.clone(), self.organization);
        let path = storage.path().to_owned();
        macro_rules! cost {
            ($call:literal, $future:expr) => {
                costs.of($call, &path, $future).await.unwrap()
            };
        }
        let id = self.ulid().to_string();
        let unit = |expected, action| {
            let steps = vec![entity_step(&id, expected, action)];
            vec![Unit::write(EntityWrite { organization, steps })]
        };
        let new = EntityAction::Put(put_entity(&id, "of one", None));
        cost!("create an entity", storage.commit(unit(Expected::Absent, new)));
        let revised = EntityAction::Put(PutEntity {
            unindexed: vec![entry("name", &id)],
            indexed: vec![entry("name", "revised")],
            ..put_entity(&id, "of one", Some(NOON))
        });
        cost!("update an entity", storage.commit(unit(Expected::Revision(1), revised)));
        let refer = EntityAction::Refer(1);
        cost!("refer to an entity", storage.commit(unit(Expected::Present, refer)));
        let key = entity_key(&id);
        let found = cost!("read an entity", storage.entity(organization, &key)).unwrap();
        assert_eq!((found.revision, found.references.version), (2, 1));
        cost!("look for entities that are due", storage.next_entity_due());
        let due = cost!("read entities that are due", storage.due_entities(PAGE));
        assert_eq!(due.len(), 1);
        let values = [IndexValue((*b"of one").into())];
        let referring = storage.referring(organization, &key.kind, "team", &values);
        assert_eq!(cost!("look for those who refer", referring)[0].len(), 1);

        let everyone = || vec![entry("status", "active")];
        let team = || vec![entry("team", "of many"), entry("status", "active")];
        let after = |value: Option<&str>| {
            let value = value.map(|value| IndexValue(value.as_bytes().into()));
            Some(EntityPosition { value, id: key.id.clone() })
        };
        for (call, having, by, is_descending, after) in [
            ("list entities", vec![], None, false, None),
            ("list the last entities", vec![], None, true, None),
            ("list entities before one", vec![], None, true, after(None)),
            ("list entities of a team", team(), None, false, None),
            ("list entities of a team before one", team(), None, true, after(None)),
            ("list entities by name", everyone(), Some("name"), false, None),
            ("list entities by name before one", everyone(), Some("name"), true, after(Some(&id))),
        ] {
            let (kind, by) = (key.kind.clone(), by.map(Into::into));
            let query = EntityQuery { kind, having, by, is_descending, after, limit: PAGE };
            let page = costs.of(call, &path, storage.entities(organization, &query)).await.unwrap();
            assert_eq!(page.items.len(), PAGE, "{call}");
        }
        let revision = Expected::Revision(2);
        cost!("delete an entity", storage.commit(unit(revision, EntityAction::Delete)));
    }
}

struct Costs(BTreeMap<&'static str, Cost>);

impl Costs {
    async fn of<T>(
        &mut self,
        call: &'static str,
        path: &Path,
        future: impl Future<Output = T>,
    ) -> T {
        let before = in_database(path);
        let result = future.await;
        let mut cost = Cost::new();
        for (sql, runs) in in_database(path) {
            let steps = runs.steps - before.get(&sql).map_or(0, |runs| runs.steps);
            if steps > 0 {
                cost.insert(sql, steps);
            }
        }
        self.0.insert(call, cost);
        result
    }
}

const fn page<K>() -> Page<K> {
    Page { after: None, limit: PAGE }
}
