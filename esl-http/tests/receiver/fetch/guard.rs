//! Where is gone for data, and where not.

use std::{io, net::IpAddr};

use async_trait::async_trait;
use esl_core::CallbackPolicy;
use esl_http::{
    Resolver,
    receiver::{Fetch as _, FetchError, Fetcher, FetcherBuilder},
};

use super::{
    DATA, anywhere, reference,
    server::{Server, redirect, with_body},
};

#[track_caller]
fn assert_refused(fetched: &Result<bytes::Bytes, FetchError>, why: &str) {
    match fetched {
        Err(FetchError::Refused(detail)) => assert_eq!(detail, why),
        other => panic!("{other:?}"),
    }
}

const NOT_PUBLIC: &str = "the host is not a public address";
const PLAIN: &str = "plain http is not allowed";

/// One that trusts this server and goes to its address, and otherwise to public ones only.
fn to(server: &Server) -> FetcherBuilder {
    Fetcher::builder()
        .with_policy(CallbackPolicy::public().with_allowed("127.0.0.1/32".parse().unwrap()))
        .with_root_certificates([server.certificate.clone()])
}

#[tokio::test]
async fn what_is_not_public_is_not_gone_to() {
    let server = Server::start_tls(|_| with_body("200 OK", DATA)).await;
    let fetcher =
        Fetcher::builder().with_root_certificates([server.certificate.clone()]).build().unwrap();
    for link in [
        server.url("/"),
        "https://10.0.0.1/".to_owned(),
        "https://[::1]/".to_owned(),
        "https://2130706433/".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        assert_refused(&fetcher.fetch(&reference(link)).await, NOT_PUBLIC);
    }
    assert_eq!(server.connections(), 0);
    let permitted = to(&server).build().unwrap().fetch(&reference(server.url("/"))).await;
    assert_eq!(permitted.unwrap(), DATA);
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_gone_to() {
    /// Knows every name as this machine.
    #[derive(Debug)]
    struct Here;

    #[async_trait]
    impl Resolver for Here {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            Ok(vec!["127.0.0.1".parse().unwrap()])
        }
    }

    let fetcher = Fetcher::builder().with_resolver(Here).build().unwrap();
    let fetched = fetcher.fetch(&reference("https://esl.your-app.com/blob".into())).await;
    assert_refused(&fetched, "the host leads to an address that is not public");
}

#[tokio::test]
async fn plain_http_is_for_development() {
    let server = Server::start(|_| with_body("200 OK", DATA)).await;
    let reference = reference(server.url("/"));
    assert_refused(&Fetcher::new().fetch(&reference).await, PLAIN);
    assert_refused(&to(&server_of_nobody().await).build().unwrap().fetch(&reference).await, PLAIN);
    assert_eq!(server.connections(), 0);
    assert_eq!(anywhere().build().unwrap().fetch(&reference).await.unwrap(), DATA);
}

async fn server_of_nobody() -> Server {
    Server::start_tls(|_| String::new()).await
}

#[tokio::test]
async fn a_redirect_to_the_store_is_followed() {
    let store = Server::start(|path| match path {
        "/bucket/blob?signature=1" => with_body("200 OK", DATA),
        _ => with_body("404 Not Found", ""),
    })
    .await;
    let link = store.url("/bucket/blob?signature=1#top");
    let esl = Server::start(move |path| match path {
        "/there" => redirect("/elsewhere"),
        _ => redirect(&link),
    })
    .await;
    let fetched = anywhere().build().unwrap().fetch(&reference(esl.url("/there"))).await;
    assert_eq!(fetched.unwrap(), DATA);
    assert_eq!((esl.connections(), store.connections()), (2, 1));
}

#[tokio::test]
async fn three_redirects_are_followed_and_no_more() {
    let server = Server::start(|path| match path {
        "/0" => with_body("200 OK", DATA),
        path => redirect(&format!("/{}", path[1..].parse::<u32>().unwrap() - 1)),
    })
    .await;
    let fetcher = anywhere().build().unwrap();
    assert_eq!(fetcher.fetch(&reference(server.url("/3"))).await.unwrap(), DATA);
    let too_many = fetcher.fetch(&reference(server.url("/4"))).await;
    assert!(matches!(too_many, Err(FetchError::Unusable(_))));
    assert_eq!(server.connections(), 8);
}

#[tokio::test]
async fn a_redirect_gains_nothing() {
    let plain = Server::start(|_| with_body("200 OK", DATA)).await;
    let there = plain.url("/");
    let server = Server::start_tls(move |path| match path {
        "/private" => redirect("https://10.0.0.1/"),
        "/metadata" => redirect("https://169.254.169.254/"),
        "/plain" => redirect(&there),
        "/file" => redirect("file:///etc/passwd"),
        "/nowhere" => redirect("https://"),
        "/user" => redirect("https://user:password@127.0.0.1/"),
        _ => with_body("302 Found", ""),
    })
    .await;
    let fetcher = to(&server).build().unwrap();
    for (path, why) in [("/private", NOT_PUBLIC), ("/metadata", NOT_PUBLIC), ("/plain", PLAIN)] {
        assert_refused(&fetcher.fetch(&reference(server.url(path))).await, why);
    }
    for path in ["/file", "/nowhere", "/user", "/without"] {
        let fetched = fetcher.fetch(&reference(server.url(path))).await;
        assert!(matches!(fetched, Err(FetchError::Unusable(_))), "{path}: {fetched:?}");
    }
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_no_request() {
    let (server, other) = (server_of_nobody().await, server_of_nobody().await);
    let fetched = to(&other).build().unwrap().fetch(&reference(server.url("/"))).await;
    assert!(matches!(fetched, Err(FetchError::Unavailable(_))));
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn a_request_says_nothing_of_who_asks_and_an_error_nothing_of_the_link() {
    let server = Server::start(|_| with_body("404 Not Found", "")).await;
    let link = server.url("/blob?exp=1&sig=a-secret");
    let error = anywhere().build().unwrap().fetch(&reference(link)).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("a-secret"));
    let heads = server.heads();
    assert!(heads[0].starts_with("GET /blob?exp=1&sig=a-secret HTTP/1.1\r\n"));
    let names: Vec<_> =
        heads[0].lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(names, ["user-agent", "host"]);
}

#[tokio::test]
async fn what_is_no_link_is_not_followed() {
    for link in [
        "",
        "blob",
        "/api/v1/blobs/1",
        "https://user@esl.your-app.com/",
        "ftp://esl.your-app.com/",
        "data:,1",
    ] {
        let fetched = Fetcher::new().fetch(&reference(link.to_owned())).await;
        assert!(matches!(fetched, Err(FetchError::Unusable(_))), "{link}: {fetched:?}");
    }
}
