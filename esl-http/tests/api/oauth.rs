use axum::http::{Method, StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use esl_core::storage::StorageErrorKind;
use serde_json::json;

use crate::{
    faulty::Mode,
    world::{Call, Reply, World},
};

const CREDENTIALS: &str = "client_id=acme-client\
                           &client_secret=the+secret+of+acme-client%3A+100%25+%26+more";

fn ask(world: &World) -> Call<'_> {
    world.anonymous(Method::POST, "/oauth/token")
}

async fn ask_with(world: &World, form: &str) -> Reply {
    ask(world).form(form).send().await
}

#[tokio::test]
async fn a_client_gets_tokens_for_all_that_it_has() {
    let world = World::new().await;
    let form = format!("grant_type=client_credentials&{CREDENTIALS}");
    let reply = ask_with(&world, &form).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    let mut members: Vec<_> = reply.body.as_object().expect("an object").keys().collect();
    members.sort();
    assert_eq!(
        members,
        ["access_token", "expires_in", "refresh_token", "scope", "token_type"],
        "{}",
        reply.text
    );
    assert_eq!(reply.body["token_type"], "Bearer");
    assert_eq!(reply.body["expires_in"], 3600);
    assert_eq!(
        reply.body["scope"],
        "events:subscribe events:read events:admin events:publish entities:read entities:write"
    );
    let token = reply.body["access_token"].as_str().expect("a token");
    assert_ne!(token, reply.body["refresh_token"]);
    let call = world.anonymous(Method::GET, "/api/v1/events").token(token);
    assert_eq!(call.send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_scope_narrows_the_token() {
    let world = World::new().await;
    let form = format!(
        "grant_type=client_credentials&{CREDENTIALS}&scope=events%3Aread+events%3Asubscribe"
    );
    let reply = ask_with(&world, &form).await;
    assert_eq!(reply.body["scope"], "events:subscribe events:read");
    let token = reply.body["access_token"].as_str().expect("a token");
    let call = world.anonymous(Method::POST, "/api/v1/events").token(token);
    assert_eq!(call.raw_json("{}").send().await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_client_may_prove_itself_by_http_basic() {
    let world = World::new().await;
    // Each part is encoded as a form's value first (RFC 6749, section 2.3.1).
    let pair = "acme-client:the+secret%20of+acme-client%3A+100%25+%26+more";
    let basic = format!("Basic {}", STANDARD.encode(pair));
    for form in
        ["grant_type=client_credentials", "grant_type=client_credentials&client_id=acme-client"]
    {
        let reply = ask(&world).header("authorization", &basic).form(form).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    }
    for form in [
        "grant_type=client_credentials&client_secret=x",
        "grant_type=client_credentials&client_id=other-client",
    ] {
        let reply = ask(&world).header("authorization", &basic).form(form).send().await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{form}");
        assert_eq!(reply.body["error"], "invalid_request");
    }
    for wrong in ["Basic", "Basic !", "Basic YQ==", "Bearer YTpi"] {
        let call = ask(&world).header("authorization", wrong);
        let reply = call.form("grant_type=client_credentials").send().await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{wrong}");
        assert_eq!(reply.header("www-authenticate"), Some(r#"Basic realm="esl""#));
    }
}

#[tokio::test]
async fn refusals_have_the_shape_that_oauth_clients_read() {
    let world = World::new().await;
    let grant = "grant_type=client_credentials";
    for (form, status, error) in [
        (CREDENTIALS.to_owned(), 400, "invalid_request"),
        (format!("grant_type=&{CREDENTIALS}"), 400, "invalid_request"),
        (format!("{grant}&{grant}&{CREDENTIALS}"), 400, "invalid_request"),
        (format!("{grant}&{CREDENTIALS}&scope=a&scope=b"), 400, "invalid_request"),
        (format!("grant_type=password&{CREDENTIALS}"), 400, "unsupported_grant_type"),
        (format!("grant_type=refresh_token&{CREDENTIALS}"), 400, "invalid_request"),
        (format!("grant_type=refresh_token&{CREDENTIALS}&refresh_token=x"), 400, "invalid_grant"),
        ("grant_type=refresh_token&refresh_token=x".to_owned(), 401, "invalid_client"),
        (grant.to_owned(), 401, "invalid_client"),
        (format!("{grant}&client_id=acme-client"), 401, "invalid_client"),
        (format!("{grant}&client_id=acme-client&client_secret=wrong"), 401, "invalid_client"),
        (format!("{grant}&client_id=nobody&client_secret=wrong"), 401, "invalid_client"),
        (format!("{grant}&client_id={}&client_secret=x", "x".repeat(300)), 401, "invalid_client"),
        (format!("{grant}&{CREDENTIALS}&scope=events:everything"), 400, "invalid_scope"),
        (format!("{grant}&{CREDENTIALS}&pad={}", "x".repeat(65536)), 400, "invalid_request"),
    ] {
        let reply = ask_with(&world, &form).await;
        assert_eq!(reply.status.as_u16(), status, "{form}");
        assert_eq!(reply.body["error"], error, "{form}");
        assert!(reply.body["error_description"].is_string());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
    }
    let json = json!({ "grant_type": "client_credentials" });
    let reply = ask(&world).json(&json).send().await;
    assert_eq!((reply.status.as_u16(), &reply.body["error"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn a_client_that_does_not_exist_is_like_a_wrong_secret() {
    let world = World::new().await;
    for (route, rest) in [
        ("/oauth/token", "grant_type=client_credentials"),
        ("/oauth/token", "grant_type=refresh_token&refresh_token=x"),
        ("/oauth/revoke", "token=x"),
        ("/oauth/introspect", "token=x"),
    ] {
        let mut answers = Vec::new();
        for client in ["nobody", "acme-client"] {
            let before = world.fault.calls();
            let form = format!("{rest}&client_id={client}&client_secret=x");
            let reply = world.anonymous(Method::POST, route).form(&form).send().await;
            let calls = world.fault.calls() - before;
            answers.push((reply.status, reply.text, reply.headers.len(), calls));
        }
        assert_eq!(answers[0], answers[1], "{route}");
        assert_eq!(answers[0].0, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn what_the_rfc_wants_ignored_is_ignored() {
    let world = World::new().await;
    let form = format!("grant_type=client_credentials&{CREDENTIALS}&audience=x&scope=");
    assert_eq!(ask_with(&world, &form).await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_storage_it_asks_to_come_back() {
    let world = World::new().await;
    world.fault.set(Mode::Fail(StorageErrorKind::Unavailable));
    let reply = ask_with(&world, &format!("grant_type=client_credentials&{CREDENTIALS}")).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.body["error"], "temporarily_unavailable");
    assert_eq!(reply.header("retry-after"), Some("5"));
}
