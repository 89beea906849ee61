//! The first start, and the client that is there after one.

use serde_json::json;

use crate::support::{Api, CLIENT, Folder, SECRET, WITH_CLIENT, shell};

#[tokio::test]
async fn the_lines_printed_at_the_first_start_work_as_they_are() {
    let folder = Folder::new();
    let private = [("ESL_ALLOW_PRIVATE_CALLBACKS", "true")];
    let server = folder.start(&private).await;
    server.stdout.find("the last line", |line| line.contains("person_1").then_some(())).await;
    let text = server.stdout.so_far();
    let (_, lines) = text.split_once("What to do next:").expect("the lines have a head");
    let printed = shell(lines).await;
    assert!(printed.contains(r#""id":"sub_"#), "{printed}");
    assert!(
        printed.contains(r#""id":"evt_"#) && printed.contains(r#""deliveries":1"#),
        "{printed}"
    );
    let ended = server.stop().await;
    let secret = text.lines().find_map(|line| line.trim().strip_prefix("client_secret  "));
    let secret = secret.expect("the secret is shown");
    assert!(!ended.stderr.contains(secret), "{}", ended.stderr);

    let again = folder.start(&private).await.stop().await;
    assert_eq!(again.stdout, "");
}

#[tokio::test]
async fn the_bootstrap_client_is_made_once_and_never_shown() {
    let folder = Folder::new();
    for _ in 0..2 {
        let server = folder.start(&WITH_CLIENT).await;
        Api::new(&server.base).await;
        let ended = server.stop().await;
        assert_eq!(ended.stdout, "");
        assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
        assert!(ended.stderr.contains("ESL_BOOTSTRAP_CLIENT is set"), "{}", ended.stderr);
    }
    let organizations = folder.json(&["org", "list"]).await;
    assert_eq!(organizations.as_array().expect("a list").len(), 1, "{organizations}");
    assert_eq!(organizations[0]["name"], CLIENT);
    let clients = folder.json(&["client", "list", "--org", CLIENT]).await;
    assert_eq!(clients.as_array().expect("a list").len(), 1, "{clients}");
}

#[tokio::test]
async fn a_bootstrap_client_with_another_secret_stops_the_start() {
    let folder = Folder::new();
    folder.start(&WITH_CLIENT).await.stop().await;
    let other = format!("{CLIENT}:{}", SECRET.to_uppercase());
    let ended = folder.run(&["serve"], &[("ESL_BOOTSTRAP_CLIENT", &other)]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("ESL_BOOTSTRAP_CLIENT names the client shop"), "{ended:?}");
    assert!(!ended.stderr.contains(&SECRET.to_uppercase()), "{ended:?}");
    // It has let go of the database, and the first secret is still good.
    let server = folder.start(&WITH_CLIENT).await;
    Api::new(&server.base).await;
    server.stop().await;
}

#[tokio::test]
async fn the_blob_storage_can_be_chosen_and_one_that_cannot_be_used_stops_the_start() {
    let folder = Folder::new();
    let small = [WITH_CLIENT[0], ("ESL_MAX_PAYLOAD_SIZE", "2000")];
    let event = json!({ "type": "person.updated", "data": "x".repeat(3000) });
    let elsewhere = format!("file://{}", folder.database().with_file_name("elsewhere").display());
    for url in ["memory:", &elsewhere] {
        let server = folder.start(&[small[0], small[1], ("ESL_BLOB_STORAGE_URL", url)]).await;
        let api = Api::new(&server.base).await;
        let answer = api.post("/api/v1/events", &event).await;
        let (status, published) = answer.expect("the server runs");
        assert_eq!(status, 202, "{published}");
        server.stop().await;
    }
    assert!(folder.database().with_file_name("elsewhere").is_dir());
    let unusable = format!("file://{}/below", folder.database().display());
    let ended = folder.run(&["serve"], &[("ESL_BLOB_STORAGE_URL", &unusable)]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("ESL_BLOB_STORAGE_URL"), "{ended:?}");
}
