//! What one does in the background, beside others who do the same and whatever else is under way.

use esl_core::{
    NewReplay, Replay, ReplayId, ReplayOf, Seq, Timestamp, WorkerId,
    storage::{Lanes, ReplayStep, Replays, StorageErrorKind, Swept, Tenure},
};

use crate::world::{World, by_hand};

#[tokio::test]
async fn a_sweep_waits_for_nobody_and_comes_back_to_what_was_in_somebodys_hand() {
    let world = World::new().await;
    world.events(3).await;
    world.owe().await;
    let worker = world.worker().await;
    // A settlement that began before the subscription was deleted.
    let mut hand = by_hand().await;
    let settlement = hand.transaction().await.unwrap();
    let put_off = "DELETE FROM esl.open WHERE seq = 2;
                   INSERT INTO esl.open (lane, due_at, seq, attempts) VALUES (1, 5000, 2, 1)";
    settlement.batch_execute(&world.sql(put_off)).await.unwrap();
    world.write("UPDATE esl.subscriptions SET deleted_at = 700").await;

    let swept = world.storage.sweep(&worker, 10).await.unwrap();
    assert_eq!(swept, Swept { cancelled: 2, more: true, ..Swept::default() });
    let swept = world.storage.sweep(&worker, 10).await.unwrap();
    assert_eq!(swept, Swept { more: true, ..Swept::default() });
    settlement.commit().await.unwrap();
    let swept = world.storage.sweep(&worker, 10).await.unwrap();
    assert_eq!(swept, Swept { cancelled: 1, ..Swept::default() });
    assert_eq!(world.storage.sweep(&worker, 10).await.unwrap(), Swept::default());
    assert_eq!(world.numbers("SELECT count(*) FROM esl.open").await, [0]);
    let closed = "SELECT finished_at FROM esl.closed WHERE state = 3 ORDER BY seq";
    assert_eq!(world.numbers(closed).await, [700; 3]);
    let attempts = "SELECT attempts FROM esl.closed ORDER BY seq";
    assert_eq!(world.numbers(attempts).await, [0, 1, 0]);
}

#[tokio::test]
async fn of_two_who_sweep_one_closes_a_delivery() {
    let world = World::new().await;
    world.events(2_000).await;
    world.owe().await;
    world.write("UPDATE esl.subscriptions SET active = false, held_since = 0").await;
    let sweep = async |number| {
        let storage = world.beside().await;
        let worker =
            storage.enlist(WorkerId::from_bytes([number; 16]), Tenure::default()).await.unwrap().0;
        let mut expired = 0;
        loop {
            let swept = storage.sweep(&worker, 100).await.unwrap();
            expired += swept.expired;
            if !swept.more {
                return expired;
            }
        }
    };
    let (one, other) = tokio::join!(sweep(2), sweep(3));
    assert_eq!(one + other, 2_000);
    assert_eq!(world.numbers("SELECT count(*) FROM esl.closed WHERE state = 2").await, [2_000]);
    assert_eq!(world.numbers("SELECT count(*) FROM esl.open").await, [0]);
}

#[tokio::test]
async fn a_damaged_subscription_that_is_paused_does_not_hold_up_the_chores() {
    let world = World::new().await;
    let damage =
        "UPDATE esl.subscriptions SET secret = '', active = false, held_since = 0, expiring = 1";
    world.write(damage).await;
    let worker = world.worker().await;
    let swept = world.storage.sweep(&worker, 10).await.unwrap();
    assert_eq!(swept, Swept { ready: vec![world.lane], ..Swept::default() });
}

#[tokio::test]
async fn of_two_who_take_a_step_of_a_replay_one_does() {
    let world = World::new().await;
    world.events(100).await;
    let (worker, other) = (world.worker().await, world.beside().await);
    let new = NewReplay::new(ReplayOf::Missing);
    let id = ReplayId::from_bytes([1; 16]);
    let replay = Replay::new(id, world.organization, world.subscription, new, Timestamp::EPOCH);
    let replay = world.storage.create_replay(replay).await.unwrap();
    let step = ReplayStep {
        organization: world.organization,
        replay: id,
        from: replay.position,
        to: Seq::new(100),
        seqs: (1..=100).map(Seq::new).collect(),
        is_done: true,
    };
    let (one, two) = tokio::join!(
        world.storage.advance_replay(&worker, step.clone()),
        other.advance_replay(&worker, step),
    );
    let (done, late) = if one.is_ok() { (one, two) } else { (two, one) };
    assert_eq!(done.unwrap().opened, 100);
    assert_eq!(late.unwrap_err().kind(), StorageErrorKind::Conflict);
    assert_eq!(world.numbers("SELECT count(*) FROM esl.open").await, [100]);
}
