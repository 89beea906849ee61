//! The commands `org` and `client`, beside a running server.

use esl_sqlite::rusqlite::Connection;
use serde_json::json;

use crate::support::{Api, CLIENT, Folder, WITH_CLIENT, in_time};

#[tokio::test]
async fn clients_made_and_deleted_beside_a_running_server_count_there() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;

    let organization = folder.json(&["org", "create", "Acme"]).await;
    let organization = organization["id"].as_str().expect("an id");
    let make = ["client", "create", "--org", organization, "--scope", "events:read"];
    let client = folder.json(&make).await;
    let (id, secret) = (&client["client_id"], &client["client_secret"]);
    let (id, secret) = (id.as_str().expect("an id"), secret.as_str().expect("a secret"));
    assert_eq!(client["organization_id"], organization);

    let api = Api::with(&server.base, id, secret).await.expect("the server sees the client");
    assert_eq!(api.get("/api/v1/events").await.0, 200);
    let event = json!({ "type": "person.updated", "data": {} });
    let (status, refused) = api.post("/api/v1/events", &event).await.expect("the server runs");
    assert_eq!(status, 403, "{refused}");

    let delete = ["client", "delete", "--org", "Acme", id];
    assert_eq!(folder.run(&delete, &[]).await.code, Some(0));
    assert!(Api::with(&server.base, id, secret).await.is_none(), "the client is gone");
    in_time("the end of its token", async { while api.get("/api/v1/events").await.0 != 401 {} })
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_rotated_beside_a_running_server_starts_anew_there() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    folder.json(&["org", "create", "Acme"]).await;
    let made = folder.json(&["client", "create", "--org", "Acme", "--id", "till"]).await;
    let old = made["client_secret"].as_str().expect("a secret");
    let api = Api::with(&server.base, "till", old).await.expect("the server sees the client");
    assert_eq!(api.get("/api/v1/events").await.0, 200);

    let rotated = folder.json(&["client", "rotate", "--org", "Acme", "till"]).await;
    let new = rotated["client_secret"].as_str().expect("a secret");
    assert_eq!((&rotated["client_id"], &rotated["scope"]), (&made["client_id"], &made["scope"]));
    assert!(
        Api::with(&server.base, "till", old).await.is_none(),
        "the old secret is worth nothing"
    );
    let renewed = Api::with(&server.base, "till", new).await.expect("the new one is good");
    assert_eq!(renewed.get("/api/v1/events").await.0, 200);
    let is_over = async { while api.get("/api/v1/events").await.0 != 401 {} };
    in_time("the end of its old token", is_over).await;
    server.stop().await;
}

