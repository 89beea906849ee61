//! When tokens are fetched.

use std::sync::atomic::{AtomicUsize, Ordering};

use esl_core::{Scope, Scopes};
use esl_http::client::{Client, ClientErrorKind, Method};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::scripted::{Asked, Say, Server, problem, token, with_header};

async fn read(client: &Client) -> Result<Value, esl_http::client::ClientError> {
    client.request(Method::GET, "/api/v1/thing", None).await
}

fn bearer(asked: &Asked) -> &str {
    asked.header("authorization").unwrap()
}

#[tokio::test]
async fn the_first_token_is_fetched_when_it_is_needed_and_kept() {
    let server = Server::with_tokens(|_, _| crate::scripted::json(200, &json!(1))).await;
    let client = server.builder().with_scopes([Scope::Read].into_iter().collect::<Scopes>());
    let client = client.build().unwrap();
    assert!(server.forms().is_empty());
    assert_eq!(client.token().await.unwrap().expose(), "token-1");
    for _ in 0..3 {
        assert_eq!(read(&client).await.unwrap(), 1);
    }
    assert_eq!(
        server.forms(),
        ["client_id=shop&client_secret=hunter2%3A+100%25+%26+more&grant_type=client_credentials\
          &scope=events%3Aread"]
    );
    assert!(server.asked().iter().all(|asked| bearer(asked) == "Bearer token-1"));
}

#[tokio::test]
async fn however_many_wait_one_token_is_fetched() {
    let server = Server::with_tokens(|_, _| crate::scripted::json(200, &json!(1))).await;
    let client = server.client();
    let calls = join_all((0..50).map(|_| read(&client))).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert_eq!(server.forms().len(), 1);
}

#[tokio::test]
async fn who_waits_for_a_token_that_is_refused_shares_the_refusal() {
    let refusal = json!({ "error": "invalid_client", "error_description": "no such client" });
    let server = Server::start(move |_, _| crate::scripted::json(401, &refusal)).await;
    let client = server.client();
    for call in join_all((0..50).map(|_| read(&client))).await {
        let error = call.unwrap_err();
        assert_eq!(error.kind(), ClientErrorKind::Unauthorized);
        assert_eq!(
            (error.code(), error.detail()),
            (Some("invalid_client"), Some("no such client"))
        );
    }
    assert_eq!(server.forms().len(), 1);
    // Whoever comes later asks anew.
    read(&client).await.unwrap_err();
    assert_eq!(server.forms().len(), 2);
}

#[tokio::test]
async fn an_expired_token_is_refreshed_and_each_refresh_token_is_used_once() {
    let server = Server::start(|asked, number| match asked.line.as_str() {
        "POST /oauth/token" => token(number, 0),
        _ => crate::scripted::json(200, &json!(1)),
    })
    .await;
    let client = server.client();
    for _ in 0..3 {
        read(&client).await.unwrap();
    }
    let forms = server.forms();
    assert!(forms[0].ends_with("grant_type=client_credentials"), "{forms:?}");
    assert!(forms[1].ends_with("grant_type=refresh_token&refresh_token=refresh-1"), "{forms:?}");
    assert!(forms[2].ends_with("grant_type=refresh_token&refresh_token=refresh-2"), "{forms:?}");
    let bearers: Vec<_> = server.asked().iter().map(|asked| bearer(asked).to_owned()).collect();
    assert_eq!(bearers, ["Bearer token-1", "Bearer token-2", "Bearer token-3"]);
}

#[tokio::test]
async fn a_refresh_that_fails_falls_back_to_the_secret_and_is_not_sent_twice() {
    for failure in [|| problem(400, "x"), || problem(503, "x"), || Say::Break] {
        let server = Server::start(move |asked, number| match asked.line.as_str() {
            "POST /oauth/token" if asked.body.contains("refresh_token") => failure(),
            "POST /oauth/token" => token(number, 0),
            _ => crate::scripted::json(200, &json!(1)),
        })
        .await;
        let client = server.client();
        read(&client).await.unwrap();
        read(&client).await.unwrap();
        let forms = server.forms();
        assert_eq!(forms.len(), 3, "{forms:?}");
        assert!(forms[1].ends_with("refresh_token=refresh-1"), "{forms:?}");
        assert!(forms[2].ends_with("grant_type=client_credentials"), "{forms:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_changed_for_another_once() {
    let server = Server::with_tokens(|asked, _| match bearer(asked) {
        "Bearer token-1" => problem(401, "unauthorized"),
        _ => crate::scripted::json(200, &json!(1)),
    })
    .await;
    let client = server.client();
    let calls = join_all((0..20).map(|_| read(&client))).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    let forms = server.forms();
    assert_eq!(forms.len(), 2, "one for all that were refused: {forms:?}");
    // The refresh token of a grant that is refused is worth nothing either.
    assert!(forms[1].ends_with("grant_type=client_credentials"), "{forms:?}");

    let server = Server::with_tokens(|_, _| problem(401, "unauthorized")).await;
    let error = read(&server.client()).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Unauthorized);
    assert_eq!((server.asked().len(), server.forms().len()), (2, 2));
}

#[tokio::test]
async fn a_token_that_was_given_is_used_as_it_is() {
    let server = Server::with_tokens(|_, _| problem(401, "unauthorized")).await;
    let client = Client::builder(server.base()).with_token("given").build().unwrap();
    let error = read(&client).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ClientErrorKind::Unauthorized, Some("unauthorized")));
    let asked = server.asked();
    assert_eq!((asked.len(), bearer(&asked[0])), (1, "Bearer given"));
    assert!(server.forms().is_empty());
}

#[tokio::test]
async fn without_credentials_only_what_is_open_is_asked() {
    let server = Server::start(|_, _| {
        crate::scripted::json(200, &json!({ "status": "healthy", "version": "1.0.0" }))
    })
    .await;
    let client = Client::builder(server.base()).build().unwrap();
    assert!(client.health().await.unwrap().is_healthy());
    assert_eq!(server.asked()[0].header("authorization"), None);
    let error = read(&client).await.unwrap_err();
    assert_eq!((error.kind(), error.tries()), (ClientErrorKind::Misuse, 0));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn fetching_a_token_is_tried_again_and_counts_for_no_try_of_the_call() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(|asked, number| match asked.line.as_str() {
        "POST /oauth/token" => match ASKED.fetch_add(1, Ordering::SeqCst) {
            0 => Say::Break,
            1 => with_header(503, &json!({"error": "temporarily_unavailable"}), "retry-after", "0"),
            _ => token(number, 3600),
        },
        _ => crate::scripted::json(200, &json!(1)),
    })
    .await;
    read(&server.client()).await.unwrap();
    assert_eq!(server.forms().len(), 3);

    let server = Server::start(|_, _| problem(503, "x")).await;
    let error = read(&server.client()).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Unavailable);
    assert_eq!(server.forms().len(), 5, "the tries of one call, and not of tries within tries");
}
