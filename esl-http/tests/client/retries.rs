//! What is sent again, and what is not.

use std::time::Duration;

use esl_http::client::{
    ClientErrorKind, Method, NewReplay, NewSubscription, RetryPolicy, Rotation,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::scripted::{self, Say, Server, problem, with_header};

const ID: &str = "sub_01HM6QTXJ0CZ5Q3S0VZJY5T8N7";

#[tokio::test]
async fn what_is_safe_to_repeat_is_tried_until_it_succeeds() {
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let server = Server::with_tokens(|_, number| match number {
            1 => Say::Break,
            2 => problem(429, "rate_limited"),
            3 => problem(503, "unavailable"),
            4 => problem(408, "body_timeout"),
            _ => scripted::json(200, &json!("done")),
        })
        .await;
        let done: Value = server.client().request(method, "/api/x", None).await.unwrap();
        assert_eq!((done, server.asked().len()), (json!("done"), 5));
    }
}

#[tokio::test]
async fn the_last_try_says_what_went_wrong_and_how_often_it_was_tried() {
    let server = Server::with_tokens(|_, _| problem(503, "unavailable")).await;
    let error = server.client().organization().await.unwrap_err();
    assert_eq!((error.kind(), error.tries()), (ClientErrorKind::Unavailable, 5));
    assert_eq!((error.status(), error.code()), (Some(503), Some("unavailable")));
    assert_eq!(error.request_id(), Some("req_scripted"));
    assert!(error.is_transient());
    assert_eq!(server.asked().len(), 5);
}

#[tokio::test]
async fn what_makes_something_anew_is_not_sent_again_where_it_may_have_been_done() {
    for (failure, expected) in [
        ((|| Say::Break) as fn() -> Say, ClientErrorKind::Broken),
        (|| problem(503, "unavailable"), ClientErrorKind::Unavailable),
        (|| problem(503, "timeout"), ClientErrorKind::Unavailable),
        (|| problem(502, "x"), ClientErrorKind::Unavailable),
        (|| problem(500, "internal"), ClientErrorKind::Internal),
    ] {
        let server = Server::with_tokens(move |_, _| failure()).await;
        let (client, id) = (server.client(), ID.parse().unwrap());
        let new = NewSubscription::new("https://a.example/hook", ["*"]);
        assert_eq!(client.subscribe(&new).await.unwrap_err().kind(), expected);
        assert_eq!(client.ping(id).await.unwrap_err().kind(), expected);
        assert_eq!(
            client.rotate_secret(id, &Rotation::default()).await.unwrap_err().kind(),
            expected
        );
        assert_eq!(client.replay(id, &NewReplay::default()).await.unwrap_err().kind(), expected);
        let call = client.call(Method::POST, "/api/persons").json(&json!({}));
        assert_eq!(call.send().await.unwrap_err().kind(), expected);
        assert_eq!(server.asked().len(), 5);
    }
}

#[tokio::test]
async fn what_was_certainly_not_done_is_sent_again_whatever_it_is() {
    let server = Server::with_tokens(|_, number| match number {
        1 | 2 => problem(429, "rate_limited"),
        _ => scripted::json(201, &json!({ "id": "person_1" })),
    })
    .await;
    let person: Value =
        server.client().request(Method::POST, "/api/persons", Some(&json!({}))).await.unwrap();
    assert_eq!((person["id"].as_str(), server.asked().len()), (Some("person_1"), 3));

    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = esl_http::client::Client::builder(format!("http://{gone}"))
        .with_token("given")
        .with_retries(scripted::hasty())
        .build()
        .unwrap();
    let error = client.request::<Value>(Method::POST, "/api/persons", None).await.unwrap_err();
    assert_eq!((error.kind(), error.tries()), (ClientErrorKind::Connect, 5));
}