#[tokio::test]
async fn lists_show_what_was_made_and_no_secret() {
    let folder = Folder::new();
    let organization = folder.json(&["org", "create", "Acme"]).await;
    let id = organization["id"].as_str().expect("an id");
    let client = folder.json(&["client", "create", "--org", id, "--id", "shop-1"]).await;
    let secret = client["client_secret"].as_str().expect("a secret");

    let organizations = folder.run(&["org", "list"], &[]).await;
    assert_eq!(organizations.stdout, format!("{id}  Acme\n"));
    let clients = folder.run(&["client", "list", "--org", "Acme"], &[]).await;
    assert!(clients.stdout.starts_with("shop-1  events:subscribe events:read"), "{clients:?}");
    let clients = folder.json(&["client", "list", "--org", "Acme"]).await;
    assert_eq!(clients[0]["client_id"], "shop-1");
    assert!(!clients.to_string().contains(secret), "{clients}");
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_fails() {
    let folder = Folder::new();
    let ended = folder.run(&["org", "list"], &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("there is no database"), "{ended:?}");
    let again = folder.run(&["org", "list"], &[]).await;
    assert!(again.stderr.contains("there is no database"), "a list makes none: {again:?}");

    let acme = folder.json(&["org", "create", "Acme"]).await;
    let acme = acme["id"].as_str().expect("an id");
    folder.json(&["client", "create", "--org", "Acme", "--id", "shop"]).await;
    for (arguments, expected) in [
        (&["org", "create", acme][..], "is an id"),
        (&["org", "create", "Acme"], "there is an organization named Acme already"),
        (&["org", "create", " "], "expected a name"),
        (&["client", "list", "--org", "Other"], "there is no organization Other"),
        (&["client", "create", "--org", "Acme", "--id", "shop"], "there is a client shop already"),
        (&["client", "create", "--org", "Acme", "--id", "a b"], "expected as --id"),
        (&["client", "create", "--org", "Acme", "--scope", "events:all"], "events:all"),
        (&["client", "rotate", "--org", "Acme", "other"], "has no client other"),
        (&["client", "delete", "--org", "Acme", "other"], "has no client other"),
    ] {
        let ended = folder.run(arguments, &[]).await;
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}

#[tokio::test]
async fn an_organization_that_is_called_like_anothers_id_is_not_taken_for_it() {
    let folder = Folder::new();
    let made = folder.json(&["org", "create", "Acme"]).await;
    let acme = made["id"].as_str().expect("an id");
    let other = folder.embed(acme).await;

    let delete = ["org", "delete", acme, "--yes"];
    assert_eq!(folder.run(&delete, &[]).await.code, Some(0));
    let again = folder.run(&delete, &[]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("there is no organization"), "{again:?}");
    let left = folder.json(&["org", "list"]).await;
    assert_eq!((&left[0]["id"], &left[1]), (&json!(other), &json!(null)));
}

#[tokio::test]
async fn the_audit_trail_names_operators_and_clients_also_after_the_organization_is_gone() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let subscription = api.subscribe("http://127.0.0.1:9/", &["*"]).await;
    folder.json(&["org", "set", CLIENT, "--tier", "free"]).await;
    let trail = folder.json(&["audit", "--org", CLIENT]).await;
    let (status, over_http) = api.get("/api/v1/audit").await;
    assert_eq!((status, &over_http["data"]), (200, &trail));
    let of = |index: usize| (&trail[index]["action"], &trail[index]["actor"]);
    let operator = json!({ "kind": "operator", "name": null, "address": null });
    let client = json!({ "kind": "client", "name": CLIENT, "address": "127.0.0.1" });
    assert_eq!(of(0), (&json!("organization.updated"), &operator));
    assert_eq!(of(1), (&json!("subscription.created"), &client));
    assert_eq!(trail[1]["subject"], subscription);
    assert_eq!(of(2), (&json!("client.created"), &operator));
    assert_eq!(of(3), (&json!("organization.created"), &operator));

    let organization = trail[3]["subject"].as_str().expect("an id");
    let delete = ["org", "delete", CLIENT, "--yes"];
    assert_eq!(folder.run(&delete, &[]).await.code, Some(0));
    let line = folder.run(&["audit", "--org", organization, "--limit", "1"], &[]).await;
    assert!(line.stdout.contains(&format!("organization.deleted  {organization}  operator")));
    server.kill().await;
}

#[tokio::test]
async fn an_organization_with_a_damaged_plan_keeps_nobody_from_the_others() {
    let folder = Folder::new();
    let id = async |name| {
        let made = folder.json(&["org", "create", name]).await;
        made["id"].as_str().expect("an id").to_owned()
    };
    let (acme, other) = (id("Acme").await, id("Other").await);
    folder.json(&["client", "create", "--org", "Acme", "--id", "till"]).await;
    let damage = |name: &str| {
        let database = Connection::open(folder.database()).expect("the database");
        let damage = "UPDATE esl_organizations SET tier = 'Free' WHERE name = ?1";
        assert_eq!(database.execute(damage, [name]).expect("it is there"), 1);
    };
    damage("Acme");

    let list = folder.run(&["org", "list"], &[]).await;
    assert_eq!((list.code, list.stdout), (Some(0), format!("{other}  Other\n")));
    assert!(list.stderr.contains(&acme), "{}", list.stderr);
    let clients = folder.json(&["client", "list", "--org", &acme]).await;
    assert_eq!(clients[0]["client_id"], "till");
    assert_eq!(folder.json(&["org", "show", "Other"]).await["name"], "Other");
    folder.start(&WITH_CLIENT).await.stop().await;

    damage("Other");
    damage(CLIENT);
    let server = folder.start(&[]).await;
    server.stop().await;
    assert_eq!(folder.run(&["org", "delete", &acme, "--yes"], &[]).await.code, Some(0));
}

#[tokio::test]
async fn an_id_of_no_organization_is_said_to_be_that_by_every_command() {
    let folder = Folder::new();
    folder.json(&["org", "create", "Acme"]).await;
    let id = "org_01HM6Z8QJ7V3X2N4B5C6D7E8F9";
    let event = "evt_01HM6Z8QJ7V3X2N4B5C6D7E8F9";
    for arguments in [
        &["org", "show", id][..],
        &["org", "set", id, "--tier", "free"],
        &["org", "delete", id, "--yes"],
        &["client", "create", "--org", id],
        &["client", "list", "--org", id],
        &["client", "rotate", "--org", id, "till"],
        &["client", "delete", "--org", id, "till"],
        &["event", "erase", event, "--org", id],
    ] {
        let ended = folder.run(arguments, &[]).await;
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        let expected = format!("there is no organization {id}");
        assert!(ended.stderr.contains(&expected), "{arguments:?}: {ended:?}");
    }
}
