//! Values that are not what was written there: they hold up nothing but themselves.

use std::sync::Arc;

use bytes::Bytes;
use esl_core::{
    Actor, Clock, DeliveryId, DeliveryState, EncryptionKey, Esl, Keyring, Seq, SubscriptionId,
    SubscriptionUpdate, SystemClock, Tiers,
    storage::{
        Commit, Lanes, Page, Publish, Records, Removal, RouteVersion, Routed, StorageErrorKind,
        Subscriptions, Tenancy, Tenure, Unit, Want,
    },
    testing::{ManualClock, ScriptedTransport},
};
use esl_sqlite::{
    SqliteStorage,
    rusqlite::{Transaction, TransactionBehavior},
};

use crate::{World, event, subscription, ulid, unit, worker_id};

const ALL: Page<Seq> = Page { after: None, limit: 100 };

#[tokio::test]
async fn damaged_subscriptions_keep_the_outbox_of_their_own_organization_alone() {
    let world = World::new().await;
    let other = world.beside(2).await;
    let damage = |events: &str| {
        let update = "UPDATE esl_subscriptions SET events = ?1";
        world.connection().execute(update, [events]).unwrap();
    };
    damage("?");
    let clock = ManualClock::new(SystemClock::new().utc());
    let storage = SqliteStorage::options().clock(Arc::new(clock.clone())).open(world.path());
    let storage = storage.unwrap();
    let builder = Esl::builder(storage.clone()).clock(Arc::new(clock.clone()));
    let transport = ScriptedTransport::new(Arc::new(clock.clone()));
    let esl = builder.transport(transport).build().await.unwrap();
    let body = || Bytes::from_static(b"{}");
    let events: Vec<_> = [world.organization, other, world.organization, other]
        .into_iter()
        .zip(1..)
        .map(|(organization, number)| event(organization, number, body()))
        .collect();
    storage.enqueue(events.clone()).await.unwrap();
    let moved = async |organization, count| loop {
        let page = storage.events(organization, None, ALL).await.unwrap();
        if page.items.len() == count {
            return page.items.iter().map(|event| event.id).rev().collect::<Vec<_>>();
        }
        clock.advance(std::time::Duration::from_secs(1));
    };
    assert_eq!(moved(other, 2).await, [events[1].id, events[3].id]);
    let left = storage.intake(None, 9, &[]).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|(_, event)| event.id).collect();
    assert_eq!(left, [events[0].id, events[2].id]);

    damage("*");
    assert_eq!(moved(world.organization, 2).await, left);
    esl.shutdown().await;
}

#[tokio::test]
async fn a_damaged_intake_row_stays_and_the_others_pass_it() {
    let world = World::new().await;
    let other = world.beside(2).await;
    let body = || Bytes::from_static(b"{}");
    let events: Vec<_> = [world.organization, world.organization, other, world.organization]
        .into_iter()
        .zip(1..)
        .map(|(organization, number)| event(organization, number, body()))
        .collect();
    world.storage.enqueue(events.clone()).await.unwrap();
    let connection = world.connection();
    for damage in [
        "event_type = 'no type'",
        "timestamp = 'noon'",
        "event_id = x'00'",
        "body = 'text'",
        "digest = x'00'",
    ] {
        let keep = "CREATE TEMP TABLE kept AS SELECT * FROM esl_intake WHERE id = 2";
        connection.execute(keep, []).unwrap();
        let update = format!("UPDATE esl_intake SET {damage} WHERE id = 2");
        connection.execute(&update, []).unwrap();
        let rows = world.storage.intake(None, 2, &[]).await.unwrap();
        let found: Vec<_> = rows.iter().map(|(_, event)| event.id).collect();
        assert_eq!(found, [events[0].id, events[2].id], "{damage}");
        let rows = world.storage.intake(Some(rows[0].0), 9, &[]).await.unwrap();
        let found: Vec<_> = rows.iter().map(|(_, event)| event.id).collect();
        assert_eq!(found, [events[2].id, events[3].id], "{damage}");

        // Mended, it is moved.
        let mend = "INSERT OR REPLACE INTO esl_intake SELECT * FROM kept; DROP TABLE kept";
        connection.execute_batch(mend).unwrap();
        assert_eq!(world.storage.intake(None, 9, &[]).await.unwrap().len(), 4, "{damage}");
    }
}

