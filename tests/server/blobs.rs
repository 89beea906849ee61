//! Large payloads at the real server: inline to the last byte, by reference beyond it.

use esl_core::DataRef;
use serde_json::{Value, json};

use crate::support::{Api, Behaviour, Folder, Receiver, WITH_CLIENT, curl};

const LIMIT: usize = 262_144;

/// Publishes an event that has so many bytes in its envelope; gives what the receiver got.
async fn send(api: &Api, receiver: &Receiver, count: usize, envelope_bytes: usize) -> Value {
    let empty = api.publish("person.updated", json!({ "text": "" })).await;
    receiver.first_of(count - 1).await;
    let (_, event) = api.get(&format!("/api/v1/events/{empty}")).await;
    let overhead = event["envelope"].to_string().len();
    let data = json!({ "text": "x".repeat(envelope_bytes - overhead) });
    let id = api.publish("person.updated", data).await;
    let request = receiver.first_of(count).await.pop().expect("so many");
    assert_eq!(request.event()["id"], json!(id));
    assert!(request.body.len() <= LIMIT);
    request.event()
}

#[tokio::test]
async fn a_byte_under_the_limit_is_inline_and_a_byte_over_it_by_reference() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    // One after the other, so that the last one to come is the last one sent.
    let options = json!({ "ordering": "strict" });
    api.subscribe_with(&receiver.url("/"), options).await;
    let inline = send(&api, &receiver, 2, LIMIT).await;
    assert!(inline["data"]["text"].is_string() && inline.get("data_ref").is_none());
    let event = send(&api, &receiver, 4, LIMIT + 1).await;
    assert!(event.get("data").is_none());
    let reference: DataRef =
        serde_json::from_value(event["data_ref"].clone()).expect("a reference");

    let by_link = curl(&[&reference.uri]).await;
    assert_eq!(by_link.status, 200, "{by_link:?}");
    let sealed = DataRef::to_blob(by_link.body.as_bytes(), String::new(), reference.expires_at);
    assert_eq!((sealed.size_bytes, &sealed.checksum), (reference.size_bytes, &reference.checksum));
    let path = format!("/api/v1/blobs/{}", event["id"].as_str().expect("an id"));
    let (status, by_token) = api.get(&path).await;
    assert_eq!((status, by_token), (200, by_link.json()));
    let nobody = curl(&[&server.url(&path)]).await;
    assert_eq!(nobody.status, 401);
    let altered = curl(&[&reference.uri.replace("exp=", "exp=9")]).await;
    assert_eq!(altered.status, 403);

    // It is in the folder, and outlives the server.
    server.kill().await;
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    assert_eq!(api.get(&path).await.0, 200);
    let id = event["id"].as_str().expect("an id");
    folder.json(&["event", "erase", id]).await;
    assert_eq!(api.get(&path).await.0, 404);
    let blobs = folder.database().with_file_name("esl.db.blobs");
    let inside = std::fs::read_dir(blobs).expect("the folder of blobs").flatten();
    for organization in inside.filter(|entry| entry.path().is_dir()) {
        let left = std::fs::read_dir(organization.path()).expect("a folder").count();
        assert_eq!(left, 0, "the blob of the erased event is gone");
    }
    server.stop().await;
}
