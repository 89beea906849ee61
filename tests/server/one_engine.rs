//! One server at a time has a database.

use crate::support::{Api, Folder, WITH_CLIENT};

#[tokio::test]
async fn a_second_server_on_the_same_file_refuses_to_start_and_says_why() {
    let folder = Folder::new();
    let first = folder.start(&WITH_CLIENT).await;
    let ended = folder.run(&["serve"], &WITH_CLIENT).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let path = std::fs::canonicalize(folder.database()).expect("the database is there");
    let expected = format!("another server runs on the database {}", path.display());
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);

    // The first one has not noticed, and the file is free once it has gone, in whatever way.
    Api::new(&first.base).await.publish("person.updated", 1.into()).await;
    first.kill().await;
    folder.start(&WITH_CLIENT).await.stop().await;
}