#[tokio::test]
async fn a_damaged_event_holds_up_nothing_but_itself() {
    let world = World::new().await;
    for number in 1..=4 {
        world.publish(number).await;
    }
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    world.storage.take(&worker, &[world.lane]).await.unwrap();
    let claim = async |in_order| {
        let after = Some(Seq::ZERO);
        let want = Want { lane: world.lane, room: 9, after, held: Vec::new(), in_order };
        let claimed = world.storage.claim(&worker, &[want], 1_000).await.unwrap().remove(0);
        // With anything left to be had, the lane would ask again and again.
        assert!(claimed.is_all);
        assert_eq!(claimed.next_due, None);
        claimed.due.iter().map(|due| due.seq.get()).collect::<Vec<_>>()
    };
    let connection = world.connection();
    // Once as it was committed, and once as a retry that is due.
    for due_at in [0, 1] {
        connection.execute("UPDATE esl_open SET due_at = ?1", [due_at]).unwrap();
        for damage in [
            "UPDATE esl_events SET event_type = 'no type' WHERE key = 1 << 40 | 3",
            "UPDATE esl_events SET timestamp = 'noon' WHERE key = 1 << 40 | 3",
            "UPDATE esl_events SET body = 'text' WHERE key = 1 << 40 | 3",
            "DELETE FROM esl_events WHERE key = 1 << 40 | 3",
        ] {
            let keep = "CREATE TEMP TABLE kept AS SELECT * FROM esl_events WHERE key = 1 << 40 | 3";
            connection.execute(keep, []).unwrap();
            connection.execute(damage, []).unwrap();
            assert_eq!(claim(false).await, [1, 2, 4], "{damage}");
            // Those after it would overtake it.
            assert_eq!(claim(true).await, [1, 2], "{damage}");
            let mend = "INSERT OR REPLACE INTO esl_events SELECT * FROM kept; DROP TABLE kept";
            connection.execute_batch(mend).unwrap();
            assert_eq!(claim(true).await, [1, 2, 3, 4], "{damage}");
        }
    }
}

#[tokio::test]
async fn a_damaged_delivery_or_subscription_holds_up_its_own_lane_alone() {
    let world = World::new().await;
    let other = subscription(world.organization, 2);
    let other = world
        .storage
        .create_subscription(other, &Tiers::default(), &Actor::APPLICATION)
        .await
        .unwrap()
        .lane;
    let publish = Publish {
        organization: world.organization,
        route_version: RouteVersion(2),
        events: vec![Routed::new(world.event(1, b"{}"), [world.lane, other].into())],
        idempotency: None,
        metering: None,
    };
    world.storage.commit(vec![Unit::publish(publish)]).await.unwrap();
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let lanes = [world.lane, other];
    world.storage.take(&worker, &lanes).await.unwrap();
    let connection = world.connection();
    connection.execute("UPDATE esl_open SET attempts = 'one' WHERE lane = 1", []).unwrap();
    let wants = lanes.map(|lane| Want {
        lane,
        room: 9,
        after: Some(Seq::ZERO),
        held: Vec::new(),
        in_order: false,
    });
    // Room for the bodies of one: what is damaged takes none of it away.
    let claimed = world.storage.claim(&worker, &wants, 2).await.unwrap();
    let claimed: Vec<_> = claimed.iter().map(|one| (one.lane, one.due.len())).collect();
    assert_eq!(claimed, [(other, 1)]);
    connection.execute("UPDATE esl_subscriptions SET send_order = '?' WHERE lane = 1", []).unwrap();
    let taken = world.storage.take(&worker, &lanes).await.unwrap();
    assert_eq!(taken.iter().map(|taken| taken.subscription.lane).collect::<Vec<_>>(), [other]);
}

