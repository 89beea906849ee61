use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::http::{Method, StatusCode};
use esl_core::{CallbackPolicy, storage::StorageErrorKind};
use esl_http::api::{ApiConfig, HealthCheck};
use serde_json::json;

use crate::{faulty::Mode, world::World};

#[tokio::test]
async fn a_working_service_is_healthy_and_says_its_version() {
    let world = World::new().await;
    let reply = world.anonymous(Method::GET, "/health?from=balancer").send().await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.text, r#"{"status":"healthy","version":"1.0.0"}"#);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_storage_fails_or_hangs_is_not() {
    for mode in [Mode::Fail(StorageErrorKind::Unavailable), Mode::Hang] {
        let world = World::new().await;
        world.fault.set(mode);
        let reply = world.anonymous(Method::GET, "/health").send().await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reply.body, json!({ "status": "unhealthy", "version": "1.0.0" }));
    }
}

#[tokio::test]
async fn a_broker_that_is_away_is_said_and_changes_nothing_else() {
    let is_there = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_there);
    let broker = HealthCheck::new(move || asked.load(Ordering::Relaxed));
    let config = ApiConfig::default().with_broker(broker);
    let world = World::with(config, CallbackPolicy::public()).await;
    for (is, said) in [(true, "connected"), (false, "away")] {
        is_there.store(is, Ordering::Relaxed);
        let reply = world.anonymous(Method::GET, "/health").send().await;
        assert_eq!(reply.status, StatusCode::OK);
        let expected = format!(r#"{{"status":"healthy","version":"1.0.0","broker":"{said}"}}"#);
        assert_eq!(reply.text, expected);
    }
}

#[tokio::test]
async fn a_process_that_wants_no_work_is_not_ready_and_works() {
    let wants = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&wants);
    let readiness = HealthCheck::new(move || asked.load(Ordering::Relaxed));
    let config = ApiConfig::default().with_readiness(readiness);
    let world = World::with(config, CallbackPolicy::public()).await;
    for (is, status, said) in
        [(true, StatusCode::OK, "ready"), (false, StatusCode::SERVICE_UNAVAILABLE, "not ready")]
    {
        wants.store(is, Ordering::Relaxed);
        let reply = world.anonymous(Method::GET, "/health/ready").send().await;
        assert_eq!((reply.status, &reply.body["status"]), (status, &said.into()));
        let reply = world.anonymous(Method::GET, "/health").send().await;
        assert_eq!(reply.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn whoever_asks_whether_it_is_ready_hears_how_it_fares() {
    let world = World::new().await;
    let reply = world.anonymous(Method::GET, "/health/ready").send().await;
    assert_eq!((reply.status, reply.header("cache-control")), (StatusCode::OK, Some("no-store")));
    // It has nothing to deliver by.
    let expected = json!({
        "status": "ready", "version": "1.0.0", "database": "connected", "role": "all",
        "delivers": false, "leads": true, "in_flight": 0, "unsettled": 0, "behind_ms": null,
    });
    assert_eq!(reply.body, expected);

    let world = World::new().await;
    world.fault.set(Mode::Fail(StorageErrorKind::Unavailable));
    let reply = world.anonymous(Method::GET, "/health/ready").send().await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&reply.body["status"], &reply.body["database"]),
        (&json!("not ready"), &json!("away"))
    );
}
