//! Lists, page by page.

use std::num::NonZeroU8;

use bytes::Bytes;
use esl_http::client::{ClientErrorKind, DeliveryState};
use futures_util::TryStreamExt;
use http_body_util::Full;
use hyper::Response;
use serde_json::json;

use crate::scripted::{self, Say, Server, problem};

const FIRST: &str = "GET /api/things?limit=100";
const SECOND: &str = "GET /api/things?limit=100&cursor=c2%2B";
const THIRD: &str = "GET /api/things?limit=100&cursor=c3";

async fn server() -> Server {
    Server::with_tokens(|asked, _| match asked.line.as_str() {
        FIRST => scripted::json(200, &json!({ "data": [1, 2], "next_cursor": "c2+" })),
        // A page without items is not the last.
        SECOND => scripted::json(200, &json!({ "data": [], "next_cursor": "c3" })),
        THIRD => scripted::json(200, &json!({ "data": [3], "next_cursor": null })),
        _ => problem(422, "invalid"),
    })
    .await
}

fn lines(server: &Server) -> Vec<String> {
    server.asked().into_iter().map(|asked| asked.line).collect()
}

#[tokio::test]
async fn a_stream_goes_through_all_pages_and_ends() {
    let server = server().await;
    let all: Vec<u8> =
        server.client().list::<u8>("/api/things").stream().try_collect().await.unwrap();
    assert_eq!(all, [1, 2, 3]);
    assert_eq!(lines(&server), [FIRST, SECOND, THIRD]);
    assert_eq!(server.client().list::<u8>("/api/things").all().await.unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn a_page_is_asked_for_when_the_one_before_is_used_up() {
    let server = server().await;
    let mut things = server.client().list::<u8>("/api/things").stream();
    assert!(lines(&server).is_empty());
    assert_eq!(things.try_next().await.unwrap(), Some(1));
    assert_eq!(things.try_next().await.unwrap(), Some(2));
    assert_eq!(lines(&server), [FIRST]);
    assert_eq!(things.try_next().await.unwrap(), Some(3));
    assert_eq!(things.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn a_page_at_a_time_goes_on_where_its_cursor_says() {
    let server = server().await;
    let list = server.client().list::<u8>("/api/things");
    let first = list.page(None).await.unwrap();
    assert_eq!((first.data, first.next_cursor.as_deref()), (vec![1, 2], Some("c2+")));
    let third = list.page(Some("c3")).await.unwrap();
    assert_eq!((third.data, third.next_cursor), (vec![3], None));
}

#[tokio::test]
async fn an_error_ends_a_stream() {
    let server = Server::with_tokens(|asked, _| match asked.line.as_str() {
        FIRST => scripted::json(200, &json!({ "data": [1], "next_cursor": "gone" })),
        _ => problem(422, "invalid"),
    })
    .await;
    let mut things = server.client().list::<u8>("/api/things").stream();
    assert_eq!(things.try_next().await.unwrap(), Some(1));
    assert_eq!(things.try_next().await.unwrap_err().kind(), ClientErrorKind::Invalid);
    assert_eq!(things.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn filters_and_limits_go_with_every_page() {
    let server = Server::with_tokens(|asked, _| {
        let next = (!asked.line.contains("cursor")).then_some("next");
        scripted::json(200, &json!({ "data": [], "next_cursor": next }))
    })
    .await;
    let client = server.client();
    let subscription = "sub_01HM6QTXJ0CZ5Q3S0VZJY5T8N7".parse().unwrap();
    let exhausted = client.deliveries(subscription).in_state(DeliveryState::Exhausted);
    exhausted.limit(NonZeroU8::MIN).all().await.unwrap();
    client.events().of_type("person.updated").page(None).await.unwrap();
    assert_eq!(
        lines(&server),
        [
            format!("GET /api/v1/subscriptions/{subscription}/deliveries?limit=1&state=exhausted"),
            format!(
                "GET /api/v1/subscriptions/{subscription}/deliveries?limit=1&state=exhausted&cursor=next"
            ),
            "GET /api/v1/events?limit=100&type=person.updated".to_owned(),
        ]
    );
}

/// More than a client holds. That is said at the beginning, so hardly anything of it is sent.
fn too_large() -> Say {
    let body = Bytes::from(vec![0; 256 * 1024 * 1024 + 1]);
    Say::Answer(Response::new(Full::from(body)))
}

#[tokio::test]
async fn a_page_larger_than_a_client_holds_is_asked_for_with_a_smaller_limit() {
    let of = |data: &[u8], next: Option<&str>| {
        scripted::json(200, &json!({ "data": data, "next_cursor": next }))
    };
    let server = Server::with_tokens(move |asked, _| {
        match asked.line.strip_prefix("GET /api/things?limit=").unwrap() {
            "6" => of(&[1], Some("c2")),
            "3&cursor=c2" => of(&[2], Some("c3")),
            "6&cursor=c3" => of(&[3], Some("c4")),
            "12&cursor=c4" => of(&[4], None),
            _ => too_large(),
        }
    })
    .await;
    let things = server.client().list::<u8>("/api/things");
    assert_eq!(things.page(None).await.unwrap().data, [1]);
    let limits = |server: &Server| {
        let limit = |line: String| line.split_once('=').unwrap().1.to_owned();
        lines(server).into_iter().map(limit).collect::<Vec<_>>()
    };
    assert_eq!(limits(&server), ["100", "25", "6"]);
    // A stream goes on with what was held, and tries more after each page.
    assert_eq!(things.limit(NonZeroU8::new(24).unwrap()).all().await.unwrap(), [1, 2, 3, 4]);
    assert_eq!(
        limits(&server)[3..],
        ["24", "6", "12&cursor=c2", "3&cursor=c2", "6&cursor=c3", "12&cursor=c4"]
    );
}

#[tokio::test]
async fn an_item_that_alone_is_too_large_is_an_error() {
    let server = Server::with_tokens(|_, _| too_large()).await;
    let things = server.client().list::<u8>("/api/things");
    let error = things.limit(NonZeroU8::new(2).unwrap()).all().await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::TooLarge);
    assert_eq!(lines(&server), ["GET /api/things?limit=2", "GET /api/things?limit=1"]);
}