#[tokio::test]
async fn the_fan_out_of_a_damaged_event_holds_up_its_own_organization_alone() {
    let world = World::new().await;
    let other = world.beside(2).await;
    for number in 1..=3 {
        world.publish(number).await;
    }
    let connection = world.connection();
    let open = "INSERT INTO esl_fan_outs (organization, seq, after_lane, last_lane) VALUES
        (1, 1, 0, 1), (1, 2, 0, 1), (1, 3, 0, 1), (2, 1, 0, 1)";
    connection.execute(open, []).unwrap();
    let theirs = "INSERT INTO esl_events (key, id, event_type, timestamp, deliveries, body)
        SELECT 2 << 40 | 1, id, event_type, timestamp, 1, body FROM esl_events LIMIT 1";
    connection.execute(theirs, []).unwrap();
    let fan_outs = async |after| {
        let (organization, found) = world.storage.fan_outs(after, 9, 100).await.unwrap().unwrap();
        (organization, found.iter().map(|fan_out| fan_out.seq.get()).collect::<Vec<_>>())
    };
    for (damaged, left) in [(3, vec![1, 2]), (1, vec![])] {
        let damage = "UPDATE esl_events SET event_type = 'no type' WHERE key = 1 << 40 | ?1";
        connection.execute(damage, [damaged]).unwrap();
        assert_eq!(fan_outs(None).await, (world.organization, left));
        assert_eq!(fan_outs(Some(world.organization)).await, (other, vec![1]));
    }
}

#[tokio::test]
async fn what_is_damaged_is_left_out_of_lists_and_can_be_erased() {
    let world = World::new().await;
    let mut events = Vec::new();
    for number in 1..=4 {
        events.push(world.publish(number).await);
    }
    let connection = world.connection();
    let subscription = SubscriptionId::from_ulid(ulid(1));
    // Pages of two: what is left out leaves no gap in them, and ends none.
    let listed = async || {
        let (mut after, mut seqs, mut owed) = (None, Vec::new(), Vec::new());
        loop {
            let page = Page { after, limit: 2 };
            let page = world.storage.events(world.organization, None, page).await.unwrap();
            seqs.extend(page.items.iter().map(|event| event.seq.get()));
            after = page.items.last().map(|event| event.seq);
            if !page.more {
                break;
            }
        }
        let mut after = None;
        loop {
            let page = Page { after, limit: 2 };
            let (organization, storage) = (world.organization, &world.storage);
            let page = storage.deliveries(organization, subscription, None, page).await.unwrap();
            let page = page.unwrap();
            owed.extend(page.items.iter().map(|delivery| delivery.seq.get()));
            after = page.items.last().map(|delivery| delivery.seq);
            if !page.more {
                break;
            }
        }
        (seqs, owed)
    };
    for damage in [
        "UPDATE esl_events SET event_type = 'no type' WHERE key = 1 << 40 | 3",
        "UPDATE esl_events SET timestamp = 'noon' WHERE key = 1 << 40 | 2",
    ] {
        connection.execute(damage, []).unwrap();
    }
    assert_eq!(listed().await, (vec![4, 1], vec![4, 1]));
    connection.execute("UPDATE esl_open SET attempts = 'one' WHERE seq = 4", []).unwrap();
    assert_eq!(listed().await, (vec![4, 1], vec![1]));

    for event in &events[1..3] {
        let erased = world.storage.erase_event(world.organization, event.id).await.unwrap();
        assert!(!erased.before);
        let event = world.storage.event(world.organization, event.id).await.unwrap().unwrap();
        assert!(event.erased_at.is_some());
    }
    assert_eq!(listed().await, (vec![4, 3, 2, 1], vec![3, 2, 1]));
    let page = world.storage.events(world.organization, None, ALL).await.unwrap();
    let types = page.items.iter().map(|event| event.event_type.as_str());
    let known = "person.updated";
    assert_eq!(types.collect::<Vec<_>>(), [known, "system.damaged", known, known]);
    let id = DeliveryId::new(events[2].id, events[2].seq, world.lane);
    let (delivery, _) = world.storage.delivery(world.organization, id).await.unwrap().unwrap();
    assert_eq!(delivery.state, DeliveryState::Cancelled);
}

