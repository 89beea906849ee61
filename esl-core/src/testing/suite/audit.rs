//! Who has changed what.

use std::{net::IpAddr, time::Duration};

use super::{
    BY,
    world::{SECOND, WORKS, World, first, kind, settle},
};
use crate::{
    Action, Actor, AuditEntry, Client, Digest, DisabledReason, Limit, OrganizationId, Plan, Scopes,
    Secret, SecretChange, Subscription, SubscriptionUpdate, Tier, Tiers,
    storage::{Page, StorageErrorKind, SwitchOff, Unit},
};

const AGE: Duration = Duration::from_secs(100);

pub(super) async fn every_change_is_in_the_trail_with_who_made_it(world: World) {
    let organization = world.organization().await;
    let storage = &world.storage;
    let address: Option<IpAddr> = Some([192, 0, 2, 1].into());
    let by = &Actor::Client { id: "admin".into(), address };
    let plan = Some(Plan::new(Tier::Enterprise));
    storage.set_plan(organization, plan, &Actor::Operator).await.expect(WORKS);
    let client = client(&world, organization, "shop");
    storage.create_client(client, &Actor::application("user 42")).await.expect(WORKS);
    storage.rotate_client(organization, "shop", Digest::of(b"new"), by).await.expect(WORKS);
    let draft = world.draft(organization, "*");
    let subscription =
        storage.create_subscription(draft, &Tiers::default(), by).await.expect(WORKS);
    world.clock.advance(SECOND);
    for update in updates() {
        let id = subscription.id;
        storage.update_subscription(organization, id, update, by).await.expect(WORKS);
    }
    storage.delete_subscription(organization, subscription.id, by).await.expect(WORKS);
    storage.delete_client(organization, "shop", by).await.expect(WORKS);

    let (it, sub) = (organization.to_string(), subscription.id.to_string());
    let user = &Actor::application("user 42");
    let expected: [(Action, &str, &[&str], &Actor); 11] = [
        (Action::OrganizationCreated, &it, &[], BY),
        (Action::OrganizationUpdated, &it, &["tier"], &Actor::Operator),
        (Action::ClientCreated, "shop", &[], user),
        (Action::ClientSecretRotated, "shop", &[], by),
        (Action::SubscriptionCreated, &sub, &[], by),
        (Action::SubscriptionUpdated, &sub, &["active"], by),
        (Action::SubscriptionUpdated, &sub, &["events", "description"], by),
        (Action::SubscriptionSecretRotated, &sub, &["active", "secret"], by),
        (Action::SubscriptionSecretRetired, &sub, &["secret"], by),
        (Action::SubscriptionDeleted, &sub, &[], by),
        (Action::ClientDeleted, "shop", &[], by),
    ];
    let trail = trail(&world, organization).await;
    let found: Vec<_> = trail
        .iter()
        .map(|entry| {
            let fields: Vec<_> = entry.fields.iter().map(String::as_str).collect();
            (entry.action, &*entry.subject, fields, &entry.actor)
        })
        .collect();
    let expected =
        expected.map(|(action, subject, fields, by)| (action, subject, fields.to_vec(), by));
    assert_eq!(found, expected);
    let at: Vec<_> = trail.iter().map(|entry| world.now() - entry.at.since(world.now())).collect();
    assert!(at.is_sorted(), "{at:?}");
    assert_eq!((trail[4].at, trail[5].at), (world.now() - SECOND, world.now()));
}

/// A pause, other events with a description, a rotation that resumes, and its end.
fn updates() -> [SubscriptionUpdate; 4] {
    let mut updates = [(); 4].map(|()| SubscriptionUpdate::default());
    updates[0].active = Some(false);
    updates[1].events = Some(vec!["person.*".parse().expect("a pattern")]);
    updates[1].options.description = Some(Some("people".into()));
    updates[2].active = Some(true);
    let to = Secret::new("another-secret").expect("a secret");
    updates[2].secret = Some(SecretChange::Rotate { to, grace: SECOND });
    updates[3].secret = Some(SecretChange::Finish);
    updates
}

