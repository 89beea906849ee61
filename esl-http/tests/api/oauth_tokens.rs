//! What becomes of tokens once they are given out: refreshing, revoking, introspecting.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use esl_core::{Actor, CallbackPolicy, Scopes, storage::Tenancy};
use esl_http::api::ApiConfig;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::{
    log::Log,
    world::{NOON, Reply, World, a_client, secret_of},
};

/// Asks as a client, by HTTP Basic.
async fn ask(world: &World, client: &str, route: &str, fields: &[(&str, &str)]) -> Reply {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client), encoded(&secret_of(client)));
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let call = world.anonymous(Method::POST, route);
    let call = call.header("authorization", &format!("Basic {}", STANDARD.encode(pair)));
    let reply = call.form(&form).send().await;
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{route}");
    assert_eq!(reply.header("pragma"), Some("no-cache"), "{route}");
    reply
}

/// The tokens of an answer.
#[derive(Debug, Clone)]
struct Pair {
    access: String,
    refresh: String,
    scope: String,
}

impl Pair {
    #[track_caller]
    fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        let text = |name: &str| reply.body[name].as_str().expect(name).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token"), scope: text("scope") }
    }
}

async fn granted(world: &World, client: &str, scope: &str) -> Pair {
    let fields = [("grant_type", "client_credentials"), ("scope", scope)];
    Pair::of(&ask(world, client, "/oauth/token", &fields).await)
}

async fn refresh(world: &World, client: &str, token: &str, scope: Option<&str>) -> Reply {
    let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
    fields.extend(scope.map(|scope| ("scope", scope)));
    ask(world, client, "/oauth/token", &fields).await
}

async fn revoke(world: &World, client: &str, token: &str) -> Reply {
    ask(world, client, "/oauth/revoke", &[("token", token)]).await
}

async fn introspect(world: &World, client: &str, token: &str) -> Value {
    let reply = ask(world, client, "/oauth/introspect", &[("token", token)]).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.body
}

async fn opens(world: &World, token: &str) -> bool {
    let call = world.anonymous(Method::GET, "/api/v1/events").token(token);
    match call.send().await.status {
        StatusCode::OK => true,
        StatusCode::UNAUTHORIZED => false,
        status => panic!("{status}"),
    }
}

#[track_caller]
fn assert_invalid_grant(reply: &Reply) {
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text);
    assert_eq!(reply.body["error"], "invalid_grant");
}

const ACME: &str = "acme-client";
const READ: &str = "events:read";
const BOTH: &str = "events:read events:publish";

#[tokio::test]
async fn a_refresh_token_buys_the_next_pair() {
    let world = World::new().await;
    let first = granted(&world, ACME, BOTH).await;
    let reply = refresh(&world, ACME, &first.refresh, None).await;
    assert_eq!(reply.body["token_type"], "Bearer");
    assert_eq!(reply.body["expires_in"], 3600);
    let second = Pair::of(&reply);
    assert_eq!(second.scope, BOTH);
    assert_ne!((&first.access, &first.refresh), (&second.access, &second.refresh));
    assert!(opens(&world, &first.access).await && opens(&world, &second.access).await);
    Pair::of(&refresh(&world, ACME, &second.refresh, None).await);
}

#[tokio::test]
async fn a_refresh_token_that_comes_again_ends_the_grant_at_once() {
    let world = World::new().await;
    let (stolen, other) = (granted(&world, ACME, READ).await, granted(&world, ACME, READ).await);
    let next = Pair::of(&refresh(&world, ACME, &stolen.refresh, None).await);
    let log = Log::default();
    let listening = log.listen();
    // Known to the process as good.
    for token in [&stolen.access, &next.access, &other.access] {
        assert!(opens(&world, token).await);
    }
    let again = refresh(&world, ACME, &stolen.refresh, None).await;
    assert_invalid_grant(&again);
    assert!(!opens(&world, &stolen.access).await && !opens(&world, &next.access).await);
    let last = refresh(&world, ACME, &next.refresh, None).await;
    assert_invalid_grant(&last);
    assert_eq!(again.text, last.text, "it does not say what became of a token");
    assert!(opens(&world, &other.access).await);
    Pair::of(&refresh(&world, ACME, &other.refresh, None).await);
    drop(listening);
    let told = log.lines().into_iter().filter(|line| line["level"] == "WARN").collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["client"], ACME);
    for secret in [&stolen.refresh, &next.refresh, &stolen.access, &secret_of(ACME)] {
        assert!(!log.text().contains(secret.as_str()));
    }
}

#[tokio::test]
async fn a_scope_narrows_the_access_token_and_not_the_grant() {
    let world = World::new().await;
    let first = granted(&world, ACME, BOTH).await;
    let narrow = Pair::of(&refresh(&world, ACME, &first.refresh, Some(READ)).await);
    assert_eq!(narrow.scope, READ);
    let publish = world.anonymous(Method::POST, "/api/v1/events").token(&narrow.access);
    assert_eq!(publish.raw_json("{}").send().await.status, StatusCode::FORBIDDEN);
    // What is refused does not use the token up.
    for scope in ["events:subscribe", "events:everything", " ", "events:read events:admin"] {
        let reply = refresh(&world, ACME, &narrow.refresh, Some(scope)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.body["error"], "invalid_scope", "{scope}");
    }
    let wide = Pair::of(&refresh(&world, ACME, &narrow.refresh, None).await);
    assert_eq!(wide.scope, BOTH);
}

