//! Publishing is safe to repeat.

use esl_http::client::{ClientErrorKind, NewEvent};
use serde_json::json;

use crate::scripted::{self, Say, Server, problem};

const EVENT: &str = "evt_01HM6QTXJ0XKGH8V6V5J3W2Q9R";

fn event(number: u32) -> NewEvent {
    NewEvent::new("order.paid", &json!({ "order": number })).unwrap()
}

/// Loses two answers, then tells what was published.
async fn forgetful() -> Server {
    let one = json!({ "id": EVENT, "seq": 7, "deliveries": 2 });
    Server::with_tokens(move |asked, number| match (number % 3, asked.body.starts_with('[')) {
        (1, _) => Say::Break,
        (2, _) => problem(503, "timeout"),
        (_, true) => scripted::json(202, &json!({ "data": [one, one] })),
        (_, false) => scripted::json(202, &one),
    })
    .await
}

#[tokio::test]
async fn all_tries_have_one_key_and_one_body() {
    let server = forgetful().await;
    let published = server.client().publish(&event(1)).await.unwrap();
    assert_eq!(
        (published.id.to_string(), published.seq.get(), published.deliveries),
        (EVENT.into(), 7, 2)
    );
    let asked = server.asked();
    assert_eq!(asked.len(), 3);
    let key = asked[0].header("idempotency-key").unwrap();
    assert!(asked.iter().all(|again| again.header("idempotency-key") == Some(key)));
    assert!(asked.iter().all(|again| again.body == r#"{"type":"order.paid","data":{"order":1}}"#));
}

#[tokio::test]
async fn every_call_has_a_key_of_its_own() {
    let server = forgetful().await;
    let client = server.client();
    client.publish(&event(1)).await.unwrap();
    client.publish(&event(1)).await.unwrap();
    assert_eq!(client.publish_all(&[event(1), event(1)]).await.unwrap().len(), 2);
    let asked = server.asked();
    let mut keys: Vec<_> =
        asked.iter().map(|asked| asked.header("idempotency-key").unwrap()).collect();
    assert_eq!(keys.len(), 9);
    keys.dedup();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key.len() == 36), "{keys:?}");
}

#[tokio::test]
async fn an_id_of_its_own_needs_no_key_and_a_key_of_ones_own_is_sent() {
    let server = forgetful().await;
    let client = server.client();
    let own = event(1).with_id(EVENT.parse().unwrap());
    client.publish(&own).await.unwrap();
    client.publish_all(&[own.clone(), own.clone()]).await.unwrap();
    assert!(server.asked().iter().all(|asked| asked.header("idempotency-key").is_none()));

    let server = forgetful().await;
    // One without an id, and the key is needed.
    server.client().publish_all(&[own, event(2)]).await.unwrap();
    server.client().publish_once("order-1042-paid", &[event(3), event(4)]).await.unwrap();
    let asked = server.asked();
    assert!(asked[0].header("idempotency-key").unwrap().starts_with("esl-"));
    assert_eq!(asked.last().unwrap().header("idempotency-key"), Some("order-1042-paid"));
}

#[tokio::test]
async fn what_an_event_says_goes_out_as_it_is_written() {
    let server = forgetful().await;
    let data =
        serde_json::value::RawValue::from_string(r#"{"n":1.50,"e":1e2}"#.to_owned()).unwrap();
    let event = NewEvent::from_raw("order.paid", data)
        .with_changes(&json!({ "n": { "new": 1.5 } }))
        .unwrap()
        .with_metadata(&json!({ "source": "till" }))
        .unwrap();
    server.client().publish(&event).await.unwrap();
    assert_eq!(
        server.asked()[0].body,
        r#"{"type":"order.paid","data":{"n":1.50,"e":1e2},"changes":{"n":{"new":1.5}},"metadata":{"source":"till"}}"#
    );
}

#[tokio::test]
async fn a_conflict_is_told_and_not_repeated() {
    let server = Server::with_tokens(|_, _| problem(409, "event_conflict")).await;
    let error = server.client().publish(&event(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ClientErrorKind::Conflict, Some("event_conflict")));
    assert_eq!(server.asked().len(), 1);
}
