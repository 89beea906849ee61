//! What must be true after something goes wrong beneath the server: its process, its disk, its
//! database, its receivers, its descriptors, its clock.
//!
//! Cases that take long, or need more than a bare machine has, are ignored here and run by
//! `tests/faults.sh`.

mod clock;
mod damaged_files;
mod full_disk;
mod kills;
mod locked;
mod names;
mod open_files;
mod receivers;
mod stopped;
mod unwritable;
mod wrong;

use serde_json::json;

use crate::support::{Api, Receiver, in_time};

/// Publishes an event of the type `person.updated`; gives its id if it was acknowledged. A refusal
/// must be one for now, and say so.
async fn publish_or_hear_why_not(api: &Api, data: serde_json::Value) -> Option<String> {
    let body = json!({ "type": "person.updated", "data": data });
    let answer = api.post_for_head("/api/v1/events", &body).await;
    let (head, answer) = answer.expect("the server answers");
    if head.status == 202 {
        return Some(answer["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(head.status, 503, "{answer}");
    assert_eq!(answer["code"], "unavailable", "{answer}");
    let again = head.headers.get("retry-after").expect("it says when to come back");
    again.to_str().expect("a text").parse::<u32>().expect("so many seconds");
    assert_eq!(head.headers["content-type"], "application/problem+json");
    None
}

/// Waits until `GET /health` answers with a status.
async fn until_health(api: &Api, status: u16) {
    let wait = async { while api.get("/health").await.0 != status {} };
    in_time("another health", wait).await;
}

/// Waits until all of these events have come.
async fn until_all_came(receiver: &Receiver, ids: impl IntoIterator<Item = String>) {
    let mut missing: std::collections::HashSet<String> = ids.into_iter().collect();
    if missing.is_empty() {
        return;
    }
    let what = "all that was acknowledged";
    let is_enough = |request: &crate::support::Received| {
        missing.remove(request.event()["id"].as_str().expect("an id"));
        missing.is_empty()
    };
    receiver.until(what, is_enough).await;
}