#[tokio::test]
async fn a_refresh_token_is_good_for_its_own_client_alone() {
    let world = World::new().await;
    let beside = a_client("beside", world.organization, Scopes::all());
    world.storage.create_client(beside, &Actor::APPLICATION).await.expect("a new client");
    let pair = granted(&world, ACME, BOTH).await;
    for client in ["beside", "other-client"] {
        assert_invalid_grant(&refresh(&world, client, &pair.refresh, None).await);
    }
    assert_invalid_grant(&refresh(&world, ACME, &pair.access, None).await);
    assert_invalid_grant(&refresh(&world, ACME, "nonsense", None).await);
    assert!(opens(&world, &pair.access).await);
    Pair::of(&refresh(&world, ACME, &pair.refresh, None).await);
}

#[tokio::test]
async fn tokens_last_as_long_as_they_are_configured() {
    let lifetimes = (Duration::from_secs(10), Duration::from_secs(60));
    let config = ApiConfig::default().with_token_lifetimes(lifetimes.0, lifetimes.1);
    let world = World::with(config, CallbackPolicy::default()).await;
    let first = granted(&world, ACME, READ).await;
    world.clock.advance(Duration::from_secs(59));
    assert!(!opens(&world, &first.access).await);
    let reply = refresh(&world, ACME, &first.refresh, None).await;
    assert_eq!(reply.body["expires_in"], 10);
    let second = Pair::of(&reply);
    // The new one lasts from now on.
    world.clock.advance(Duration::from_secs(59));
    let third = Pair::of(&refresh(&world, ACME, &second.refresh, None).await);
    world.clock.advance(Duration::from_secs(60));
    assert_invalid_grant(&refresh(&world, ACME, &third.refresh, None).await);
}

#[tokio::test]
async fn a_refresh_token_opens_no_route() {
    let world = World::new().await;
    let pair = granted(&world, ACME, READ).await;
    assert!(!opens(&world, &pair.refresh).await);
}

#[tokio::test]
async fn what_a_client_revokes_is_worth_nothing_at_once() {
    let world = World::new().await;
    let pair = granted(&world, ACME, READ).await;
    assert!(opens(&world, &pair.access).await);
    let reply = revoke(&world, ACME, &pair.access).await;
    assert_eq!((reply.status, reply.text.as_str()), (StatusCode::OK, ""));
    assert!(!opens(&world, &pair.access).await);
    // A refresh token takes all along that it was traded for.
    let next = Pair::of(&refresh(&world, ACME, &pair.refresh, None).await);
    assert!(opens(&world, &next.access).await);
    assert_eq!(revoke(&world, ACME, &next.refresh).await.status, StatusCode::OK);
    assert!(!opens(&world, &next.access).await);
    assert_invalid_grant(&refresh(&world, ACME, &next.refresh, None).await);
}

