//! Nothing that is printed has a secret in it.

use std::error::Error as _;

use esl_core::Secret;
use esl_http::client::{
    Client, ClientError, Method, NewSubscription, Rotation, SubscriptionOptions,
};
use serde_json::json;

use crate::scripted::{self, SECRET, Say, Server, problem};

/// What a log may have of an error.
fn printed(error: &ClientError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    text
}

#[track_caller]
fn has_no_secret(text: &str) {
    for secret in ["hunter2", "token-", "refresh-", "given", "s3cr3t"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_client_and_its_errors_show_neither_secret_nor_token() {
    for failure in [
        (|| Say::Break) as fn() -> Say,
        || problem(401, "unauthorized"),
        || problem(500, "internal"),
        || scripted::json(200, &json!({ "access_token": "token-9" })),
    ] {
        let server = Server::with_tokens(move |_, _| failure()).await;
        let builder = server.builder();
        has_no_secret(&format!("{builder:?}"));
        let client = builder.build().unwrap();
        has_no_secret(&printed(&client.organization().await.unwrap_err()));
        has_no_secret(&format!("{client:?} {:?}", client.token().await));
        let list = client.list::<u8>("/api/x").with("sig", "s3cr3t");
        has_no_secret(&printed(&list.page(None).await.unwrap_err()));
        has_no_secret(&format!("{list:?}"));
        let call = client.call(Method::POST, "/api/x").query("sig", "s3cr3t");
        let call = call.header("x-api-key", "s3cr3t").json(&json!({ "secret": "hunter2" }));
        has_no_secret(&format!("{call:?}"));
        let answer = client.call(Method::GET, "/api/x").answer().await;
        has_no_secret(&format!("{answer:?}"));
    }
    // Where the token itself is not to be had, or is not one.
    for failure in [
        (|| Say::Break) as fn() -> Say,
        || problem(401, "invalid_client"),
        || scripted::json(200, &json!({ "access_token": ["token-9"] })),
        || scripted::json(200, &json!({ "access_token": "token-\n", "expires_in": 1 })),
    ] {
        let server = Server::start(move |_, _| failure()).await;
        let error = server.client().organization().await.unwrap_err();
        has_no_secret(&printed(&error));
        assert!(error.to_string().starts_with("POST /oauth/token: "), "{error}");
    }
    let builder = Client::builder("http://127.0.0.1:1").with_token("given\n");
    has_no_secret(&format!("{builder:?}"));
    has_no_secret(&printed(&builder.build().unwrap_err()));
    assert!(SECRET.contains("hunter2"));
}

#[tokio::test]
async fn what_is_sent_and_answered_shows_no_secret() {
    let secret = Secret::new("hunter2").unwrap();
    let mut options = SubscriptionOptions::default();
    options.headers.insert("x-api-key".to_owned(), "s3cr3t".to_owned());
    let new = NewSubscription::new("https://a.example/hook", ["*"]).with_secret(secret.clone());
    has_no_secret(&format!("{:?}", new.with_options(options)));
    has_no_secret(&format!("{:?}", Rotation::default().with_secret(secret)));
}
