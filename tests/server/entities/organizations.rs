//! Entities belong to one organization, and to clients with the scope for them.

use serde_json::{Value, json};

use crate::support::{Api, CLIENT, Folder, Server, WITH_CLIENT};

/// What each kind is made of.
fn kinds() -> [(&'static str, Value); 5] {
    let status = "busy";
    [
        ("/api/persons", json!({ "name": "John Smith" })),
        ("/api/pets", json!({ "name": "Buddy", "type": "dog" })),
        ("/api/toys", json!({ "name": "Ball" })),
        ("/api/availability/profiles", json!({ "name": "Meeting", "status": status })),
        (
            "/api/availability/schedules",
            json!({ "user_id": "user_1", "cron": "@yearly", "time_zone": "UTC", "status": status }),
        ),
    ]
}

const USERS: &str = "/api/availability/users";

#[tokio::test]
async fn another_organization_sees_and_changes_nothing() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let ours = Api::new(&server.base).await;
    folder.json(&["org", "create", "Other"]).await;
    let others = client(&folder, &server, "Other", &[]).await;
    let user = format!("{USERS}/user_1");
    assert_eq!(ours.put(&user, &json!({ "status": "busy" })).await.0, 201);
    let mut paths = vec![user];
    for (path, body) in kinds() {
        paths.push(format!("{path}/{}", ours.create(path, &body).await));
    }

    let events = ours.all("/api/v1/events").await;
    for path in &paths {
        let before = ours.get(path).await;
        assert_eq!(before.0, 200, "{path}: {}", before.1);
        assert_eq!(others.get(path).await.0, 404, "{path}");
        assert_eq!(others.patch(path, &json!({ "name": "Mine" })).await.0, 404, "{path}");
        assert_eq!(others.delete(path).await.0, 404, "{path}");
        let (list, _) = path.rsplit_once('/').expect("an id");
        let (_, listed) = others.get(list).await;
        assert_eq!(listed, json!({ "data": [], "next_cursor": null }), "{list}");
        assert_eq!(ours.get(path).await, before, "{path}");
    }
    // What belongs to another organization cannot be referred to; what is called alike is another user.
    let person = paths[1].rsplit_once('/').expect("an id").1;
    let pet = json!({ "name": "Rex", "type": "dog", "owner_id": person });
    let (status, refused) = others.post("/api/pets", &pet).await.expect("the server runs");
    assert_eq!((status, &refused["errors"][0]["pointer"]), (422, &json!("/owner_id")), "{refused}");
    assert_eq!(others.put(&paths[0], &json!({ "status": "away" })).await.0, 201);
    assert_eq!(ours.get(&paths[0]).await.1["status"], "busy");
    assert_eq!(ours.all("/api/v1/events").await, events);
    server.stop().await;
}

#[tokio::test]
async fn each_request_needs_the_scope_for_it() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let owner = Api::new(&server.base).await;
    let user = format!("{USERS}/user_1");
    assert_eq!(owner.put(&user, &json!({ "status": "busy" })).await.0, 201);
    let mut all = vec![(user, USERS, json!({}))];
    for (path, body) in kinds() {
        all.push((format!("{path}/{}", owner.create(path, &body).await), path, body));
    }
    let scopes = [
        ("entities:read", (true, false)),
        ("entities:write", (false, true)),
        ("events:read events:subscribe events:publish", (false, false)),
        ("events:admin", (true, true)),
    ];
    for (scope, (may_read, may_write)) in scopes {
        let api = client(&folder, &server, CLIENT, &["--scope", scope]).await;
        for (one, list, new) in &all {
            for path in [one, *list] {
                let status = api.get(path).await.0;
                assert_eq!(status, if may_read { 200 } else { 403 }, "{scope}: GET {path}");
            }
            let is_forbidden = |status: u16| status == 403;
            // It is looked at before anything else is.
            let wrong = json!({ "nobody": "has this" });
            let answers = [
                ("PATCH", api.patch(one, &wrong).await.0),
                ("PUT", api.put(one, &wrong).await.0),
                ("DELETE", api.delete(&format!("{one}0")).await.0),
            ];
            for (method, status) in answers {
                assert_eq!(is_forbidden(status), !may_write, "{scope}: {method} {one}: {status}");
            }
            if *list != USERS {
                let status = api.post(list, new).await.expect("the server runs").0;
                assert_eq!(status, if may_write { 201 } else { 403 }, "{scope}: POST {list}");
            }
        }
    }
    server.stop().await;
}

/// A new client of an organization.
async fn client(folder: &Folder, server: &Server, organization: &str, scopes: &[&str]) -> Api {
    let make = [&["client", "create", "--org", organization], scopes].concat();
    let made = folder.json(&make).await;
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    let api = Api::with(&server.base, &text("client_id"), &text("client_secret")).await;
    api.expect("the server sees the client")
}
