//! What a call costs in a small database and in a large one, in pages that the server looks at: with plans that
//! were made while there was little, with plans made without statistics, as after a quick fill, and with
//! statistics.

pub(crate) mod plans;
mod world;

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use esl_core::{
    BlobKey, DeliveryId, DeliveryState, EntityKey, InstallationId, Limit, LinkKey, NewToken,
    OrganizationId, PutId, ReplayOf, Revoked, Rotated, Rotation, Secret, SecretChange, Seq,
    Subscription, SubscriptionUpdate, TokenKind,
    storage::{
        Commit, Entities, EntityAction, EntityQuery, EntityStep, EntityWrite, Expected, Feed,
        FeedStep, IndexEntry, IndexValue, Lanes, Outcome, Page, PutEntity, Records, Removal,
        ReplayStep, Replays, Schedule, Subscriptions, Tenancy, Unit, Want,
    },
};

use self::{
    plans::Ran,
    world::{
        AGE, BY, HOUR, NOON, World, again, client, create_organization, pause, secret, settlement,
        subscribe,
    },
};
use crate::cluster;

const FEW: u32 = 3_000;
const MANY: u32 = 200_000;
/// Rows in a slice of the chores.
const SLICE: usize = 20;
const PAGE: usize = 4;
/// How often a function is called before the server plans it for whatever it is called with.
const CALLS: usize = 6;
/// How often a call may cost more, because of what others do, before it is said to.
const CALLS_MAX: usize = 12;

