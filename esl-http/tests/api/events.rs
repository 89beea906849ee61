use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::world::{Reply, World};

const URI: &str = "/api/v1/events";

async fn publish(world: &World, body: &Value) -> Reply {
    world.post(URI).json(body).send().await
}

async fn envelope(world: &World, id: &Value) -> Value {
    let id = id.as_str().expect("an id");
    world.get(&format!("{URI}/{id}")).send().await.body["envelope"].clone()
}

#[tokio::test]
async fn one_event_is_accepted_with_its_place() {
    let world = World::new().await;
    world.subscribe(&["person.*"]).await;
    world.subscribe(&["*"]).await;
    let reply = publish(&world, &json!({ "type": "person.updated", "data": { "id": 1 } })).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
    let id = reply.body["id"].as_str().expect("an id");
    assert_eq!(reply.text, format!(r#"{{"id":"{id}","seq":1,"deliveries":2}}"#));
    let reply = publish(&world, &json!({ "type": "pet.updated", "data": null })).await;
    assert_eq!((&reply.body["seq"], &reply.body["deliveries"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn what_was_published_is_read_back_byte_for_byte() {
    let world = World::new().await;
    let data = r#"{ "z" : 1.50, "a":12345678901234567890123, "e":"\u00e9\/", "a":[ ] }"#;
    let body = format!(
        r#"{{"data":{data},"type":"person.updated","changes":{{ "n":{{"old":1e2,"new":null}} }},
           "metadata":{{"z":1.0,"source":"schedule","\u0061":"\ud83d\ude00"}}}}"#
    );
    let call = world.post(URI).raw_json(&body).header("x-request-id", "my-request");
    let id = call.send().await.body["id"].as_str().expect("an id").to_owned();
    let envelope = format!(
        r#"{{"id":"{id}","type":"person.updated","version":"1.0","timestamp":"2024-01-15T14:32:00.000Z","organization_id":"{}","data":{data},"changes":{{ "n":{{"old":1e2,"new":null}} }},"metadata":{{"correlation_id":"my-request","triggered_by":"acme-client","source":"schedule","z":1.0,"a":"\ud83d\ude00"}}}}"#,
        world.organization
    );
    let expected = format!(
        r#"{{"id":"{id}","type":"person.updated","seq":1,"timestamp":"2024-01-15T14:32:00.000Z","deliveries":0,"envelope":{envelope}}}"#
    );
    assert_eq!(world.get(&format!("{URI}/{id}")).send().await.text, expected);
    assert_eq!(
        world.get(URI).send().await.text,
        format!(r#"{{"data":[{expected}],"next_cursor":null}}"#)
    );
}

#[tokio::test]
async fn metadata_that_is_left_out_is_filled_in() {
    let world = World::new().await;
    let reply = publish(&world, &json!({ "type": "a.b", "data": 1 })).await;
    let request_id = reply.header("x-request-id").expect("an id");
    assert_eq!(
        envelope(&world, &reply.body["id"]).await["metadata"],
        json!({ "correlation_id": request_id, "triggered_by": "acme-client", "source": "api" })
    );
    let own = json!({ "correlation_id": "c", "triggered_by": "user_1", "source": "import" });
    let body = json!({ "type": "a.b", "data": 1, "metadata": own });
    let reply = publish(&world, &body).await;
    assert_eq!(envelope(&world, &reply.body["id"]).await["metadata"], own);
}

#[tokio::test]
async fn an_array_is_accepted_in_its_order() {
    let world = World::new().await;
    let events: Vec<_> = (0..1000).map(|number| json!({ "type": "a.b", "data": number })).collect();
    let reply = publish(&world, &json!(events)).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
    let data = reply.body["data"].as_array().expect("a list");
    let seqs: Vec<_> = data.iter().map(|event| event["seq"].as_u64().expect("a seq")).collect();
    assert_eq!(seqs, (1..=1000).collect::<Vec<_>>());
    assert_eq!(envelope(&world, &data[999]["id"]).await["data"], 999);
}

#[tokio::test]
async fn an_array_is_accepted_whole_or_not_at_all() {
    let world = World::new().await;
    let good = json!({ "type": "a.b", "data": 1 });
    let reply = publish(&world, &json!([good, { "type": "A" }, good, 7])).await;
    assert_eq!(reply.places(), ["/1/type", "/1/data", "/3"]);
    for count in [0, 1001] {
        let reply = publish(&world, &json!(vec![good.clone(); count])).await;
        let detail = format!("expected 1 to 1000 events, not {count}");
        assert_eq!(reply.faults(), [(String::new(), detail)]);
    }
    assert_eq!(world.get(URI).send().await.body["data"], json!([]));
}

#[tokio::test]
async fn everything_that_is_wrong_is_named_at_once() {
    let world = World::new().await;
    let event = json!({
        "type": "Person",
        "id": "evt_1",
        "changes": [],
        "metadata": { "source": 1, "triggered_by": null, "correlation_id": "c" },
        "kind": "x",
        "organization_id": "org_1",
    });
    let places = [
        "/type",
        "/data",
        "/id",
        "/changes",
        "/metadata/triggered_by",
        "/metadata/source",
        "/kind",
        "/organization_id",
    ];
    assert_eq!(publish(&world, &event).await.places(), places);
    let reply = publish(&world, &json!([{ "type": "a.b", "data": 1 }, event])).await;
    assert_eq!(reply.places(), places.map(|place| format!("/1{place}")));
}

#[tokio::test]
async fn each_member_is_checked() {
    let world = World::new().await;
    let event_type = "expected 2 to 8 segments of a-z, 0-9 and _, joined by dots, \
                      128 characters at most, for instance person.updated";
    let id =
        "expected `evt_` followed by a ULID (26 characters of Crockford's base 32, upper case)";
    for (member, value, place, detail) in [
        ("type", json!(1), "/type", "expected a string"),
        ("type", json!("person"), "/type", event_type),
        ("type", json!("person.*"), "/type", event_type),
        ("type", json!("system.ping"), "/type", "the types below system are ESL's own"),
        ("id", Value::Null, "/id", "expected a string"),
        ("id", json!("evt_01j00000000000000000000000"), "/id", id),
        ("changes", Value::Null, "/changes", "expected an object"),
        ("metadata", Value::Null, "/metadata", "expected an object"),
        ("metadata", json!("x"), "/metadata", "expected an object"),
        ("metadata", json!({ "source": {} }), "/metadata/source", "expected a string"),
        ("time", json!(1), "/time", "there is no such member"),
    ] {
        let mut body = json!({ "type": "a.b", "data": 1 });
        body[member] = value.clone();
        let expected = [(place.to_owned(), detail.to_owned())];
        assert_eq!(publish(&world, &body).await.faults(), expected, "{member}: {value}");
    }
    for (body, place) in [
        (r#"{"type":"a.b","data":1,"type":"a.c"}"#, "/type"),
        (r#"{"type":"a.b","data":1,"d\u0061ta":2}"#, "/data"),
        (r#"{"type":"a.b","data":1,"metadata":{"x":1,"source":"a","x":2}}"#, "/metadata/x"),
    ] {
        let detail = "this member stands there more than once".to_owned();
        let reply = world.post(URI).raw_json(body).send().await;
        assert_eq!(reply.faults(), [(place.to_owned(), detail)], "{body}");
    }
}

#[tokio::test]
async fn metadata_has_at_most_8_kib() {
    let world = World::new().await;
    let with = |bytes: usize| {
        let metadata = format!(r#"{{"note":"{}"}}"#, "x".repeat(bytes - 11));
        format!(r#"{{"type":"a.b","data":1,"metadata":{metadata}}}"#)
    };
    let fits = world.post(URI).raw_json(&with(8192)).send().await;
    assert_eq!(fits.status, StatusCode::ACCEPTED, "{}", fits.text);
    let reply = world.post(URI).raw_json(&with(8193)).send().await;
    let detail = "8193 bytes; 8192 are the most".to_owned();
    assert_eq!(reply.faults(), [("/metadata".to_owned(), detail)]);
}

#[tokio::test]
async fn an_answer_lists_a_hundred_faults_and_counts_the_others() {
    let world = World::new().await;
    let reply = publish(&world, &json!(vec![json!({}); 1000])).await;
    assert_eq!(reply.places().len(), 100);
    assert_eq!(reply.body["detail"], "the request is not valid; errors has 100 of 2000 reasons");
}

#[tokio::test]
async fn data_may_be_nested_a_hundred_thousand_deep() {
    let world = World::new().await;
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let body = format!(r#"{{"type":"a.b","data":{deep},"metadata":{{}}}}"#);
    let reply = world.post(URI).raw_json(&body).send().await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
    let body = format!(r#"{{"type":"a.b","data":1,"unknown":{deep}}}"#);
    assert_eq!(world.post(URI).raw_json(&body).send().await.places(), ["/unknown"]);
    assert_eq!(world.post(URI).raw_json(&deep).send().await.places(), ["/0"]);
}

#[tokio::test]
async fn an_event_that_is_too_large_is_a_413() {
    let world = World::new().await;
    // Without a blob store, everything has to go inline.
    let body = json!({ "type": "a.b", "data": "x".repeat(300 * 1024) });
    let reply = publish(&world, &body).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(reply.body["code"], "too_large");
    assert!(reply.body["detail"].as_str().is_some_and(|text| text.contains("262144")));
}

#[tokio::test]
async fn the_same_id_is_the_same_event() {
    let world = World::new().await;
    let body =
        |data| json!({ "id": "evt_01J00000000000000000000000", "type": "a.b", "data": data });
    let first = publish(&world, &body(1)).await;
    assert_eq!(first.body["id"], "evt_01J00000000000000000000000");
    world.publish("c.d").await;
    // Another request, so another request id, which fills in the same missing metadata.
    let second = publish(&world, &body(1)).await;
    assert_eq!((second.status, &second.text), (StatusCode::ACCEPTED, &first.text));
    let other = publish(&world, &body(2)).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert_eq!(
        other.body,
        json!({
            "type": "about:blank",
            "title": "Conflict",
            "status": 409,
            "code": "event_conflict",
            "detail": "event evt_01J00000000000000000000000 has been published before, \
                       with other content, or under an id that was generated for it",
        })
    );
}

#[tokio::test]
async fn an_event_that_was_erased_is_still_the_same_event() {
    let world = World::new().await;
    let id = "evt_01J00000000000000000000000";
    let body = |data| json!({ "id": id, "type": "a.b", "data": data });
    let first = publish(&world, &body(1)).await;
    let erased = id.parse().expect("an id");
    world.esl.erase_event(world.organization, erased).await.expect("it is erased");
    let again = publish(&world, &body(1)).await;
    assert_eq!((again.status, &again.text), (StatusCode::ACCEPTED, &first.text));
    let other = publish(&world, &body(2)).await;
    assert_eq!(other.body["code"], "event_conflict");
    assert_eq!(envelope(&world, &json!(id)).await["data"], Value::Null, "it stays erased");
}

#[tokio::test]
async fn an_id_that_was_generated_is_not_said_to_have_other_content() {
    let world = World::new().await;
    let first = publish(&world, &json!({ "type": "a.b", "data": 1 })).await;
    let id = &first.body["id"];
    let again = publish(&world, &json!({ "id": id, "type": "a.b", "data": 1 })).await;
    assert_eq!(again.body["code"], "event_conflict");
    let detail = again.body["detail"].as_str().expect("a detail");
    assert!(detail.ends_with("or under an id that was generated for it"), "{detail}");
}

#[tokio::test]
async fn the_same_key_and_body_give_the_same_answer() {
    let world = World::new().await;
    let one = r#"{"type":"a.b","data":1}"#;
    let many = r#"[{"type":"a.b","data":1},{"type":"a.c","data":2}]"#;
    let longest = "~".repeat(255);
    for (key, body) in [("!", one), (&longest, many)] {
        let call = || world.post(URI).header("idempotency-key", key).raw_json(body);
        let first = call().send().await;
        assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
        let second = call().send().await;
        assert_eq!((second.status, &second.text), (StatusCode::ACCEPTED, &first.text));
        // One space more is another body: what was signed as one request is compared as it came.
        let other = call().body(format!("{body} ")).send().await;
        assert_eq!(other.status, StatusCode::CONFLICT);
        assert_eq!(other.body["code"], "idempotency_conflict");
    }
    assert_eq!(world.get(URI).send().await.body["data"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_key_has_1_to_255_visible_characters() {
    let world = World::new().await;
    for wrong in ["", "a b", "a\tb", &"x".repeat(256)] {
        let call = world.post(URI).header("idempotency-key", wrong);
        let reply = call.raw_json(r#"{"type":"a.b","data":1}"#).send().await;
        assert_eq!(reply.places(), ["header Idempotency-Key"], "{wrong}");
    }
}

#[tokio::test]
async fn events_are_listed_newest_first_by_type_and_page() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for number in 0..9 {
        ids.insert(0, world.publish(["a.b", "c.d"][number % 2]).await);
    }
    let of_a_type: Vec<_> = ids.iter().step_by(2).cloned().collect();
    for (filter, limit, expected) in
        [("", 1, &ids), ("", 4, &ids), ("", 9, &ids), ("&type=a.b", 2, &of_a_type)]
    {
        let mut walked = Vec::new();
        let mut uri = format!("{URI}?limit={limit}{filter}");
        loop {
            let page = world.get(&uri).send().await;
            let data = page.body["data"].as_array().expect("a list");
            walked.extend(data.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
            let Some(cursor) = page.body["next_cursor"].as_str() else { break };
            uri = format!("{URI}?limit={limit}{filter}&cursor={cursor}");
        }
        assert_eq!(&walked, expected, "{filter} {limit}");
    }
    let none = world.get(&format!("{URI}?type=e.f")).send().await;
    assert_eq!(none.body, json!({ "data": [], "next_cursor": null }));
}
