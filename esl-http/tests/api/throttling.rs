//! Whoever guesses the secrets of clients.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use axum::http::{Method, StatusCode};
use esl_core::{CallbackPolicy, storage::StorageErrorKind};
use esl_http::api::ApiConfig;
use futures_util::future::join_all;

use crate::{
    faulty::Mode,
    log::Log,
    world::{Reply, World},
};

const RIGHT: &str = "the+secret+of+acme-client%3A+100%25+%26+more";
const HERE: &str = "203.0.113.1";
const ELSEWHERE: &str = "203.0.113.2";

async fn ask(world: &World, address: &str, client: &str, secret: &str) -> Reply {
    let form = format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
    world.anonymous(Method::POST, "/oauth/token").from(address).form(&form).send().await
}

/// Fails with so many guesses.
async fn guess(world: &World, address: &str, count: usize) {
    for _ in 0..count {
        let reply = ask(world, address, "acme-client", "wrong").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{}", reply.text);
    }
}

async fn status(world: &World, address: &str, secret: &str) -> u16 {
    ask(world, address, "acme-client", secret).await.status.as_u16()
}

#[tokio::test]
async fn after_five_failures_a_client_is_turned_away_unseen_for_a_while() {
    let world = World::new().await;
    guess(&world, HERE, 5).await;
    let before = world.fault.calls();
    let reply = ask(&world, HERE, "acme-client", RIGHT).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.body["error"], "temporarily_unavailable");
    assert!(reply.body["error_description"].is_string());
    assert_eq!(world.fault.calls(), before, "nothing was looked up");

    // What is turned away makes it no longer.
    world.clock.advance(Duration::from_secs(1));
    guess(&world, HERE, 1).await;
    let reply = ask(&world, HERE, "acme-client", RIGHT).await;
    assert_eq!(reply.header("retry-after"), Some("2"));
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(status(&world, HERE, RIGHT).await, 200);
    guess(&world, HERE, 5).await;
}

#[tokio::test]
async fn a_right_secret_from_another_address_is_not_slowed() {
    let world = World::new().await;
    guess(&world, HERE, 5).await;
    assert_eq!(status(&world, HERE, RIGHT).await, 429);
    assert_eq!(status(&world, ELSEWHERE, RIGHT).await, 200);
    // A whole network of IPv6 is one address.
    guess(&world, "2001:db8::1", 5).await;
    assert_eq!(status(&world, "2001:db8::ffff:2", RIGHT).await, 429);
    assert_eq!(status(&world, "2001:db8:0:1::1", RIGHT).await, 200);
}

