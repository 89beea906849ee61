//! Values that are not what was written there: they hold up nothing but themselves.

use std::sync::Arc;

use bytes::Bytes;
use esl_core::{
    Clock, Esl, SystemClock,
    storage::{Lanes, Page, Records},
    testing::{ManualClock, ScriptedTransport},
};
use esl_sqlite::SqliteStorage;

use crate::{World, event};

const ALL: Page<esl_core::Seq> = Page { after: None, limit: 100 };

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
