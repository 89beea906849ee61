//! Requests that are wrong before any route looks into them.

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn an_unknown_route_is_a_404() {
    let world = World::new().await;
    for uri in ["/", "/api", "/api/v1/event", "/api/v1/events/", "/health/x", "/api/v2/events"] {
        let reply = world.get(uri).send().await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{uri}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(
            reply.body,
            json!({
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "code": "not_found",
                "detail": "there is no such route",
            })
        );
    }
}

#[tokio::test]
async fn an_unknown_method_is_a_405_that_names_the_known() {
    let world = World::new().await;
    for (method, uri, allow) in [
        (Method::POST, "/health", "GET,HEAD"),
        (Method::GET, "/oauth/token", "POST"),
        (Method::PUT, "/api/v1/events", "POST,GET,HEAD"),
        (Method::DELETE, "/api/v1/subscriptions", "POST,GET,HEAD"),
        (Method::POST, "/api/v1/subscriptions/x", "GET,HEAD,PATCH,DELETE"),
        (Method::GET, "/api/v1/deliveries/x/redeliver", "POST"),
    ] {
        let reply = world.anonymous(method.clone(), uri).send().await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {uri}");
        assert_eq!(reply.body["code"], "method_not_allowed");
        let sorted = |list: &str| {
            let mut methods: Vec<_> = list.split(',').map(str::to_owned).collect();
            methods.sort_unstable();
            methods
        };
        let header = reply.header("allow").expect("Allow");
        assert_eq!(sorted(header), sorted(allow), "{uri}");
    }
}