#[tokio::test]
async fn what_is_wrong_stays_wrong() {
    for (status, expected) in [
        (400, ClientErrorKind::Invalid),
        (403, ClientErrorKind::Forbidden),
        (404, ClientErrorKind::NotFound),
        (409, ClientErrorKind::Conflict),
        (410, ClientErrorKind::Gone),
        (412, ClientErrorKind::Conflict),
        (413, ClientErrorKind::Invalid),
        (422, ClientErrorKind::Invalid),
        (500, ClientErrorKind::Internal),
    ] {
        let server = Server::with_tokens(move |_, _| problem(status, "code")).await;
        let error = server.client().organization().await.unwrap_err();
        assert_eq!((error.kind(), error.tries()), (expected, 1), "{status}");
        assert!(!error.is_transient(), "{status}");
        assert_eq!(server.asked().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_more_than_patience_is_not_waited_for() {
    let server =
        Server::with_tokens(|_, _| with_header(429, &json!({}), "retry-after", "1800")).await;
    let error = server.client().organization().await.unwrap_err();
    assert_eq!((error.kind(), error.tries()), (ClientErrorKind::RateLimited, 1));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1800)));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn without_retries_nothing_is_sent_twice() {
    let server = Server::with_tokens(|_, _| Say::Break).await;
    let client = server.builder().with_retries(RetryPolicy::never()).build().unwrap();
    let error = client.organization().await.unwrap_err();
    assert_eq!((error.kind(), error.tries()), (ClientErrorKind::Broken, 1));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let server = Server::start(|_, _| Say::Hang).await;
    let client = esl_http::client::Client::builder(server.base())
        .with_token("given")
        .with_timeout(Duration::from_millis(50))
        .with_retries(scripted::hasty().with_tries(2))
        .build()
        .unwrap();
    let error = client.organization().await.unwrap_err();
    assert_eq!((error.kind(), error.tries()), (ClientErrorKind::Timeout, 2));
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_has_been_done() {
    let server = Server::with_tokens(|_, number| match number {
        1 => Say::Break,
        _ => problem(404, "not_found"),
    })
    .await;
    server.client().delete_subscription(ID.parse().unwrap()).await.unwrap();

    let server = Server::with_tokens(|_, _| problem(404, "not_found")).await;
    let error = server.client().delete_subscription(ID.parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::NotFound);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_takes_no_token_along() {
    let elsewhere = Server::start(|_, _| scripted::json(200, &json!({}))).await;
    let location = format!("{}/api/v1/organization", elsewhere.base());
    let server =
        Server::with_tokens(move |_, _| with_header(307, &json!({}), "location", &location)).await;
    let error = server.client().organization().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ClientErrorKind::Unexpected, Some(307)));
    assert!(error.to_string().contains("redirects are not followed"), "{error}");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_not_the_apis_is_no_success() {
    let server =
        Server::with_tokens(|_, _| scripted::json(200, &json!({ "id": "nonsense" }))).await;
    let error = server.client().organization().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ClientErrorKind::Unexpected, Some(200)));
    assert!(!error.to_string().contains("nonsense"), "{error}");
}

#[tokio::test]
async fn a_call_that_is_made_wrongly_is_not_sent() {
    let server = Server::with_tokens(|_, _| scripted::json(200, &json!({}))).await;
    let client = server.client();
    for call in [
        client.call(Method::GET, "api/persons"),
        client.call(Method::GET, "/api/persons?limit=1"),
        client.call(Method::GET, "/api/persons").header("not a name", "x"),
        client.call(Method::GET, "/api/persons").header("if-match", "line\nbreak"),
        client
            .call(Method::POST, "/api/persons")
            .json(&std::collections::BTreeMap::from([((), 1)])),
    ] {
        assert_eq!(call.send().await.unwrap_err().kind(), ClientErrorKind::Misuse);
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_base_with_a_path_is_put_before_every_route() {
    let server = Server::start(|asked, _| match asked.line.as_str() {
        "POST /esl/oauth/token" => scripted::token(1, 3600),
        _ => scripted::json(200, &json!(1)),
    })
    .await;
    let client = esl_http::client::Client::builder(format!("{}/esl/", server.base()))
        .with_credentials("shop", "secret")
        .with_user_agent("till/7")
        .build()
        .unwrap();
    client
        .call(Method::GET, "/api/persons")
        .query("name", "John & Co")
        .header("if-none-match", "\"1\"")
        .send()
        .await
        .unwrap();
    let asked = server.asked();
    let last = asked.last().unwrap();
    assert_eq!(last.line, "GET /esl/api/persons?name=John+%26+Co");
    assert_eq!(last.header("if-none-match"), Some("\"1\""));
    assert_eq!(last.header("user-agent"), Some("till/7"));
}