#[tokio::test]
async fn what_is_worth_nothing_is_revoked_without_complaint() {
    let world = World::new().await;
    let pair = granted(&world, ACME, READ).await;
    for token in ["nonsense", &pair.access, &pair.access] {
        let fields = [("token", token), ("token_type_hint", "whatever")];
        let reply = ask(&world, ACME, "/oauth/revoke", &fields).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    }
    let reply = ask(&world, ACME, "/oauth/revoke", &[]).await;
    assert_eq!((reply.status.as_u16(), &reply.body["error"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn nobody_revokes_the_tokens_of_another_client() {
    let world = World::new().await;
    let beside = a_client("beside", world.organization, Scopes::all());
    world.storage.create_client(beside, &Actor::APPLICATION).await.expect("a new client");
    let pair = granted(&world, ACME, READ).await;
    for token in [&pair.access, &pair.refresh] {
        let reply = revoke(&world, "beside", token).await;
        assert_invalid_grant(&reply);
        // Another organization does not even learn that it exists.
        assert_eq!(revoke(&world, "other-client", token).await.status, StatusCode::OK);
    }
    let form = format!("token={}", pair.access);
    let anonymous = world.anonymous(Method::POST, "/oauth/revoke").form(&form).send().await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    assert_eq!(anonymous.header("www-authenticate"), Some(r#"Basic realm="esl""#));
    assert!(opens(&world, &pair.access).await);
    Pair::of(&refresh(&world, ACME, &pair.refresh, None).await);
}

#[tokio::test]
async fn introspection_tells_what_a_token_is_good_for() {
    let world = World::new().await;
    let beside = a_client("beside", world.organization, Scopes::NONE);
    world.storage.create_client(beside, &Actor::APPLICATION).await.expect("a new client");
    let pair = granted(&world, ACME, BOTH).await;
    let now = NOON.as_millis() / 1000;
    let access = json!({
        "active": true, "scope": BOTH, "client_id": ACME, "token_type": "Bearer",
        "exp": now + 3600, "iss": "http://127.0.0.1:8080",
    });
    // Whichever client of the organization asks.
    for client in [ACME, "beside"] {
        assert_eq!(introspect(&world, client, &pair.access).await, access);
    }
    let refresh_token = json!({
        "active": true, "scope": BOTH, "client_id": ACME,
        "exp": now + 86_400, "iss": "http://127.0.0.1:8080",
    });
    assert_eq!(introspect(&world, ACME, &pair.refresh).await, refresh_token);
}

#[tokio::test]
async fn introspection_tells_nothing_of_what_is_not_good() {
    let world = World::new().await;
    let inactive = json!({ "active": false });
    let pair = granted(&world, ACME, READ).await;
    let revoked = granted(&world, ACME, READ).await;
    let expired = granted(&world, ACME, READ).await;
    for token in [&pair.access, &pair.refresh] {
        assert_eq!(introspect(&world, "other-client", token).await, inactive);
    }
    assert_eq!(introspect(&world, ACME, "nonsense").await, inactive);
    revoke(&world, ACME, &revoked.refresh).await;
    assert_eq!(introspect(&world, ACME, &revoked.access).await, inactive);
    Pair::of(&refresh(&world, ACME, &pair.refresh, None).await);
    assert_eq!(introspect(&world, ACME, &pair.refresh).await, inactive, "it is used up");
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(introspect(&world, ACME, &expired.access).await, inactive);

    let form = format!("token={}", pair.access);
    let anonymous = world.anonymous(Method::POST, "/oauth/introspect").form(&form).send().await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    let reply = ask(&world, ACME, "/oauth/introspect", &[]).await;
    assert_eq!((reply.status.as_u16(), &reply.body["error"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn a_client_that_is_deleted_takes_its_grants_along() {
    let world = World::new().await;
    let pair = granted(&world, ACME, READ).await;
    world
        .storage
        .delete_client(world.organization, ACME, &Actor::APPLICATION)
        .await
        .expect("it was there");
    let reply = refresh(&world, ACME, &pair.refresh, None).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    // Nor are they there for whoever is called the same later.
    let twin = a_client(ACME, world.organization, Scopes::all());
    world.storage.create_client(twin, &Actor::APPLICATION).await.expect("the name is free");
    assert_invalid_grant(&refresh(&world, ACME, &pair.refresh, None).await);
}

#[tokio::test]
async fn metadata_says_where_all_this_is() {
    let world = World::new().await;
    let well_known = "/.well-known/oauth-authorization-server";
    let reply = world.anonymous(Method::GET, well_known).send().await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let methods = json!(["client_secret_basic", "client_secret_post"]);
    let metadata = json!({
        "issuer": "http://127.0.0.1:8080",
        "token_endpoint": "http://127.0.0.1:8080/oauth/token",
        "revocation_endpoint": "http://127.0.0.1:8080/oauth/revoke",
        "introspection_endpoint": "http://127.0.0.1:8080/oauth/introspect",
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": methods,
        "grant_types_supported": ["client_credentials", "refresh_token"],
        "response_types_supported": [],
        "scopes_supported": [
            "events:subscribe", "events:read", "events:admin", "events:publish",
            "entities:read", "entities:write"
        ],
    });
    assert_eq!(reply.body, metadata);
    let below = world.anonymous(Method::GET, &format!("{well_known}/esl")).send().await;
    assert_eq!(below.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metadata_of_an_issuer_with_a_path_is_at_the_root_of_its_host() {
    let url = "https://example.com/esl/";
    let world = World::reached_at(url, ApiConfig::default(), CallbackPolicy::default()).await;
    let well_known = "/.well-known/oauth-authorization-server";
    // The second is what is left by a proxy that takes the path away.
    for path in [&format!("{well_known}/esl"), well_known] {
        let reply = world.anonymous(Method::GET, path).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        assert_eq!(reply.body["issuer"], "https://example.com/esl");
        assert_eq!(reply.body["token_endpoint"], "https://example.com/esl/oauth/token");
    }
}

#[tokio::test]
async fn an_issuers_path_may_have_what_a_router_takes_for_a_pattern() {
    for path in ["/:esl", "/*esl", "/{esl}", "/{*esl}", "/a/:b/*", "/%7Besl%7D"] {
        let url = format!("https://x.example{path}");
        let world = World::reached_at(&url, ApiConfig::default(), CallbackPolicy::default()).await;
        let well_known = "/.well-known/oauth-authorization-server";
        // As clients write it.
        let path = path.replace('{', "%7B").replace('}', "%7D");
        let reply = world.anonymous(Method::GET, &format!("{well_known}{path}")).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        let issuer = reply.body["issuer"].as_str().expect("an issuer");
        assert_eq!(reply.body["token_endpoint"], format!("{issuer}/oauth/token"));
        for other in ["/esl", "/a/b/c", "/esl/more"] {
            let reply = world.anonymous(Method::GET, &format!("{well_known}{other}")).send().await;
            assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path} {other}");
        }
    }
}
