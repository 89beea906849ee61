//! What lists show of what is far down, or damaged.

use esl_core::{
    DeliveryId, EventId,
    storage::{Page, Records, StorageErrorKind},
};

use crate::world::World;

#[tokio::test]
async fn what_is_damaged_is_left_out_of_lists_and_is_an_error_by_its_id() {
    let world = World::new().await;
    world.events(5).await;
    world.owe().await;
    // Pages of two: what is left out leaves no gap in them, and ends none.
    let events = async |event_type: Option<&str>| {
        let (mut after, mut seqs) = (None, Vec::new());
        loop {
            let (event_type, page) =
                (event_type.map(|it| it.parse().unwrap()), Page { after, limit: 2 });
            let page = world.storage.events(world.organization, event_type, page).await.unwrap();
            seqs.extend(page.items.iter().map(|event| event.seq.get()));
            after = page.items.last().map(|event| event.seq);
            if !page.more {
                return seqs;
            }
        }
    };
    let deliveries = async || {
        let (mut after, mut seqs) = (None, Vec::new());
        loop {
            let page = Page { after, limit: 2 };
            let (organization, id) = (world.organization, world.subscription);
            let page = world.storage.deliveries(organization, id, None, page).await.unwrap();
            let page = page.expect("the subscription exists");
            seqs.extend(page.items.iter().map(|delivery| delivery.seq.get()));
            after = page.items.last().map(|delivery| delivery.seq);
            if !page.more {
                return seqs;
            }
        }
    };
    let by_type = Some("person.updated");
    assert_eq!(events(None).await, [5, 4, 3, 2, 1]);
    assert_eq!(events(by_type).await, [5, 4, 3, 2, 1]);
    assert_eq!(deliveries().await, [5, 4, 3, 2, 1]);

    let damage = "UPDATE esl.events SET event_type = 'no type' WHERE seq = 3;
                  UPDATE esl.events SET deliveries = -1 WHERE seq = 2";
    world.write(damage).await;
    assert_eq!(events(None).await, [5, 4, 1]);
    assert_eq!(events(by_type).await, [5, 4, 1]);
    // How many deliveries an event has is not what a delivery shows of it.
    assert_eq!(deliveries().await, [5, 4, 2, 1]);
    world.write("UPDATE esl.open SET attempts = -1 WHERE seq = 4").await;
    assert_eq!(deliveries().await, [5, 2, 1]);
    world.write("DELETE FROM esl.events WHERE seq = 5").await;
    assert_eq!(deliveries().await, [2, 1]);

    let storage = &world.storage;
    let id =
        |seq: u8| EventId::from_bytes([[0; 15].as_slice(), &[seq]].concat().try_into().unwrap());
    let damaged = storage.event(world.organization, id(3)).await.unwrap_err();
    assert_eq!(damaged.kind(), StorageErrorKind::Corrupt);
    for seq in [3_u8, 4] {
        let id = DeliveryId::new(id(seq), esl_core::Seq::new(seq.into()), world.lane);
        let damaged = storage.delivery(world.organization, id).await.unwrap_err();
        assert_eq!(damaged.kind(), StorageErrorKind::Corrupt, "{seq}");
    }
}

#[tokio::test]
async fn an_event_of_a_rare_type_is_found_however_far_down_it_is() {
    let world = World::new().await;
    world.events(25_000).await;
    world.write("UPDATE esl.events SET event_type = 'a.rare' WHERE seq IN (3, 4, 14000)").await;
    // Of what is removed there are no rows, and so no stretches to go through.
    world.write("DELETE FROM esl.events WHERE seq BETWEEN 5 AND 9000").await;
    let page = async |after: Option<u64>, limit| {
        let page = Page { after: after.map(esl_core::Seq::new), limit };
        let event_type = Some("a.rare".parse().unwrap());
        let page = world.storage.events(world.organization, event_type, page).await.unwrap();
        (page.items.iter().map(|event| event.seq.get()).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(page(None, 9).await, (vec![14_000, 4, 3], false));
    assert_eq!(page(None, 2).await, (vec![14_000, 4], true));
    assert_eq!(page(Some(4), 1).await, (vec![3], false));
    assert_eq!(page(Some(3), 1).await, (vec![], false));
}
