//! Clients, as an organization's admins see them.

use axum::http::{Method, StatusCode};
use esl_core::{Actor, Client, Digest, storage::Tenancy};
use serde_json::{Value, json};

use crate::world::{Reply, World, a_client};

const CLIENTS: &str = "/api/v1/clients";

async fn create(world: &World, body: &Value) -> Reply {
    world.post(CLIENTS).json(body).send().await
}

/// What `POST /oauth/token` says to that client.
async fn authenticate(world: &World, id: &str, secret: &str) -> Reply {
    let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    world.anonymous(Method::POST, "/oauth/token").form(&form).send().await
}

fn text<'a>(reply: &'a Reply, member: &str) -> &'a str {
    reply.body[member].as_str().unwrap_or_else(|| panic!("{member} in {}", reply.text))
}

#[tokio::test]
async fn a_client_is_made_with_a_secret_that_is_shown_once() {
    let world = World::new().await;
    let made = create(&world, &json!({ "client_id": "shop", "scope": "events:read" })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.header("location"), Some("/api/v1/clients/shop"));
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let secret = text(&made, "client_secret");
    let mut shown = made.body.clone();
    shown.as_object_mut().expect("an object").remove("client_secret");
    let expected = json!({
        "client_id": "shop",
        "scope": "events:read",
        "organization_id": world.organization,
        "created_at": "2024-01-15T14:32:00.000Z",
    });
    assert_eq!(shown, expected);

    let one = world.get("/api/v1/clients/shop").send().await;
    assert_eq!((one.status, &one.body), (StatusCode::OK, &expected));
    let list = world.get(CLIENTS).send().await;
    assert_eq!(list.body["data"][1], expected, "after acme-client");
    assert!(!list.text.contains("secret"), "{}", list.text);

    let tokens = authenticate(&world, "shop", secret).await;
    assert_eq!((tokens.status, text(&tokens, "scope")), (StatusCode::OK, "events:read"));
    let stored = world.storage.client("shop").await.expect("a read").expect("a client");
    assert_eq!(stored.secret, Digest::of(secret.as_bytes()), "nothing else is kept of it");
}

#[tokio::test]
async fn what_is_left_out_is_made_up_and_the_scope_is_the_tokens_own() {
    let world = World::new().await;
    for call in [world.post(CLIENTS), world.post(CLIENTS).json(&json!({}))] {
        let made = call.send().await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        assert!(Client::is_id(text(&made, "client_id")), "{}", made.text);
        assert_eq!(text(&made, "scope"), "events:admin");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_new_client_is_named_at_once() {
    let world = World::new().await;
    let wrong = json!({ "client_id": "a b", "scope": "events:all", "description": "mine" });
    let refused = create(&world, &wrong).await;
    assert_eq!(refused.places(), ["/client_id", "/scope", "/description"]);
    for (member, value) in
        [("client_id", json!("..")), ("client_id", json!(7)), ("scope", json!(" "))]
    {
        let refused = create(&world, &json!({ member: value })).await;
        assert_eq!(refused.places(), [format!("/{member}")]);
    }
}

#[tokio::test]
async fn an_id_that_is_taken_is_refused_whoever_has_it() {
    let world = World::new().await;
    let mine = create(&world, &json!({ "client_id": "acme-client" })).await;
    let theirs = create(&world, &json!({ "client_id": "other-client" })).await;
    assert_eq!((mine.status, text(&mine, "code")), (StatusCode::CONFLICT, "conflict"));
    assert_eq!(mine.text, theirs.text, "the answer does not say whose it is");
}

#[tokio::test]
async fn an_organization_has_at_most_a_thousand_clients() {
    let world = World::new().await;
    for number in 1..Client::PER_ORGANIZATION_MAX {
        let client = a_client(&format!("c-{number}"), world.organization, esl_core::Scopes::all());
        world.storage.create_client(client, &Actor::APPLICATION).await.expect("there is room");
    }
    let refused = create(&world, &json!({})).await;
    assert_eq!((refused.status, text(&refused, "code")), (StatusCode::CONFLICT, "client_limit"));
}

#[tokio::test]
async fn clients_are_listed_by_id_page_by_page() {
    let world = World::new().await;
    for id in ["b", "a", "z"] {
        create(&world, &json!({ "client_id": id })).await;
    }
    let mut listed = Vec::new();
    let mut uri = format!("{CLIENTS}?limit=3");
    loop {
        let page = world.get(&uri).send().await;
        let data = page.body["data"].as_array().expect("a list");
        listed.push(data.iter().map(|one| one["client_id"].clone()).collect::<Vec<_>>());
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        uri = format!("{CLIENTS}?limit=3&cursor={cursor}");
    }
    assert_eq!(listed, [vec!["a", "acme-client", "b"], vec!["z"]]);
    let events = world.get("/api/v1/events?cursor=Y2E").send().await;
    assert_eq!(events.places(), ["parameter cursor"], "a cursor is good for its list alone");
}

#[tokio::test]
async fn a_rotated_secret_ends_the_old_one_and_all_tokens_at_once() {
    let world = World::new().await;
    let made = create(&world, &json!({ "client_id": "shop" })).await;
    let old = text(&made, "client_secret");
    let tokens = authenticate(&world, "shop", old).await;
    let (access, refresh) = (text(&tokens, "access_token"), text(&tokens, "refresh_token"));
    let with_token = async |token: &str| {
        world.anonymous(Method::GET, "/api/v1/events").token(token).send().await.status
    };
    // Known to this server now, and not asked for again within a second.
    assert_eq!(with_token(access).await, StatusCode::OK);

    let rotated = world.post("/api/v1/clients/shop/rotate-secret").send().await;
    assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.text);
    assert_eq!(rotated.header("cache-control"), Some("no-store"));
    let new = text(&rotated, "client_secret");
    assert_ne!(new, old);
    assert_eq!(with_token(access).await, StatusCode::UNAUTHORIZED);
    let form = format!(
        "grant_type=refresh_token&refresh_token={refresh}&client_id=shop&client_secret={new}"
    );
    let traded = world.anonymous(Method::POST, "/oauth/token").form(&form).send().await;
    assert_eq!(text(&traded, "error"), "invalid_grant");
    assert_eq!(text(&authenticate(&world, "shop", old).await, "error"), "invalid_client");
    let tokens = authenticate(&world, "shop", new).await;
    assert_eq!(with_token(text(&tokens, "access_token")).await, StatusCode::OK);
    assert_eq!(with_token(&world.token).await, StatusCode::OK, "another client's token stays");
}

#[tokio::test]
async fn a_deleted_client_opens_nothing_from_then_on_and_may_be_the_last_one() {
    let world = World::new().await;
    assert_eq!(world.get("/api/v1/events").send().await.status, StatusCode::OK);
    let delete = || world.call(Method::DELETE, "/api/v1/clients/acme-client");
    let deleted = delete().send().await;
    assert_eq!((deleted.status, &*deleted.text), (StatusCode::NO_CONTENT, ""));
    assert_eq!(delete().send().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.storage.client("acme-client").await.expect("a read"), None);
}

#[tokio::test]
async fn a_client_whose_id_needs_escapes_is_found_all_the_same() {
    let world = World::new().await;
    let client = a_client("shop/1 ä", world.organization, esl_core::Scopes::all());
    world
        .storage
        .create_client(client, &Actor::APPLICATION)
        .await
        .expect("an embedder chooses its ids");
    let one = world.get("/api/v1/clients/shop%2F1%20%C3%A4").send().await;
    assert_eq!((one.status, text(&one, "client_id")), (StatusCode::OK, "shop/1 ä"));
}