#[tokio::test]
async fn an_address_that_tries_many_clients_is_slowed() {
    let world = World::new().await;
    for number in 0..50 {
        let reply = ask(&world, HERE, &format!("client-{number}"), "wrong").await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(status(&world, HERE, RIGHT).await, 429);
    assert_eq!(status(&world, ELSEWHERE, RIGHT).await, 200);
}

#[tokio::test]
async fn every_route_that_takes_a_secret_counts() {
    let world = World::new().await;
    let credentials = "client_id=acme-client&client_secret=wrong";
    let ask = async |route: &str| {
        let form = format!("token=x&grant_type=refresh_token&refresh_token=x&{credentials}");
        world.anonymous(Method::POST, route).from(HERE).form(&form).send().await.status.as_u16()
    };
    for route in ["/oauth/token", "/oauth/revoke", "/oauth/introspect", "/oauth/token"] {
        assert_eq!(ask(route).await, 401);
    }
    assert_eq!(ask("/oauth/revoke").await, 401);
    for route in ["/oauth/token", "/oauth/revoke", "/oauth/introspect"] {
        assert_eq!(ask(route).await, 429);
    }
}

#[tokio::test]
async fn a_client_that_does_not_exist_is_slowed_like_one_that_does() {
    let world = World::new().await;
    let mut answers = Vec::new();
    for client in ["nobody", "acme-client"] {
        let mut seen = Vec::new();
        for _ in 0..6 {
            let reply = ask(&world, HERE, client, "wrong").await;
            seen.push((reply.status, reply.text));
        }
        answers.push(seen);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn without_addresses_all_share_one() {
    let world = World::new().await;
    let form = "grant_type=client_credentials&client_id=acme-client&client_secret=";
    let ask = async |secret: &str| {
        let call = world.anonymous(Method::POST, "/oauth/token").form(&format!("{form}{secret}"));
        call.send().await.status.as_u16()
    };
    for _ in 0..5 {
        assert_eq!(ask("wrong").await, 401);
    }
    assert_eq!(ask(RIGHT).await, 429);
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is_and_nobody_else_does() {
    let config = ApiConfig::default().with_trusted_proxies("10.0.0.0/8".parse().expect("a list"));
    let world = World::with(config, CallbackPolicy::default()).await;
    let form = "grant_type=client_credentials&client_id=acme-client&client_secret=wrong";
    let ask = async |peer: &str, forwarded: &str| {
        let call = world.anonymous(Method::POST, "/oauth/token").from(peer).form(form);
        call.header("x-forwarded-for", forwarded).send().await.status.as_u16()
    };
    for number in 0..5 {
        // What the client itself has written stands further left.
        assert_eq!(ask("10.0.0.1", &format!("198.51.100.{number}, {HERE}")).await, 401);
    }
    assert_eq!(ask("10.0.0.2", &format!("{HERE}, 10.0.0.1")).await, 429);
    assert_eq!(ask("10.0.0.1", ELSEWHERE).await, 401);
    for number in 0..5 {
        assert_eq!(ask(ELSEWHERE, &format!("198.51.100.{number}")).await != 429, number < 4);
    }
}

#[tokio::test]
async fn the_log_is_told_with_figures_and_without_what_was_typed() {
    let world = World::new().await;
    let log = Log::default();
    let listening = log.listen();
    let warnings = || {
        let lines = log.lines().into_iter();
        lines.filter(|line| line["level"] == "WARN").collect::<Vec<_>>()
    };
    ask(&world, HERE, "a-secret-in-the-wrong-place", "a-wrong-secret").await;
    guess(&world, HERE, 5).await;
    assert_eq!(status(&world, HERE, RIGHT).await, 429);
    assert_eq!(warnings().len(), 1);
    assert_eq!((&warnings()[0]["failed"], &warnings()[0]["slowed"]), (&1.into(), &0.into()));
    world.clock.advance(Duration::from_secs(60));
    ask(&world, ELSEWHERE, "acme-client", "a-wrong-secret").await;
    drop(listening);
    let told = &warnings()[1];
    assert_eq!((&told["failed"], &told["slowed"]), (&6.into(), &1.into()));
    assert_eq!(told["addresses"], 2);
    assert_eq!(told["last_address"], ELSEWHERE);
    for text in ["a-secret-in", "a-wrong-secret", "the secret of", RIGHT] {
        assert!(!log.text().contains(text), "{text}");
    }
}

type Asking<'w> = Pin<Box<dyn Future<Output = Reply> + 'w>>;

/// So many at once, each as far as it gets.
async fn ask_at_once<'w>(world: &'w World, secret: &'static str) -> Vec<Asking<'w>> {
    let ask = || Box::pin(ask(world, HERE, "acme-client", secret)) as Asking<'w>;
    let mut all: Vec<_> = (0..100).map(|_| ask()).collect();
    // More than one look at each, so that none waits for its turn alone.
    for _ in 0..3 {
        for asking in &mut all {
            let is_ready = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context).is_ready()));
            assert!(!is_ready.await, "storage has not answered");
        }
    }
    all
}

#[tokio::test]
async fn of_many_guesses_at_once_no_more_are_looked_at_than_may_fail() {
    let world = World::new().await;
    world.fault.set(Mode::Hang);
    let before = world.fault.calls();
    let mut guesses = ask_at_once(&world, "wrong").await;
    assert_eq!(world.fault.calls() - before, 5);
    // Whose callers go away have learned nothing, and others have their turn.
    world.fault.set(Mode::None);
    guesses.drain(..5);
    let replies = join_all(guesses).await;
    let of = |status| replies.iter().filter(|reply| reply.status == status).count();
    let count = (of(StatusCode::UNAUTHORIZED), of(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(count, (5, 90));
    assert_eq!(world.fault.calls() - before, 10);
}

#[tokio::test]
async fn a_fleet_that_starts_at_once_with_the_right_secret_is_not_slowed() {
    let world = World::new().await;
    // Neither a new one nor one after failures.
    for failures in [0, 4] {
        guess(&world, HERE, failures).await;
        world.fault.set(Mode::Wait);
        let fleet = ask_at_once(&world, RIGHT).await;
        world.fault.set(Mode::None);
        for reply in join_all(fleet).await {
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        }
    }
}

#[tokio::test]
async fn an_attempt_that_storage_has_failed_does_not_count() {
    let world = World::new().await;
    world.fault.set(Mode::Fail(StorageErrorKind::Busy));
    for _ in 0..20 {
        assert_eq!(status(&world, HERE, "wrong").await, 503);
    }
    world.fault.set(Mode::None);
    guess(&world, HERE, 5).await;
    assert_eq!(status(&world, HERE, RIGHT).await, 429);
}

#[tokio::test]
async fn the_log_says_once_that_a_proxy_may_not_be_named() {
    let config = ApiConfig::default().with_trusted_proxies("10.0.0.0/8".parse().expect("a list"));
    let world = World::with(config, CallbackPolicy::default()).await;
    let log = Log::default();
    let listening = log.listen();
    let ask = async |peer: &str| {
        let call = world.get("/api/v1/events").from(peer);
        call.header("x-forwarded-for", ELSEWHERE).send().await;
    };
    let warnings = || {
        let lines = log.lines().into_iter();
        let warnings = lines.filter(|line| line["level"] == "WARN");
        warnings.map(|line| (line["peer"].clone(), line["message"].clone())).collect::<Vec<_>>()
    };
    ask("10.0.0.1").await;
    world.get("/api/v1/events").from(HERE).send().await;
    assert_eq!(warnings(), []);
    ask(HERE).await;
    ask(ELSEWHERE).await;
    drop(listening);
    let [(peer, message)] = &warnings()[..] else { panic!("{}", log.text()) };
    assert_eq!(peer, HERE);
    assert!(message.as_str().expect("a text").contains("ESL_TRUSTED_PROXIES"), "{message}");
}
