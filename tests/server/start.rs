//! The first start, and the client that is there after one.

use serde_json::{Value, json};

use crate::support::{Api, CLIENT, Folder, SECRET, WITH_CLIENT, postgres_url, shell};

#[tokio::test]
async fn the_lines_printed_at_the_first_start_work_as_they_are() {
    let folder = Folder::new();
    let private = [("ESL_ALLOW_PRIVATE_CALLBACKS", "true")];
    let server = folder.start(&private).await;
    server.stdout.find("the last line", |line| line.contains("of your own").then_some(())).await;
    let text = server.stdout.so_far();
    let (_, lines) = text.split_once("What to do next:").expect("the lines have a head");
    let printed = shell(lines).await;
    assert!(printed.contains(r#""id":"sub_"#), "{printed}");
    assert!(printed.contains(r#""id":"person_"#), "{printed}");
    let shown = |name: &str| {
        let shown = text.lines().find_map(|line| line.trim().strip_prefix(name));
        shown.expect("it is shown").trim()
    };
    let secret = shown("client_secret ");
    let api = Api::with(&server.base, shown("client_id "), secret).await.expect("it is good");
    let events = api.all("/api/v1/events").await;
    assert_eq!(
        (&events[0]["type"], &events[0]["deliveries"]),
        (&"person.created".into(), &1.into())
    );
    let ended = server.stop().await;
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
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").expect("a file");
    let unusable = format!("file://{}/below", file.display());
    let ended = folder.run(&["serve"], &[("ESL_BLOB_STORAGE_URL", &unusable)]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("ESL_BLOB_STORAGE_URL"), "{ended:?}");
}

#[tokio::test]
async fn a_server_whose_broker_is_away_starts_and_says_so() {
    let folder = Folder::new();
    let away = [
        ("ESL_BROKER_URL", "amqp://esl:hunter2@127.0.0.1:1/events"),
        ("ESL_BROKER_EVENTS", "true"),
        ("ESL_BROKER_INGEST", "true"),
    ];
    let server = folder.start(&[&WITH_CLIENT[..], &away].concat()).await;
    let warning = server.logs("no connection to the broker; trying again").await;
    assert_eq!(warning["level"], "WARN");
    assert_eq!(warning["broker"], "amqp://127.0.0.1:1/events");
    let api = Api::new(&server.base).await;
    let (status, health) = api.get("/health").await;
    assert_eq!(status, 200, "{health}");
    assert_eq!(health["status"], "healthy", "{health}");
    assert_eq!(health["broker"], "away", "{health}");
    let event = json!({ "type": "person.updated", "data": 1 });
    let (status, published) = api.post("/api/v1/events", &event).await.expect("the server runs");
    assert_eq!(status, 202, "{published}");
    server.stop().await;
}

#[tokio::test]
async fn check_fails_wherever_serve_does_not_start_and_both_say_the_same() {
    let folder = Folder::new();
    folder.start(&WITH_CLIENT).await.stop().await;
    let beside = |name: &str| folder.database().with_file_name(name).display().to_string();
    std::fs::write(beside("no.db"), "this is no database".repeat(100)).expect("a file");
    let other_secret = format!("{CLIENT}:{}", SECRET.to_uppercase());
    for (name, value, wrong) in [
        ("ESL_BLOB_STORAGE_URL", "s3:///prefix".to_owned(), &["blobs"][..]),
        ("ESL_BLOB_STORAGE_URL", "file://elsewhere/blobs".to_owned(), &[]),
        ("ESL_BLOB_STORAGE_URL", format!("file://{}/below", beside("esl.db")), &["blobs"]),
        ("ESL_BLOB_STORAGE_URL", format!("file://{}", beside("esl.db")), &["blobs"]),
        ("ESL_BLOB_STORAGE_URL", "file:///proc/blobs".to_owned(), &["blobs"]),
        ("ESL_DATABASE_URL", format!("sqlite://{}", beside("no.db")), &["database"]),
        ("ESL_DATABASE_URL", format!("sqlite://{}", beside("no/such/esl.db")), &["database"]),
        ("ESL_DATABASE_URL", "sqlite:///proc/esl.db".to_owned(), &["database", "blobs"]),
        ("ESL_DATABASE_URL", "postgres://esl:hunter2@127.0.0.1:1/app".to_owned(), &["database"]),
        ("ESL_BOOTSTRAP_CLIENT", other_secret, &["client"]),
        ("ESL_LISTEN", "192.0.2.1:8080".to_owned(), &["listen"]),
    ] {
        let variables = [WITH_CLIENT[1], (name, &value)];
        let served = folder.run(&["serve"], &variables).await;
        let checked = folder.run(&["check", "--json"], &variables).await;
        assert_eq!(served.code, checked.code, "{name}={value}: {served:?} {checked:?}");
        assert_ne!(served.code, Some(0), "{name}={value}");
        assert!(served.stderr.contains(name), "{served:?}");
        // What is no value at all is found before anything is looked at.
        let Some(first) = wrong.first() else { continue };
        let findings: Value = serde_json::from_str(&checked.stdout).expect("JSON");
        for (what, found) in findings.as_object().expect("an object") {
            let is_good = found["ok"].as_bool().expect("a verdict");
            assert_eq!(is_good, !wrong.contains(&what.as_str()), "{name}={value}: {findings}");
        }
        let detail = findings[first]["detail"].as_str().expect("a detail");
        assert!(*first == "listen" || served.stderr.contains(detail), "{detail}: {served:?}");
        for secret in [&*SECRET.to_uppercase(), "hunter2"] {
            assert!(!checked.stdout.contains(secret), "{checked:?}");
            assert!(!served.stderr.contains(secret), "{served:?}");
        }
    }
    // What is good starts, after a check that has made nothing.
    let fresh = Folder::new();
    let checked = fresh.run(&["check"], &WITH_CLIENT).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let files = std::fs::read_dir(fresh.database().with_file_name(".")).expect("a folder");
    assert_eq!(files.count(), 0);
    fresh.start(&WITH_CLIENT).await.stop().await;
}

#[tokio::test]
async fn check_tries_where_a_node_is_to_listen() {
    let folder = Folder::new();
    let check = async |url: &str| {
        let ended = folder.run(&["check", "--json"], &[("ESL_DATABASE_LISTEN_URL", url)]).await;
        let findings: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        (ended, findings)
    };
    let nowhere = "postgres://esl:hunter2@127.0.0.1:1/app?sslmode=disable";
    let Some(database) = postgres_url() else {
        // A file has nobody to listen to.
        let (ended, findings) = check(nowhere).await;
        assert_eq!((ended.code, &findings["listening"]["ok"]), (Some(0), &json!(true)));
        return;
    };
    // Before the first start, and after it.
    for is_there in [false, true] {
        if is_there {
            folder.start(&[]).await.stop().await;
        }
        let (ended, findings) = check(&database).await;
        assert_eq!(
            (ended.code, &findings["listening"]["ok"]),
            (Some(0), &json!(true)),
            "{ended:?}"
        );
        let (ended, findings) = check(nowhere).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(
            (&findings["listening"]["ok"], &findings["database"]["ok"]),
            (&json!(false), &json!(true))
        );
        let said = findings["listening"]["detail"].as_str().expect("a detail");
        assert!(said.contains("(ESL_DATABASE_LISTEN_URL) cannot be used"), "{said}");
        assert!(ended.stderr.contains("would start, but not do all"), "{ended:?}");
        assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
        // It is no reason not to start.
        if is_there {
            folder.start(&[("ESL_DATABASE_LISTEN_URL", nowhere)]).await.stop().await;
        }
    }
}
