use axum::http::{Method, StatusCode};
use esl_core::storage::StorageErrorKind;
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
