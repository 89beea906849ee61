//! Large payloads as receivers fetch them.

use std::time::Duration;

use esl_core::{CallbackPolicy, Clock as _, DataRef, MemoryBlobStore, SystemClock, Timestamp};
use esl_http::{
    api::{ApiConfig, ServerLimits},
    receiver::{Fetch as _, FetchError, Fetcher},
};
use serde_json::{Value, json};

use crate::{
    blobs::{link, publish, world_with},
    server::{Server, start_with},
};

/// The reference in an event, whose link leads to the server, as of now by the machine's clock.
fn reference(server: &Server, event: &Value) -> DataRef {
    let reference = event["envelope"]["data_ref"].clone();
    let mut reference: DataRef = serde_json::from_value(reference).expect("a reference");
    reference.uri = format!("http://{}{}", server.address, link(event));
    let in_an_hour = SystemClock::new().utc().as_millis() + 3_600_000;
    reference.expires_at = Timestamp::from_millis(in_an_hour);
    reference
}

#[tokio::test]
async fn a_receiver_fetches_what_was_published_until_its_link_expires() {
    let world = world_with(MemoryBlobStore::new(), ApiConfig::default()).await;
    let server = start_with(world, ServerLimits::default()).await;
    let data = json!({ "text": "x".repeat(3_000_000) });
    let event = publish(&server.world, &data).await;
    let reference = reference(&server, &event);
    let fetcher = Fetcher::builder().with_policy(CallbackPolicy::allow_private());
    let fetcher = fetcher.build().expect("a fetcher");

    assert_eq!(fetcher.fetch(&reference).await.expect("the data"), data.to_string());

    let mut forged = reference.clone();
    forged.uri.truncate(forged.uri.len() - 4);
    assert!(matches!(fetcher.fetch(&forged).await, Err(FetchError::Expired)));

    server.world.clock.advance(Duration::from_secs(25 * 3600));
    assert!(matches!(fetcher.fetch(&reference).await, Err(FetchError::Expired)));
}