#[tokio::test]
async fn no_call_costs_more_the_more_there_is() {
    let Some(own) = cluster::own() else { return };
    let mut world = World::new(own).await;
    world.grow_by(FEW).await;
    for _ in 0..CALLS {
        world.costs().await;
    }
    let few = world.costs().await.or_less(world.costs().await);
    world.grow_by(MANY - FEW).await;
    let mut wrong = world.beyond(&few, "planned when there was little").await;
    world.reconnect().await;
    // Functions are read from the catalogue once.
    world.costs().await;
    wrong.extend(world.beyond(&few, "planned without statistics").await);
    world.analyze().await;
    world.reconnect_through_a_pooler().await;
    world.costs().await;
    wrong.extend(world.beyond(&few, "planned with statistics").await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What is more in a large database, but not without end.
const BOUNDED: [(&str, u64); 4] = [
    // It counts up to 100 000 deliveries.
    ("health", 4_000),
    // It looks at 10 000 events at a time.
    ("list events of a type", 1_000),
    // It looks at 10 000 of them, and whether each has what few have.
    ("list entities of which there are few", 80_000),
    // Which it finds by halving, twice.
    ("look for what is old", 700),
];

/// What each call took.
#[derive(Default)]
struct Costs(BTreeMap<&'static str, Vec<Ran>>);

impl Costs {
    /// What each call costs when nothing comes in between: whoever makes tables, in whatever database of the
    /// server, has all connections read the catalogue once more.
    fn or_less(self, other: Self) -> Self {
        let both = self.0.into_iter().zip(other.0);
        let less = both.map(|((call, one), (_, other))| {
            (call, if blocks(&one) < blocks(&other) { one } else { other })
        });
        Self(less.collect())
    }

    /// What costs more than when there was little, or goes through more than a page.
    fn beyond(&self, few: &Self, when: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for (call, ran) in &self.0 {
            let [small, large] = [&few.0[call], ran].map(|ran| blocks(ran));
            assert!(small > 0, "{call} costs nothing: nobody has looked");
            let bound = BOUNDED.iter().find(|(name, _)| name == call).map(|(_, pages)| *pages);
            if large > bound.unwrap_or(small * 2 + 20) {
                let what = format!("{call}, {when}: {small} pages, then {large}: {}", dearest(ran));
                wrong.push(what);
            }
            let wide = ran.iter().find(|ran| ran.widest.0 > ROWS_MAX);
            if let Some(Ran { text, widest: (rows, step), .. }) = wide
                && bound.is_none()
            {
                wrong.push(format!("{call}, {when}: {rows} rows in {step}: {text}"));
            }
        }
        wrong
    }
}

fn blocks(ran: &[Ran]) -> u64 {
    ran.iter().map(|ran| ran.blocks).sum()
}

/// The statements that took most of it.
fn dearest(ran: &[Ran]) -> String {
    let mut dearest: Vec<_> = ran.iter().collect();
    dearest.sort_by_key(|ran| Reverse(ran.blocks));
    let shown = |ran: &&Ran| format!("{} by {}\n{:#}", ran.blocks, ran.text, ran.plan);
    dearest.iter().take(4).map(shown).collect::<Vec<_>>().join("\n")
}

/// More rows are not gone through at once.
const ROWS_MAX: u64 = 2_000;

impl World {
    /// What costs more than when there was little, however often it is called.
    async fn beyond(&mut self, few: &Costs, when: &str) -> Vec<String> {
        let mut least = self.costs().await;
        for _ in 1..CALLS_MAX {
            if least.beyond(few, when).is_empty() {
                break;
            }
            least = least.or_less(self.costs().await);
        }
        least.beyond(few, when)
    }

    /// What each call costs. Each does the same whenever it is called, and leaves as much behind.
    async fn costs(&mut self) -> Costs {
        let mut costs = Costs::default();
        let (storage, organization) = (self.storage.clone(), self.organization);
        self.watch.look();
        macro_rules! cost {
            ($call:literal, $future:expr) => {{
                let result = $future.await.unwrap();
                costs.0.insert($call, self.watch.look());
                result
            }};
        }

        let event = self.event(organization);
        let units = self.routed(vec![event], None).await;
        self.watch.look();
        let published = cost!("publish", storage.commit(units.clone()));
        let published = published.into_iter().next().unwrap().unwrap().events[0];
        cost!("publish once more", storage.commit(units));
        let settled = self.settle(vec![
            settlement(&self.quick, published.seq, Outcome::Delivered),
            settlement(&self.failing, published.seq, Outcome::Exhausted),
        ]);
        cost!("settle", storage.commit(vec![settled]));
        let given_up = DeliveryId::new(published.id, published.seq, self.failing.lane);
        cost!("read a delivery", storage.delivery(organization, given_up)).unwrap();
        cost!("read an event", storage.event(organization, published.id)).unwrap();
        let (lane, seq) = (self.failing.lane, published.seq);
        cost!("send again", storage.reopen(organization, lane, seq));
        let settled = self.settle(vec![again(&self.failing, published)]);
        cost!("settle once more", storage.commit(vec![settled]));

        macro_rules! claim {
            ($call:literal, $subscription:expr, $in_order:expr) => {{
                let (after, held) = (Some(Seq::ZERO), Vec::new());
                let lane = $subscription.lane;
                let wants = [Want { lane, room: 10, after, held, in_order: $in_order }];
                let claimed = cost!($call, storage.claim(&self.worker, &wants, 1 << 20));
                assert!(!claimed[0].due.is_empty(), $call);
            }};
        }
        claim!("claim what was never tried", &self.backlog, false);
        claim!("claim retries", &self.failing, false);
        claim!("claim in order", &self.backlog, true);
        claim!("claim retries in order", &self.failing, true);
        cost!("look for lanes", storage.waiting(&self.worker, None, 100));
        cost!("take lanes", storage.take(&self.worker, &[self.quick.lane, self.failing.lane]));
        cost!("let go of lanes", storage.release(&self.worker, &[self.quick.lane]));
        cost!("renew", storage.renew(&self.worker));
        cost!("read the intake", storage.intake(None, PAGE, &[]));
        cost!("look for what is due", storage.next_due());
        let due = (0..10).map(|_| (NOON, self.event(self.beside))).collect();
        cost!("schedule what is due", storage.schedule(due, Limit::Unlimited));
        assert_eq!(cost!("release what is due", storage.release_due(10)), 10);
        cost!("look for fan-outs", storage.fan_outs(None, 10, 1 << 20)).unwrap();
        let fed = cost!("read a feed", storage.feed("feed", None, 10, 1 << 20));
        let batch = &fed.batches[0];
        let step = FeedStep { organization: batch.organization, from: batch.from, to: batch.to };
        cost!("advance a feed", storage.advance_feed(&self.worker, "feed", vec![step]));
        self.delete_one_that_is_owed(SLICE + 1).await;
        self.watch.look();
        let swept = cost!("sweep", storage.sweep(&self.worker, SLICE));
        assert!(swept.more);
        while storage.sweep(&self.worker, 100).await.unwrap().more {}
        self.watch.look();
        cost!("check", storage.check());

        self.write_entities(&mut costs).await;
        self.list_entities(&mut costs).await;

        self.watch.look();
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
        cost!("list what was cancelled", list(&self.failing, Some(DeliveryState::Cancelled)));
        cost!("list subscriptions", storage.subscriptions(organization, page()));
        cost!("count subscriptions", storage.count_subscriptions(organization));
        cost!("route", storage.routes(organization)).unwrap();
        cost!("list clients", storage.clients(organization, page()));
        cost!("read a client", storage.client("client")).unwrap();
        cost!("read a client of an organization", storage.client_of(organization, "client"));
        cost!("read the audit trail", storage.audit(organization, page()));
        cost!("read a trail that is older", storage.audit(self.old.id, page()));
        cost!("list what is scheduled", storage.scheduled(self.beside, page()));
        cost!("list replays", storage.replays(organization, self.quick.id, page()));
        cost!("look for replays", storage.running_replays(Default::default(), 10));
        cost!("health", storage.health(organization, self.failing.id));
        cost!("usage", storage.usage(organization));
        cost!("read an organization", storage.organization(organization)).unwrap();
        cost!("set a plan", storage.set_plan(organization, None, BY));
        cost!("read the keys of links", storage.link_keys(LinkKey::from_bytes([7; 32])));
        let fresh = InstallationId::from_bytes([7; 16]);
        cost!("read which installation it is", storage.installation(fresh));

        let token = self.token(TokenKind::Access);
        cost!("store a token", storage.store_tokens(&secret(), vec![token.clone()]));
        cost!("read a token", storage.token(&token.digest)).unwrap();
        let revoke = storage.revoke_token(organization, "client", &token.digest);
        assert_eq!(cost!("revoke a token", revoke), Revoked::Done);
        let token = self.token(TokenKind::Refresh);
        storage.store_tokens(&secret(), vec![token.clone()]).await.unwrap();
        let new = [(); 2].map(|()| self.token(TokenKind::Access).digest);
        let [access, refresh] = new.map(|digest| NewToken { digest, expires_at: NOON + HOUR });
        let client_id = "client".to_owned();
        let rotation = Rotation {
            shown: token.digest,
            client: client_id,
            organization,
            scopes: None,
            access,
            refresh,
        };
        self.watch.look();
        let traded = cost!("trade a token", storage.rotate_token(rotation));
        assert!(matches!(traded, Rotated::Renewed(_)));
        let revoke = storage.revoke_token(organization, "client", &refresh.digest);
        assert_eq!(cost!("revoke a grant", revoke), Revoked::Done);
        let waits = self.event(organization);
        cost!("enqueue", storage.enqueue(vec![self.event(self.beside)]));
        let later = vec![(NOON + HOUR, std::sync::Arc::clone(&waits))];
        cost!("schedule", storage.schedule(later, Limit::Unlimited));
        cost!("unschedule", storage.unschedule(organization, waits.id));

        let lost = ReplayOf::Deliveries { exhausted: false, expired: false, delivered: true };
        let kinds = [
            (MISSING, ReplayOf::Missing, self.paused.id),
            (UNDELIVERED, ReplayOf::UNDELIVERED, self.failing.id),
            (DELIVERED, lost, self.quick.id),
        ];
        for (kind, ([look, advance], of, subscription)) in kinds.into_iter().enumerate() {
            let replay = self.replay(of, subscription, self.replayed_to[kind]).await;
            self.watch.look();
            let found = storage.candidates(&replay, 10).await.unwrap();
            costs.0.insert(look, self.watch.look());
            assert_eq!(found.events.len(), 10, "{look}");
            let step = ReplayStep {
                organization,
                replay: replay.id,
                from: replay.position,
                to: found.position,
                seqs: found.events.iter().map(|(seq, _)| *seq).collect(),
                is_done: false,
            };
            self.replayed_to[kind] = found.position;
            storage.advance_replay(&self.worker, step).await.unwrap();
            costs.0.insert(advance, self.watch.look());
            cost!("read a replay", storage.replay(organization, replay.id));
            cost!("cancel a replay", storage.cancel_replay(organization, replay.id));
        }

        let (id, other) = (self.ulid(), OrganizationId::from_ulid(self.ulid()));
        let subscription = subscribe(&storage, organization, id).await;
        costs.0.insert("subscribe", self.watch.look());
        cost!("read a subscription", storage.subscription(organization, subscription.id)).unwrap();
        let update = storage.update_subscription(organization, subscription.id, pause(), BY);
        cost!("pause", update);
        let mut update = SubscriptionUpdate::default();
        let to = Secret::new("another-one").unwrap();
        update.secret = Some(SecretChange::Rotate { to, grace: Duration::from_secs(60) });
        let update = storage.update_subscription(organization, subscription.id, update, BY);
        cost!("rotate a secret", update);
        cost!("unsubscribe", storage.delete_subscription(organization, subscription.id, BY));
        cost!("make a client", storage.create_client(client(organization, "gone"), BY));
        cost!("rotate a client", storage.rotate_client(organization, "gone", secret(), BY));
        cost!("delete a client", storage.delete_client(organization, "gone", BY));
        create_organization(&storage, other).await;
        costs.0.insert("make an organization", self.watch.look());
        cost!("delete an organization", storage.delete_organization(other, BY));
        while storage.sweep(&self.worker, 1000).await.unwrap().more {}

        self.watch.look();
        let put = PutId::from_bits(7);
        let blob = BlobKey { organization, event: published.id, put };
        cost!("look for the events of blobs", storage.unnamed_blobs(vec![blob]));
        cost!(
            "look for the organizations of an event",
            storage.organizations_of_event(published.id)
        );
        cost!("erase an event", storage.erase_event(organization, published.id));
        self.remove(&mut costs).await;
        self.sweep().await;
        costs
    }

    /// What units cost that write entities.
    async fn write_entities(&mut self, costs: &mut Costs) {
        let (storage, organization) = (self.storage.clone(), self.organization);
        let id = format!("new_{}", self.ulid());
        let other = format!("new_{}", self.ulid());
        let put = |unindexed, indexed| EntityAction::Put(put_entity(unindexed, indexed));
        let color = [("color", "red")];
        let step = |id: &str, expected, action| EntityStep { key: person(id), expected, action };
        for (call, steps) in [
            (
                "create entities",
                vec![
                    step(&id, Expected::Absent, put(&[], &[("color", "red"), ("name", "1")])),
                    step(&other, Expected::Absent, put(&[], &color)),
                ],
            ),
            (
                "write entities",
                vec![
                    step(&id, Expected::Revision(1), put(&[("name", "1")], &[("name", "2")])),
                    step(&other, Expected::Present, EntityAction::Refer(1)),
                ],
            ),
            (
                "delete entities",
                vec![
                    step(&id, Expected::Revision(2), EntityAction::Delete),
                    step(&other, Expected::Unchanged(1, 1), EntityAction::Delete),
                ],
            ),
        ] {
            let unit = Unit::write(EntityWrite { organization, steps });
            self.watch.look();
            let written = storage.commit(vec![unit]).await.unwrap();
            assert!(written[0].is_ok(), "{call}: {written:?}");
            costs.0.insert(call, self.watch.look());
        }
    }

    /// What it costs to read entities.
    async fn list_entities(&mut self, costs: &mut Costs) {
        let (storage, organization) = (self.storage.clone(), self.organization);
        let all = EntityQuery {
            kind: person("a").kind,
            having: Vec::new(),
            by: None,
            is_descending: false,
            after: None,
            limit: PAGE,
        };
        let red = vec![entry("color", "red")];
        let by_name = EntityQuery { by: Some("name".into()), ..all.clone() };
        let few = [red.clone(), vec![entry("color", "blue")]].concat();
        for (call, query) in [
            ("list entities", all.clone()),
            ("list entities by a field", by_name.clone()),
            (
                "list entities that have something",
                EntityQuery { having: red.clone(), ..all.clone() },
            ),
            (
                "list entities that have something by a field",
                EntityQuery { having: red, ..by_name.clone() },
            ),
        ] {
            for is_descending in [false, true] {
                let first = EntityQuery { is_descending, ..query.clone() };
                let page = storage.entities(organization, &first).await.unwrap();
                assert_eq!(page.items.len(), PAGE, "{call}");
                let second = EntityQuery { after: page.next, ..first };
                let page = storage.entities(organization, &second).await.unwrap();
                assert_eq!(page.items.len(), PAGE, "{call}");
            }
            costs.0.insert(call, self.watch.look());
        }
        let few = EntityQuery { having: few, ..all };
        let page = storage.entities(organization, &few).await.unwrap();
        assert!(page.items.is_empty());
        costs.0.insert("list entities of which there are few", self.watch.look());
        let values = [10_i64, 11].map(|owner| IndexValue(owner.to_be_bytes().into()));
        let referring = storage.referring(organization, &few.kind, "owner", &values);
        let referring = referring.await.unwrap();
        costs.0.insert("read who refers to entities", self.watch.look());
        let key = referring[0][0].key.clone();
        storage.entity(organization, &key).await.unwrap().unwrap();
        costs.0.insert("read an entity", self.watch.look());
        assert!(storage.next_entity_due().await.unwrap().is_some());
        costs.0.insert("look for when an entity is due", self.watch.look());
        assert_eq!(storage.due_entities(10).await.unwrap().len(), 10);
        costs.0.insert("look for entities that are due", self.watch.look());
    }

    /// What the slices of removing cost, whichever comes next in a round.
    async fn remove(&mut self, costs: &mut Costs) {
        let (now, slice, old) = (NOON.as_millis(), SLICE, (NOON - AGE).as_millis());
        let (key, lane, possible) = (self.old.key, self.old.lane.get(), now + 1);
        let to = format!("(SELECT removed_to FROM esl.organizations WHERE key = {key})");
        for (call, sql) in [
            ("remove records", format!("remove_records_1({now}, {old}, {slice})")),
            ("look for what is old", format!("retention_1({now}, 0, {slice}, {old}, {possible})")),
            (
                "go on to look for what is old",
                format!("retention_1({now}, 5, {slice}, {old}, {possible})"),
            ),
            ("remove what is closed", format!("remove_closed_1({now}, {key}, 0, {to}, {slice})")),
            ("look for what is owed", format!("first_owed_1({lane}, 1, 1000000)")),
            ("remove what was deleted", format!("remove_deleted_1({now}, {slice})")),
            (
                "remove strays",
                format!("remove_strays_1({now}, md5('nobody')::uuid, {old}, {slice})"),
            ),
            ("remove remains", format!("remove_remains_1({now})")),
        ] {
            assert_eq!(self.call(&format!("SELECT * FROM esl.{sql}")).await, 1, "{call}");
            costs.0.insert(call, self.watch.look());
        }
        let seqs = format!(
            "ARRAY(SELECT seq FROM esl.events WHERE organization = {key} ORDER BY seq LIMIT 5)"
        );
        self.call(&format!("SELECT * FROM esl.remove_events_1({now}, {key}, {seqs})")).await;
        costs.0.insert("remove events", self.watch.look());
        let storage = self.storage.clone();
        for call in ["a slice of removing", "another one", "a third one", "a fourth one"] {
            storage.remove_old(&self.worker, Some(AGE), SLICE).await.unwrap();
            costs.0.insert(call, self.watch.look());
        }
    }
}

const fn page<K>() -> Page<K> {
    Page { after: None, limit: PAGE }
}

fn person(id: &str) -> EntityKey {
    EntityKey::new("person".parse().unwrap(), id.parse().unwrap())
}

fn entry(field: &str, value: &str) -> IndexEntry {
    IndexEntry { field: field.into(), value: IndexValue(value.as_bytes().into()) }
}

fn put_entity(unindexed: &[(&str, &str)], indexed: &[(&str, &str)]) -> PutEntity {
    let entries = |entries: &[(&str, &str)]| {
        entries.iter().map(|(field, value)| entry(field, value)).collect()
    };
    PutEntity {
        created_at: NOON,
        updated_at: NOON,
        due_at: Some(NOON + HOUR),
        document: "{}".into(),
        unindexed: entries(unindexed),
        indexed: entries(indexed),
    }
}

const MISSING: [&str; 2] = ["look for what is missing", "replay what is missing"];
const UNDELIVERED: [&str; 2] = ["look for what was not delivered", "replay what was not delivered"];
const DELIVERED: [&str; 2] = ["look for what was delivered", "replay what was delivered"];
