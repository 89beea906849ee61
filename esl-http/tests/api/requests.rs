//! What holds for every request.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{Method, StatusCode},
};
use esl_core::{CallbackPolicy, storage::StorageErrorKind};
use esl_http::api::ApiConfig;
use serde_json::json;

use crate::{faulty::Mode, log::Log, world::World};

#[tokio::test]
async fn a_clients_request_id_is_kept_if_it_is_one() {
    let world = World::new().await;
    let longest = "x".repeat(64);
    for id in ["a", "Req_1-z", &longest] {
        let reply = world.get("/health").header("x-request-id", id).send().await;
        assert_eq!(reply.header("x-request-id"), Some(id));
    }
    for wrong in ["", "a b", "a.b", "a;b", &"x".repeat(65)] {
        let reply = world.get("/health").header("x-request-id", wrong).send().await;
        let ours = reply.header("x-request-id").expect("an id");
        assert!(ours.starts_with("req_") && ours.len() == 30, "{wrong}: {ours}");
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let world = World::new().await;
    for (method, uri) in [
        (Method::GET, "/nowhere"),
        (Method::PUT, "/health"),
        (Method::POST, "/oauth/token"),
        (Method::GET, "/api/v1/events"),
    ] {
        let reply = world.anonymous(method, uri).send().await;
        assert!(reply.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{uri}");
    }
}

#[tokio::test]
async fn a_request_without_a_good_token_is_challenged() {
    let world = World::new().await;
    let plain = r#"Bearer realm="esl""#;
    let invalid = r#"Bearer realm="esl", error="invalid_token""#;
    for (authorization, challenge) in [
        (None, plain),
        (Some("Basic YTpi"), plain),
        (Some("Bearer"), invalid),
        (Some("Bearer garbage"), invalid),
    ] {
        let mut call = world.anonymous(Method::GET, "/api/v1/events");
        if let Some(authorization) = authorization {
            call = call.header("authorization", authorization);
        }
        let reply = call.send().await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{authorization:?}");
        assert_eq!(reply.body["code"], "unauthorized");
        assert_eq!(reply.header("www-authenticate"), Some(challenge), "{authorization:?}");
    }
    let reply = world.anonymous(Method::GET, "/api/v1/events").send().await;
    assert_eq!(
        reply.body,
        json!({
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "code": "unauthorized",
            "detail": "expected the header `Authorization: Bearer <token>`; POST /oauth/token gives one",
        })
    );
}

#[tokio::test]
async fn a_token_is_worth_nothing_once_it_has_expired() {
    let world = World::new().await;
    assert_eq!(world.get("/api/v1/events").send().await.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(3599));
    assert_eq!(world.get("/api/v1/events").send().await.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.get("/api/v1/events").send().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_refresh_token_opens_no_route() {
    let world = World::new().await;
    let form = "grant_type=client_credentials&client_id=acme-client&client_secret=";
    let secret = "the+secret+of+acme-client%3A+100%25+%26+more";
    let call = world.anonymous(Method::POST, "/oauth/token");
    let tokens = call.form(&format!("{form}{secret}")).send().await.body;
    let open = async |token| {
        let token = tokens[token].as_str().expect("a token");
        let call = world.anonymous(Method::GET, "/api/v1/events").token(token);
        call.send().await.status
    };
    assert_eq!(open("access_token").await, StatusCode::OK);
    assert_eq!(open("refresh_token").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn each_route_asks_for_its_scope_and_names_it() {
    let world = World::new().await;
    let subscription = world.subscribe(&["a.b"]).await;
    let event = world.publish("a.b").await;
    let list = format!("/api/v1/subscriptions/{subscription}/deliveries");
    let deliveries = world.get(&list).send().await;
    let delivery = deliveries.body["data"][0]["id"].as_str().expect("a delivery").to_owned();

    let (publish, read, subscribe) = ("events:publish", "events:read", "events:subscribe");
    let either = "events:read or events:subscribe";
    let subscription = format!("/api/v1/subscriptions/{subscription}");
    let event = format!("/api/v1/events/{event}");
    let delivery = format!("/api/v1/deliveries/{delivery}");
    let redeliver = format!("{delivery}/redeliver");
    for (method, uri, good, needed) in [
        (Method::POST, "/api/v1/events", &[publish][..], publish),
        (Method::GET, "/api/v1/events", &[read], read),
        (Method::GET, &event, &[read], read),
        (Method::POST, "/api/v1/subscriptions", &[subscribe], subscribe),
        (Method::GET, "/api/v1/subscriptions", &[read, subscribe], either),
        (Method::GET, &subscription, &[read, subscribe], either),
        (Method::PATCH, &subscription, &[subscribe], subscribe),
        (Method::GET, &list, &[read], read),
        (Method::GET, &delivery, &[read], read),
        (Method::POST, &redeliver, &[subscribe], subscribe),
        (Method::DELETE, &subscription, &[subscribe], subscribe),
    ] {
        for scope in [publish, read, subscribe, "entities:read", "entities:write"] {
            let token = world.token_for("acme-client", world.organization, scope).await;
            let call = world.anonymous(method.clone(), uri).token(&token);
            // A body that every route takes for wrong, so that nothing is changed here.
            let reply = call.raw_json("[").send().await;
            if good.contains(&scope) {
                assert_ne!(reply.status, StatusCode::FORBIDDEN, "{method} {uri} {scope}");
                assert_ne!(reply.status, StatusCode::UNAUTHORIZED, "{method} {uri} {scope}");
                continue;
            }
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{method} {uri} {scope}");
            assert_eq!(reply.body["code"], "insufficient_scope");
            assert_eq!(reply.body["detail"], format!("the token lacks the scope {needed}"));
            let first = needed.split(' ').next().expect("a scope");
            let challenge =
                format!(r#"Bearer realm="esl", error="insufficient_scope", scope="{first}""#);
            assert_eq!(reply.header("www-authenticate"), Some(&*challenge));
        }
    }
}

#[tokio::test]
async fn what_storage_cannot_do_now_is_503_with_a_time_to_come_back() {
    let world = World::new().await;
    let body = json!({ "type": "a.b", "data": {} });
    for (kind, retry_after) in [
        (StorageErrorKind::Busy, "1"),
        (StorageErrorKind::Unavailable, "5"),
        (StorageErrorKind::Fenced, "5"),
    ] {
        world.fault.set(Mode::Fail(kind));
        for call in [world.get("/api/v1/subscriptions"), world.post("/api/v1/events").json(&body)] {
            let reply = call.send().await;
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{kind:?}");
            assert_eq!(reply.header("retry-after"), Some(retry_after), "{kind:?}");
            assert_eq!(reply.body["code"], "unavailable");
            assert!(!reply.text.contains("the-operators-secret-detail"), "{}", reply.text);
        }
    }
}

#[tokio::test]
async fn a_failure_of_ours_says_nothing_of_its_inside() {
    let world = World::new().await;
    world.fault.set(Mode::Fail(StorageErrorKind::Corrupt));
    let reply = world.get("/api/v1/subscriptions").send().await;
    assert_eq!(
        reply.body,
        json!({
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "code": "internal",
            "detail": "something failed on this side; the log knows more under X-Request-Id",
        })
    );
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_answered() {
    let world = World::new().await;
    world.fault.set(Mode::Panic);
    let reply = world.get("/api/v1/subscriptions").header("x-request-id", "mine").send().await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(reply.body["code"], "internal");
    assert_eq!(reply.header("x-request-id"), Some("mine"));
    world.fault.set(Mode::None);
    assert_eq!(world.get("/api/v1/subscriptions").send().await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_given_up() {
    let world = World::new().await;
    world.fault.set(Mode::Hang);
    let reply = world.get("/api/v1/subscriptions").send().await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.body["code"], "timeout");
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_in_time_is_given_up() {
    let config = ApiConfig::default().with_body_timeout(Duration::from_secs(2));
    let world = World::with(config, CallbackPolicy::default()).await;
    let never = futures_util::stream::pending::<Result<Bytes, Infallible>>();
    let call = world.post("/api/v1/events").header("content-type", "application/json");
    let reply = call.body(Body::from_stream(never)).send().await;
    assert_eq!(reply.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(reply.body["code"], "body_timeout");
}

#[tokio::test]
async fn after_a_shutdown_publishing_is_503() {
    let world = World::new().await;
    world.esl.shutdown().await;
    let body = json!({ "type": "a.b", "data": {} });
    let reply = world.post("/api/v1/events").json(&body).send().await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.body["detail"], "the service is stopping");
    assert_eq!(reply.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn mounted_below_a_path_it_answers_as_at_the_root() {
    let mut world = World::new().await;
    let body = json!({ "callback_url": "https://a.example/", "events": ["*"] });
    let nested = axum::Router::new().nest("/esl", world.router.clone());
    let service = axum::Router::new().nest_service("/esl", world.router.clone());
    for router in [nested, service] {
        world.router = router;
        let created = world.post("/esl/api/v1/subscriptions").json(&body).send().await;
        assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
        let location = created.header("location").expect("a place").to_owned();
        assert!(location.starts_with("/esl/api/v1/subscriptions/sub_"), "{location}");
        assert_eq!(world.get(&location).send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn each_request_is_one_line_in_the_log_without_secrets() {
    let world = World::new().await;
    let log = Log::default();
    let _guard = log.listen();

    let secret = "the-secret-of-a-subscription-itself";
    let body = json!({ "callback_url": "https://a.example/", "events": ["*"], "secret": secret });
    let call = world.post("/api/v1/subscriptions?").header("x-request-id", "mine").json(&body);
    let id = call.send().await.body["id"].as_str().expect("an id").to_owned();
    world.get(&format!("/api/v1/subscriptions/{id}")).send().await;
    world.get(&format!("/{}", world.token)).send().await;
    let form = "grant_type=client_credentials&client_id=acme-client\
                &client_secret=the+secret+of+acme-client%3A+100%25+%26+more";
    let tokens = world.anonymous(Method::POST, "/oauth/token").form(form).send().await.body;
    world.fault.set(Mode::Fail(StorageErrorKind::Corrupt));
    world.get("/api/v1/subscriptions").send().await;

    let text = log.text();
    let mut lines = log.lines();
    lines.retain(|line| line["target"] == "esl_http::access");
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("none").to_owned();
            let status = line["status"].as_u64().expect("a status");
            (text("level"), text("method"), text("path"), status, text("client"))
        })
        .collect();
    let line = |level: &str, method: &str, path: &str, status, client: &str| {
        (level.to_owned(), method.to_owned(), path.to_owned(), status, client.to_owned())
    };
    assert_eq!(
        seen,
        [
            line("INFO", "POST", "/api/v1/subscriptions", 201, "acme-client"),
            line("INFO", "GET", "/api/v1/subscriptions/{id}", 200, "acme-client"),
            line("INFO", "GET", "none", 404, "none"),
            line("INFO", "POST", "/oauth/token", 200, "acme-client"),
            line("ERROR", "GET", "/api/v1/subscriptions", 500, "acme-client"),
        ]
    );
    assert_eq!(lines[0]["request_id"], "mine");
    assert!(lines[0]["duration_us"].is_u64());
    assert!(lines[4]["error"].as_str().is_some_and(|text| text.contains("the-operators-secret")));
    let access = tokens["access_token"].as_str().expect("a token");
    let refresh = tokens["refresh_token"].as_str().expect("a token");
    for hidden in [secret, &*world.token, access, refresh, "the secret of", "the+secret+of"] {
        assert!(!text.contains(hidden), "{hidden} is in {text}");
    }
}
