//! Several write what is one: through one engine, through two, and for longer than anybody waits.

use std::{sync::Arc, time::Duration};

use axum::http::{Method, StatusCode};
use esl_core::Esl;
use esl_http::api::{self, ApiConfig};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{AUTHORS, BOOKS, code, create, path_of};
use crate::{
    faulty::Mode,
    world::{Reply, World},
};

/// Goes on with the time until it is done: whoever has come too late waits a little before the next try.
async fn as_time_passes<T>(world: &World, work: impl Future<Output = T>) -> T {
    let pass = async {
        loop {
            world.clock.advance(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = work => done,
        never = pass => never,
    }
}

/// Another node over the same storage, with the tokens of the first.
async fn another(world: &World) -> World {
    let esl = Esl::builder(world.storage.clone())
        .clock(Arc::new(world.clock.clone()))
        .kinds(super::kinds())
        .build()
        .await
        .expect("an engine");
    World {
        clock: world.clock.clone(),
        storage: world.storage.clone(),
        fault: world.fault.clone(),
        router: api::router(esl.clone(), ApiConfig::default()),
        esl,
        organization: world.organization,
        token: world.token.clone(),
        stranger_token: world.stranger_token.clone(),
    }
}

fn count(replies: &[Reply], status: StatusCode) -> usize {
    replies.iter().filter(|reply| reply.status == status).count()
}

#[tokio::test]
async fn patches_through_two_nodes_are_all_applied() {
    let world = World::new().await;
    let other = another(&world).await;
    let book = json!({ "title": "Notes", "details": [] });
    let path = path_of(BOOKS, &create(&world, BOOKS, &book).await);
    let adds = (0..20).map(|number| {
        let node = if number % 2 == 0 { &world } else { &other };
        let add = json!([{ "op": "add", "path": "/details/-", "value": number }]);
        let call = node.call(Method::PATCH, &path);
        call.header("content-type", "application/json-patch+json").body(add.to_string()).send()
    });
    for reply in as_time_passes(&world, join_all(adds)).await {
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    }
    let details = other.get(&path).send().await.body["details"].clone();
    let mut numbers: Vec<_> =
        details.as_array().expect("an array").iter().map(Value::as_u64).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_writers_on_two_nodes_who_have_read_the_same_version_one_writes() {
    let world = World::new().await;
    let other = another(&world).await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let path = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
        let read = world.get(&path).send().await;
        let etag = read.header("etag").expect("a tag");
        let writes = (0..8).map(|number| {
            let node = if number % 2 == 0 { &world } else { &other };
            let call = node.call(method.clone(), &path).header("if-match", etag);
            call.json(&json!({ "name": number.to_string() })).send()
        });
        let replies = as_time_passes(&world, join_all(writes)).await;
        let done = count(&replies, StatusCode::OK) + count(&replies, StatusCode::NO_CONTENT);
        let failed = count(&replies, StatusCode::PRECONDITION_FAILED);
        assert_eq!((done, failed), (1, 7), "{method}");
    }
}

#[tokio::test]
async fn whoever_always_comes_too_late_is_told_to_come_again() {
    let world = World::new().await;
    let path = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
    world.fault.set(Mode::Contend);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let call = world.call(method, &path).json(&json!({ "name": "Bob" }));
        let refused = as_time_passes(&world, call.send()).await;
        assert_eq!(code(&refused, StatusCode::SERVICE_UNAVAILABLE), "unavailable");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    world.fault.set(Mode::None);
    assert_eq!(world.get(&path).send().await.body["name"], "Ada");
}