pub(super) async fn what_changed_nothing_is_not_in_the_trail(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let storage = &world.storage;
    storage.create_client(client(&world, organization, "shop"), BY).await.expect(WORKS);

    let before = trail(&world, organization).await;
    let same = SubscriptionUpdate {
        active: Some(true),
        events: Some(subscription.events.clone()),
        ..SubscriptionUpdate::default()
    };
    storage.update_subscription(organization, subscription.id, same, BY).await.expect(WORKS);
    storage.set_plan(organization, None, BY).await.expect(WORKS);
    assert_eq!(trail(&world, organization).await, before);
    let mut none = Tiers::default();
    none.free.subscriptions = Limit::AtMost(0);
    storage.set_plan(organization, Some(Plan::new(Tier::Free)), BY).await.expect(WORKS);
    let before = trail(&world, organization).await;
    let over = storage.create_subscription(world.draft(organization, "*"), &none, BY).await;
    assert_eq!(kind(over), StorageErrorKind::OverLimit);
    let taken = storage.create_client(client(&world, organization, "shop"), BY).await;
    assert_eq!(kind(taken), StorageErrorKind::Conflict);
    let other = world.organization().await;
    let absent = storage.delete_subscription(other, subscription.id, BY).await;
    assert_eq!(kind(absent), StorageErrorKind::NotFound);
    let absent = storage.delete_client(other, "shop", BY).await;
    assert_eq!(kind(absent), StorageErrorKind::NotFound);
    assert_eq!(trail(&world, organization).await, before);
    assert_eq!(trail(&world, other).await.len(), 1, "each organization has a trail of its own");
}

pub(super) async fn what_esl_switches_off_is_in_the_trail(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    let switch_off = SwitchOff { lane, reason: DisabledReason::Gone };
    let unit = || crate::storage::Settle { switch_offs: vec![switch_off], ..settle(&worker) };
    for _ in 0..2 {
        world.commit(Unit::settle(unit())).await.expect("the unit is in order");
    }
    let trail = trail(&world, organization).await;
    let Subscription { id, .. } = subscription;
    let last = trail.last().expect("an entry");
    assert_eq!((last.action, &last.subject), (Action::SubscriptionUpdated, &id.to_string()));
    assert_eq!((&last.actor, &last.fields[..]), (&Actor::System, &["active".to_owned()][..]));
    assert_eq!(trail.len(), 3, "once");
}

pub(super) async fn the_trail_survives_a_kill_and_is_read_in_pages(world: World) {
    let organization = world.organization().await;
    for _ in 0..4 {
        world.subscription(organization).await;
    }
    let before = trail(&world, organization).await;
    let world = world.kill_and_reopen().await;
    assert_eq!(trail(&world, organization).await, before);
    let mut read = Vec::new();
    let mut page = first(2);
    loop {
        let part = world.storage.audit(organization, page).await.expect(WORKS);
        assert!(part.items.len() <= 2);
        page.after = part.items.last().map(|entry| entry.number);
        read.extend(part.items);
        if !part.more {
            break;
        }
    }
    read.reverse();
    assert_eq!(read, before);
}

pub(super) async fn the_trail_is_kept_as_long_as_events_also_of_a_deleted_organization(
    world: World,
) {
    let [organization, deleted] = [world.organization().await, world.organization().await];
    world.clock.advance(SECOND);
    world.subscription(organization).await;
    world.storage.delete_organization(deleted, BY).await.expect(WORKS);
    world.clock.advance(AGE - SECOND);
    let worker = world.worker_of(&[]).await;
    remove_all(&world, &worker).await;
    let actions = async |of| {
        let trail = trail(&world, of).await;
        trail.iter().map(|entry| entry.action).collect::<Vec<_>>()
    };
    assert_eq!(actions(organization).await, [Action::SubscriptionCreated]);
    assert_eq!(actions(deleted).await, [Action::OrganizationDeleted]);
    world.storage.resign(&worker).await.expect(WORKS);
    world.clock.advance(SECOND);
    let worker = world.worker_of(&[]).await;
    assert_eq!(remove_all(&world, &worker).await, 2);
    assert_eq!(actions(organization).await, []);
    assert_eq!(actions(deleted).await, []);
}

async fn remove_all(world: &World, worker: &crate::storage::Worker) -> usize {
    let mut audit = 0;
    loop {
        let removed = world.storage.remove_old(worker, Some(AGE), 100).await.expect(WORKS);
        audit += removed.audit;
        if !removed.more {
            return audit;
        }
    }
}

/// An organization's trail, the oldest first.
async fn trail(world: &World, organization: OrganizationId) -> Vec<AuditEntry> {
    let page = Page { after: None, limit: 1000 };
    let page = world.storage.audit(organization, page).await.expect(WORKS);
    assert!(!page.more, "a case changes less");
    page.items.into_iter().rev().collect()
}

fn client(world: &World, organization: OrganizationId, id: &str) -> Client {
    Client {
        id: id.into(),
        organization,
        secret: Digest::of(b"secret"),
        scopes: Scopes::all(),
        created_at: world.now(),
    }
}
