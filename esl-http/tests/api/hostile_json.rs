//! JSON that parsers trip over.

use axum::{
    body::Bytes,
    http::{Method, StatusCode},
};
use esl_core::EventId;

use crate::world::{Reply, World};

const EVENTS: &str = "/api/v1/events";
const SUBSCRIPTIONS: &str = "/api/v1/subscriptions";

async fn post(world: &World, uri: &str, body: impl Into<Bytes>) -> Reply {
    let call = world.post(uri).header("content-type", "application/json");
    call.body(body.into()).send().await
}

/// Publishes an event whose members, beside its type, are as given, and reads back its envelope.
async fn envelope_of(world: &World, members: &str) -> String {
    let reply = post(world, EVENTS, format!(r#"{{"type":"a.b",{members}}}"#)).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
    let id: EventId = reply.body["id"].as_str().expect("an id").parse().expect("an id");
    let stored = world.esl.storage().event(world.organization, id).await.expect("storage");
    String::from_utf8(stored.expect("the event").body.to_vec()).expect("UTF-8")
}

async fn published(world: &World) -> usize {
    let reply = world.get(EVENTS).send().await;
    reply.body["data"].as_array().expect("events").len()
}

fn arrays(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

fn objects(levels: usize) -> String {
    r#"{"":"#.repeat(levels) + "1" + &"}".repeat(levels)
}

const LEVELS: usize = 100_000;

#[tokio::test]
async fn nesting_is_kept_where_anything_goes() {
    let world = World::new().await;
    for members in [
        format!(r#""data":{}"#, arrays(LEVELS)),
        format!(r#""data":{}"#, objects(LEVELS / 2)),
        format!(r#""data":1,"changes":{}"#, objects(LEVELS / 2)),
    ] {
        assert!(envelope_of(&world, &members).await.contains(&members));
    }
    // As deep as 8 KiB let it be.
    for deep in [arrays(4000), objects(1600)] {
        let members = format!(r#""data":1,"metadata":{{"a":{deep}}}"#);
        assert!(envelope_of(&world, &members).await.contains(&format!(r#""a":{deep}}}"#)));
    }
}

#[tokio::test]
async fn nesting_is_refused_by_place_where_something_else_is_wanted() {
    let world = World::new().await;
    for deep in [arrays(LEVELS), objects(LEVELS)] {
        for (body, place) in [
            (format!(r#"{{"type":{deep},"data":1}}"#), "/type"),
            (format!(r#"{{"type":"a.b","data":1,"id":{deep}}}"#), "/id"),
            (format!(r#"{{"type":"a.b","data":1,"metadata":{{"a":{deep}}}}}"#), "/metadata"),
            (
                format!(r#"[{{"type":"a.b","data":1}},{{"type":"a.b","data":1,"b":{deep}}}]"#),
                "/1/b",
            ),
        ] {
            assert_eq!(post(&world, EVENTS, body).await.places(), [place]);
        }
    }
    assert_eq!(post(&world, EVENTS, objects(LEVELS)).await.places(), ["/type", "/data", "/"]);
    assert_eq!(post(&world, EVENTS, arrays(LEVELS)).await.places(), ["/0"]);

    let deep = arrays(10_000);
    for member in ["callback_url", "events", "description", "metadata", "headers", "retry_schedule"]
    {
        let mut body = format!(r#"{{"{member}":{deep}"#);
        for (other, value) in
            [("callback_url", r#""https://a.example/""#), ("events", r#"["a.b"]"#)]
        {
            if other != member {
                body += &format!(r#","{other}":{value}"#);
            }
        }
        let places = post(&world, SUBSCRIPTIONS, body + "}").await.places();
        assert!(places[0].starts_with(&format!("/{member}")) && places.len() == 1, "{places:?}");
    }
    assert_eq!(published(&world).await, 0);
}

#[tokio::test]
async fn nesting_that_does_not_end_is_no_json() {
    let world = World::new().await;
    for unclosed in ["[".repeat(16 * 1024 * 1024), "{\"\":".repeat(4 * 1024 * 1024)] {
        assert_eq!(post(&world, EVENTS, unclosed).await.status, StatusCode::BAD_REQUEST);
    }
    for unclosed in ["[".repeat(64 * 1024), "{\"\":".repeat(16 * 1024)] {
        assert_eq!(post(&world, SUBSCRIPTIONS, unclosed).await.status, StatusCode::BAD_REQUEST);
    }
    let subscription = world.subscribe(&["*"]).await;
    let uri = format!("{SUBSCRIPTIONS}/{subscription}");
    let call = world.call(Method::PATCH, &uri).raw_json(&"{\"\":".repeat(16 * 1024));
    assert_eq!(call.send().await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_not_utf_8_or_not_alone_is_no_json() {
    let world = World::new().await;
    let utf_16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        r#"{"type":"a.b","data":1}"#.encode_utf16().flat_map(order).collect()
    };
    for body in [
        &b"{\"type\":\"a.b\",\"data\":\"\xff\"}"[..],
        // Overlong, a surrogate, beyond Unicode, and a character cut off.
        b"{\"type\":\"a.b\",\"data\":\"\xc0\xaf\"}",
        b"{\"type\":\"a.b\",\"data\":\"\xed\xa0\x80\"}",
        b"{\"type\":\"a.b\",\"data\":\"\xf4\x90\x80\x80\"}",
        b"{\"type\":\"a.b\",\"data\":\"\xe2\x82\"}",
        b"{\"type\":\"a.b\",\"data\":1,\"\xff\":1}",
        b"{\"type\":\"a.\xff\",\"data\":1}",
        b"{\"type\":\"a.b\",\"data\":{\"a\":[\"\xff\"]}}",
        b"{\"type\":\"a.b\",\"data\":1,\"metadata\":{\"a\":\"\xff\"}}",
        b"[{\"type\":\"a.b\",\"data\":1},\"\xff\"]",
        // Characters that have to be escaped.
        b"{\"type\":\"a.b\",\"data\":\"\0\"}",
        b"{\"type\":\"a.b\",\"data\":\"\x1f\"}",
        b"{\"type\":\"a.b\",\"data\":\"\n\"}",
        // Before, behind, and instead of an object.
        b"\xef\xbb\xbf{\"type\":\"a.b\",\"data\":1}",
        b"\0{\"type\":\"a.b\",\"data\":1}",
        b"{\"type\":\"a.b\",\"data\":1}\0",
        b"{\"type\":\"a.b\",\"data\":1}]",
        b"{\"type\":\"a.b\",\"data\":1}{\"type\":\"a.b\",\"data\":1}",
        b"{\"type\":\"a.b\",\"data\":1}\n{\"type\":\"a.b\",\"data\":1}",
        b"[{\"type\":\"a.b\",\"data\":1}],",
        b"\x0b{\"type\":\"a.b\",\"data\":1}",
        b"\xc2\xa0{\"type\":\"a.b\",\"data\":1}",
        // Nearly JSON.
        b"{'type':'a.b','data':1}",
        b"{type:\"a.b\",\"data\":1}",
        b"{\"type\":\"a.b\",\"data\":1,}",
        b"{\"type\":\"a.b\",\"data\":NaN}",
        b"{\"type\":\"a.b\",\"data\":-Infinity}",
        b"{\"type\":\"a.b\",\"data\":01}",
        b"{\"type\":\"a.b\",\"data\":+1}",
        b"{\"type\":\"a.b\",\"data\":.5}",
        b"{\"type\":\"a.b\",\"data\":5.}",
        b"{\"type\":\"a.b\",\"data\":0x1}",
        b"{\"type\":\"a.b\",\"data\":1e}",
        b"{\"type\":\"a.b\",\"data\":\"\\x41\"}",
        b"{\"type\":\"a.b\",\"data\":\"\\u12\"}",
        b"{\"type\":\"a.b\"/**/,\"data\":1}",
        &utf_16(u16::to_be_bytes),
        &utf_16(u16::to_le_bytes),
    ] {
        let reply = post(&world, EVENTS, body.to_vec()).await;
        let shown = String::from_utf8_lossy(body);
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{shown}: {}", reply.text);
        assert_eq!(reply.body["code"], "malformed", "{shown}");
    }
    assert_eq!(published(&world).await, 0);
}

#[tokio::test]
async fn what_is_json_stays_as_it_is_however_odd() {
    let world = World::new().await;
    let digits = "9".repeat(100_000);
    for data in [
        "1e999",
        "-1E+999999999999999999999",
        "1e-999999999999999999999",
        "-0",
        "-0.0e-0",
        &digits,
        &format!("0.{digits}"),
        &format!("1e{digits}"),
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#"{"\ud800":"\ud800"}"#,
        r#""\u0000\u001f\u007f\uffff""#,
        r#"{"a":1,"a":2,"\u0061":3,"":4,"":5}"#,
        r#"[{"a":1,"a":1},[{"b":{"c":1,"c":2}}]]"#,
        r#"{"__proto__":{"a":1},"constructor":null,"$serde_json::private::RawValue":"1"}"#,
        r#"{"$serde_json::private::Number":"1"}"#,
        "\"\u{feff}\u{202e}\u{2028}\u{10ffff}\"",
        "\"</script>\"",
        "null",
        "[ \t\r\n]",
    ] {
        let members = format!(r#""data":{data}"#);
        let beginning = &data[..data.len().min(60)];
        assert!(envelope_of(&world, &members).await.contains(&members), "{beginning}");
        let metadata = format!(r#""data":1,"metadata":{{"":{data}}}"#);
        if metadata.len() < 8192 {
            let kept = format!(r#""":{data}}}"#);
            assert!(envelope_of(&world, &metadata).await.contains(&kept), "{beginning}");
        }
    }
    let changes = r#""data":1,"changes":{"a":1,"\ud800":1e999,"a":{"a":1,"a":2},"":{"":""}}"#;
    assert!(envelope_of(&world, changes).await.contains(changes));
}

#[tokio::test]
async fn what_we_read_ourselves_is_refused_where_readers_differ() {
    let world = World::new().await;
    let digits = "9".repeat(60_000);
    for (uri, member, value, place) in [
        (EVENTS, "type", r#""a.\ud800""#, "/type"),
        (EVENTS, "type", r#""a.\u0000""#, "/type"),
        (EVENTS, "type", "1e999", "/type"),
        (EVENTS, "", "1", "/"),
        (EVENTS, "~/", "1", "/~0~1"),
        (EVENTS, "\\u0000", "1", "/\0"),
        (EVENTS, "metadata", r#"{"source":"\ud800"}"#, "/metadata/source"),
        (EVENTS, "metadata", r#"{"source":"a","sourc\u0065":"b"}"#, "/metadata/source"),
        (EVENTS, "metadata", r#"{"":1,"":2}"#, "/metadata/"),
        (EVENTS, "metadata", r#"{"\ud800":1}"#, "/metadata"),
        (EVENTS, "metadata", "[]", "/metadata"),
        (EVENTS, "id", r#""evt_01J0000000000000000000000\u0000""#, "/id"),
        (SUBSCRIPTIONS, "timeout_ms", "1e999", "/timeout_ms"),
        (SUBSCRIPTIONS, "timeout_ms", "-0", "/timeout_ms"),
        (SUBSCRIPTIONS, "timeout_ms", &digits, "/timeout_ms"),
        (SUBSCRIPTIONS, "max_per_second", "1.0", "/max_per_second"),
        (SUBSCRIPTIONS, "max_in_flight", "18446744073709551617", "/max_in_flight"),
        (SUBSCRIPTIONS, "description", r#""\udfff""#, "/description"),
        (SUBSCRIPTIONS, "headers", r#"{"a":"b","\u0061":"c"}"#, "/headers/a"),
        (SUBSCRIPTIONS, "headers", r#"{"a":"b\u0000"}"#, "/headers/a"),
        (SUBSCRIPTIONS, "headers", r#"{"a":"b\r\nc: d"}"#, "/headers/a"),
        (SUBSCRIPTIONS, "headers", r#"{"a\r\nb":"c"}"#, "/headers/a\r\nb"),
        (SUBSCRIPTIONS, "headers", r#"{"":"c"}"#, "/headers/"),
        (SUBSCRIPTIONS, "secret", r#""\ud800""#, "/secret"),
    ] {
        let rest = match uri {
            EVENTS if member == "type" => r#""data":1"#,
            EVENTS => r#""type":"a.b","data":1"#,
            _ => r#""callback_url":"https://a.example/","events":["a.b"]"#,
        };
        let reply = post(&world, uri, format!(r#"{{"{member}":{value},{rest}}}"#)).await;
        assert_eq!(reply.places(), [place], "{member}");
    }
    // A name that is no text cannot be told by its place.
    let body = r#"{"type":"a.b","data":1,"\ud800":1}"#;
    assert_eq!(post(&world, EVENTS, body).await.status, StatusCode::BAD_REQUEST);
    let body = r#"{"callback_url":"https://a.example/","events":["*"],"events":[]}"#;
    assert_eq!(post(&world, SUBSCRIPTIONS, body).await.places(), ["/events"]);
    assert_eq!(published(&world).await, 0);
}

#[tokio::test]
async fn neither_scalars_nor_too_few_nor_too_many_are_published() {
    let world = World::new().await;
    let events =
        |count: usize| format!("[{}]", vec![r#"{"type":"a.b","data":1}"#; count].join(","));
    let many = events(100_000);
    for body in ["1", "1e999", "\"a\"", "\"\\ud800\"", "null", "true", "[]", &events(1001), &many] {
        assert_eq!(post(&world, EVENTS, body.to_owned()).await.places(), [""], "{}", &body[..1]);
    }
    for item in ["[]", "null", "1", r#"[{"type":"a.b","data":1}]"#, r#"{"\ud800":1}"#] {
        let body = format!(r#"[{{"type":"a.b","data":1}},{item}]"#);
        assert_eq!(post(&world, EVENTS, body).await.places(), ["/1"], "{item}");
    }
    assert_eq!(published(&world).await, 0);
    let reply = post(&world, EVENTS, events(1000)).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
}