#[tokio::test]
async fn a_body_says_that_it_is_json_and_nothing_else() {
    let world = World::new().await;
    let body = r#"{"type":"a.b","data":{}}"#;
    for right in ["application/json", "Application/JSON; charset=utf-8"] {
        let call = world.post("/api/v1/events").header("content-type", right);
        assert_eq!(call.body(body).send().await.status, StatusCode::ACCEPTED, "{right}");
    }
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let call = world.post("/api/v1/events").header("content-type", wrong);
        let reply = call.body(body).send().await;
        assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{wrong}");
        assert_eq!(reply.body["code"], "unsupported_media_type");
        assert_eq!(reply.body["detail"], "expected Content-Type: application/json");
    }
    assert_eq!(
        world.post("/api/v1/events").body(body).send().await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let call = world.post("/api/v1/events").raw_json(body).header("content-encoding", "gzip");
    assert_eq!(call.send().await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_body_is_utf_8_and_does_not_claim_to_be_something_else() {
    let world = World::new().await;
    let body = r#"{"type":"a.b","data":{}}"#;
    let send = async |parameters: &str| {
        let content_type = format!("application/json{parameters}");
        let call = world.post("/api/v1/events").header("content-type", &content_type);
        call.body(body).send().await
    };
    for right in [
        ";charset=utf-8",
        " ; CharSet=UTF-8",
        r#"; charset="utf-8""#,
        r#"; charset="\U\TF-8"; "#,
        "; version=1; charset=utf-8",
        // Within quotes, it is no parameter.
        r#"; title="a; charset=latin1""#,
        r#"; title="\"; charset=latin1""#,
        "; my-charset=latin1",
        "; charset",
        ";",
    ] {
        let reply = send(right).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{right}: {}", reply.text);
    }
    for wrong in [
        "; charset=latin1",
        ";CHARSET=ISO-8859-1",
        r#"; charset="utf-16""#,
        "; charset=",
        "; charset=utf-8; charset=latin1",
        r#"; title="a;b"; charset=latin1"#,
        r#"; charset="utf-8"#,
    ] {
        let reply = send(wrong).await;
        assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{wrong}");
        assert_eq!(reply.body["code"], "unsupported_media_type");
        assert_eq!(reply.body["detail"], "a body is in UTF-8: expected charset=utf-8, or none");
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_a_400_that_says_where() {
    let world = World::new().await;
    for (body, detail) in [
        ("", "the body is not JSON: EOF while parsing a value at line 1 column 0"),
        ("{", "the body is not JSON: EOF while parsing an object at line 1 column 1"),
        ("{\"type\":\n oops}", "the body is not JSON: expected value at line 2 column 2"),
        ("{} {}", "the body is not JSON: trailing characters at line 1 column 4"),
        ("[1,]", "the body is not JSON: trailing comma at line 1 column 4"),
    ] {
        let reply = world.post("/api/v1/events").raw_json(body).send().await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(
            reply.body,
            json!({
                "type": "about:blank",
                "title": "Bad Request",
                "status": 400,
                "code": "malformed",
                "detail": detail,
            })
        );
    }
}

#[tokio::test]
async fn a_body_has_a_largest_size() {
    let world = World::new().await;
    let padded = |bytes: usize| format!("{}{{}}", " ".repeat(bytes - 2));
    for (uri, bytes_max) in
        [("/api/v1/subscriptions", 64 * 1024), ("/api/v1/events", 16 * 1024 * 1024)]
    {
        let fits = world.post(uri).raw_json(&padded(bytes_max)).send().await;
        assert_eq!(fits.status, StatusCode::UNPROCESSABLE_ENTITY, "{uri}");
        let too_large = world.post(uri).raw_json(&padded(bytes_max + 1)).send().await;
        assert_eq!(too_large.status, StatusCode::PAYLOAD_TOO_LARGE, "{uri}");
        assert_eq!(too_large.body["code"], "too_large");
        assert_eq!(too_large.body["detail"], format!("a body here has at most {bytes_max} bytes"));
    }
}

#[tokio::test]
async fn what_is_not_an_object_is_refused_as_a_whole() {
    let world = World::new().await;
    for body in ["1", "\"x\"", "null", "true", "[]", "[{}]"] {
        let reply = world.post("/api/v1/subscriptions").raw_json(body).send().await;
        assert_eq!(reply.faults(), [(String::new(), "expected an object".to_owned())], "{body}");
    }
}

#[tokio::test]
async fn what_is_not_an_id_names_nothing() {
    let world = World::new().await;
    for (uri, what) in [
        ("/api/v1/events/x", "event"),
        ("/api/v1/events/sub_01J00000000000000000000000", "event"),
        ("/api/v1/events/evt_01j00000000000000000000000", "event"),
        ("/api/v1/events/%ff", "event"),
        ("/api/v1/events/evt_01J00000000000000000000000", "event"),
        ("/api/v1/subscriptions/x", "subscription"),
        ("/api/v1/subscriptions/x/deliveries", "subscription"),
        ("/api/v1/deliveries/x", "delivery"),
        ("/api/v1/deliveries/dlv_01J00000000000000000000000", "delivery"),
    ] {
        let reply = world.get(uri).send().await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{uri}");
        assert_eq!(reply.body["detail"], format!("there is no such {what}"), "{uri}");
    }
}

#[tokio::test]
async fn unknown_repeated_and_wrong_parameters_are_all_named() {
    let world = World::new().await;
    let subscription = world.subscribe(&["*"]).await;
    let parameter = |name: &str| format!("parameter {name}");
    for (uri, expected) in [
        ("/api/v1/events?x=1&limit=0&y", vec!["limit", "x", "y"]),
        ("/api/v1/events?limit=101", vec!["limit"]),
        ("/api/v1/events?limit=ten", vec!["limit"]),
        ("/api/v1/events?limit=", vec!["limit"]),
        ("/api/v1/events?limit=-1", vec!["limit"]),
        ("/api/v1/events?limit=1&limit=2", vec!["limit"]),
        ("/api/v1/events?cursor=x", vec!["cursor"]),
        ("/api/v1/events?type=a&cursor=", vec!["type", "cursor"]),
        ("/api/v1/subscriptions?state=pending", vec!["state"]),
        (&format!("/api/v1/subscriptions/{subscription}/deliveries?state=done"), vec!["state"]),
        (&format!("/api/v1/subscriptions/{subscription}?a=b"), vec!["a"]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(parameter).collect();
        assert_eq!(world.get(uri).send().await.places(), expected, "{uri}");
    }
    let reply = world.get("/api/v1/events?limit=0").send().await;
    assert_eq!(
        reply.body,
        json!({
            "type": "about:blank",
            "title": "Unprocessable Entity",
            "status": 422,
            "code": "invalid",
            "detail": "the request is not valid; errors has each reason",
            "errors": [{ "parameter": "limit", "detail": "expected a number from 1 to 100" }],
        })
    );
    let reply = world.post("/api/v1/events?async=1").raw_json("{}").send().await;
    assert_eq!(reply.places(), ["parameter async"]);
}
