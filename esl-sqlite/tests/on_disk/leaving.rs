//! A database whose rows are moved to another one.

use esl_core::{
    Actor, InstallationId, Organization, OrganizationId,
    storage::{
        Commit, Lanes, Removal, StorageErrorKind, Tenancy, Tenure,
        transfer::{Destination, TABLES, TransferId},
    },
};
use esl_sqlite::{Export, SqliteStorage, publish_in};

use super::{NOON, World, outbox::prepare, text, ulid, worker_id};

const ID: TransferId = TransferId::from_bytes([7; 16]);
const INSTALLATION: InstallationId = InstallationId::from_bytes([9; 16]);

fn destination() -> Destination {
    Destination { identity: [8; 16], name: "postgres://db.internal/app".into() }
}

async fn export(world: &World) -> Export {
    Export::open(world.path(), SqliteStorage::options()).await.unwrap()
}

#[tokio::test]
async fn nobody_changes_anything_in_what_is_moved_whoever_had_it_open_before() {
    let world = World::new().await;
    world.publish(1).await;
    let prepared = prepare(&world).await;
    let mut export = export(&world).await;
    export.close(ID, destination(), INSTALLATION).await.unwrap();

    let refused = SqliteStorage::open(world.path()).unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Unsupported);
    let expected = "it is being moved to postgres://db.internal/app, and that is not finished";
    assert!(text(&refused).contains(expected), "{}", text(&refused));

    // This handle was there before.
    let storage = &world.storage;
    let organization = Organization::new(OrganizationId::from_ulid(ulid(9)), "late", NOON);
    let refused = storage.create_organization(organization, &Actor::APPLICATION).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Unsupported);
    assert!(text(&refused).contains("moved to another database"), "{}", text(&refused));
    let late = vec![world.unit(world.event(2, b"{}"))];
    assert_eq!(storage.commit(late).await.unwrap_err().kind(), StorageErrorKind::Unsupported);
    let by = Actor::APPLICATION;
    let refused = storage.delete_organization(world.organization, &by).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Unsupported);

    // And an application's own connection asks nobody.
    let connection = world.connection();
    publish_in(&connection, prepared).unwrap_err();
    for table in TABLES {
        let remove = format!("DELETE FROM esl_{}", table.name);
        let removed = connection.execute(&remove, []);
        assert!(removed.is_err() || removed == Ok(0), "{}", table.name);
    }
    assert_eq!(export.read(&TABLES[0], None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_mark_stays_until_the_database_is_given_back() {
    let world = World::new().await;
    let mut first = export(&world).await;
    let (leaving, installation) = first.close(ID, destination(), INSTALLATION).await.unwrap();
    assert_eq!((leaving.id, installation), (ID, INSTALLATION));
    drop(first);

    let mut again = export(&world).await;
    assert_eq!(again.leaving(), Some(&leaving));
    let other = TransferId::from_bytes([1; 16]);
    let closed = again.close(other, destination(), InstallationId::from_bytes([2; 16])).await;
    assert_eq!(closed.unwrap(), (leaving.clone(), INSTALLATION));
    again.finish().await.unwrap();
    let left_at = again.leaving().unwrap().left_at;
    again.finish().await.unwrap();
    assert_eq!((again.leaving().unwrap().left_at, left_at.is_some()), (left_at, true));
    drop(again);
    let refused = SqliteStorage::open(world.path()).unwrap_err();
    let expected = "it was moved to postgres://db.internal/app, and is kept as it was then";
    assert!(text(&refused).contains(expected), "{}", text(&refused));
    let copy = world.folder.path().join("copy.db");
    SqliteStorage::backup(world.path(), &copy).unwrap();
    SqliteStorage::open(copy).unwrap_err();

    let given_back = export(&world).await.give_back().await.unwrap();
    assert_eq!(given_back.unwrap().left_at, left_at);
    assert_eq!(export(&world).await.leaving(), None);
    let storage = SqliteStorage::open(world.path()).unwrap();
    storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    assert_eq!(
        storage.installation(InstallationId::from_bytes([2; 16])).await.unwrap(),
        INSTALLATION
    );
    world.publish(1).await;
}

#[tokio::test]
async fn a_move_and_an_engine_keep_each_other_away() {
    let world = World::new().await;
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let refused = Export::open(world.path(), SqliteStorage::options()).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Fenced);
    world.storage.resign(&worker).await.unwrap();

    let mut held = export(&world).await;
    let refused = world.storage.enlist(worker_id(2), Tenure::default()).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Fenced);
    held.close(ID, destination(), INSTALLATION).await.unwrap();
    drop(held);
    // Not even with nobody there: it was open before it was closed to engines.
    let refused = world.storage.enlist(worker_id(2), Tenure::default()).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Unsupported);
    let absent = world.folder.path().join("absent.db");
    let refused = Export::open(&absent, SqliteStorage::options()).await.unwrap_err();
    assert_eq!((refused.kind(), absent.exists()), (StorageErrorKind::NotFound, false));
}