#[tokio::test]
async fn a_damaged_subscription_is_left_out_of_the_list_and_can_be_deleted() {
    let world = World::new().await;
    let other = subscription(world.organization, 2);
    let other = world
        .storage
        .create_subscription(other, &Tiers::default(), &Actor::APPLICATION)
        .await
        .unwrap();
    let damage = "UPDATE esl_subscriptions SET events = '?' WHERE lane = 1";
    world.connection().execute(damage, []).unwrap();
    let page = Page { after: None, limit: 1 };
    let page = world.storage.subscriptions(world.organization, page).await.unwrap();
    assert_eq!((page.items, page.more), (vec![other], false));
    world.storage.routes(world.organization).await.unwrap_err();
    let damaged = SubscriptionId::from_ulid(ulid(1));
    world
        .storage
        .delete_subscription(world.organization, damaged, &Actor::APPLICATION)
        .await
        .unwrap();
    let routes = world.storage.routes(world.organization).await.unwrap().unwrap();
    assert_eq!(routes.lanes.len(), 1);
    let again = world
        .storage
        .delete_subscription(world.organization, damaged, &Actor::APPLICATION)
        .await
        .unwrap_err();
    assert_eq!(again.kind(), StorageErrorKind::NotFound);
}

#[tokio::test]
async fn a_damaged_subscription_that_is_paused_does_not_hold_up_the_chores() {
    let world = World::new().await;
    let damage =
        "UPDATE esl_subscriptions SET secret = '', active = 0, held_since = 0, expiring = 1";
    world.connection().execute(damage, []).unwrap();
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let mut ready = Vec::new();
    loop {
        let swept = world.storage.sweep(&worker, 10).await.unwrap();
        ready.extend(swept.ready);
        if !swept.more {
            break;
        }
    }
    assert_eq!(ready, [world.lane]);
}

#[tokio::test]
async fn a_change_of_a_subscription_that_cannot_be_read_fails_nobody_else() {
    let world = World::new().await;
    let other = world.beside(2).await;
    let theirs = subscription(other, 2);
    let by = &Actor::APPLICATION;
    let lane = world.storage.create_subscription(theirs, &Tiers::default(), by).await.unwrap().lane;
    // One whose secret needs a key that this handle does not have.
    let keyring = Keyring::new([EncryptionKey::from_bytes(&[1; 32])]).unwrap();
    let beside = SqliteStorage::options().keyring(keyring).open(world.path()).unwrap();
    let sealed = subscription(world.organization, 3);
    let sealed = beside.create_subscription(sealed, &Tiers::default(), by).await.unwrap();
    let damaged = SubscriptionId::from_ulid(ulid(1));
    for (number, damage, id, expected) in [
        (
            1,
            "INSERT INTO esl_lanes (lane, failures, failed_deliveries, last_success_at)
             VALUES (1, 0, 0, 'noon')",
            damaged,
            StorageErrorKind::Corrupt,
        ),
        (
            2,
            "UPDATE esl_subscriptions SET retry_schedule = '?' WHERE lane = 1",
            damaged,
            StorageErrorKind::Corrupt,
        ),
        (3, "", sealed.id, StorageErrorKind::KeyMissing),
    ] {
        let mut connection = world.connection();
        connection.execute_batch(damage).unwrap();
        let mut update = SubscriptionUpdate::default();
        update.active = Some(false);
        let event = event(other, number, Bytes::from_static(b"{}"));
        // All wait for the same lock, and are then one transaction.
        let held = Transaction::new(&mut connection, TransactionBehavior::Immediate).unwrap();
        let (changed, committed, ()) = tokio::join!(
            world.storage.update_subscription(world.organization, id, update, by),
            world.storage.commit(vec![unit(other, lane, event)]),
            async { held.commit().unwrap() }
        );
        assert_eq!(changed.unwrap_err().kind(), expected, "{damage}");
        assert_eq!(committed.unwrap()[0].as_ref().unwrap().events[0].seq.get(), number);
    }
}

#[tokio::test]
async fn an_organization_with_a_damaged_plan_is_left_out_of_the_list_alone() {
    let world = World::new().await;
    let other = world.beside(2).await;
    let damage = |id| {
        let damage = "UPDATE esl_organizations SET tier = 'Free' WHERE key = ?1";
        world.connection().execute(damage, [id]).unwrap();
    };
    damage(1);
    let listed = world.storage.organizations().await.unwrap();
    assert_eq!(listed.iter().map(|one| one.id).collect::<Vec<_>>(), [other]);
    // Without one that can be read, nobody should take the database for a new one.
    damage(2);
    let error = world.storage.organizations().await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Corrupt);
}
