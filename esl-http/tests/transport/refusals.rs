//! Addresses that must not be called are not connected to.

use esl_core::{AttemptError, CallbackPolicy};
use esl_http::HttpTransport;

use crate::{
    answer,
    authority::Authority,
    detail, error,
    receiver::{Receiver, has_visitor, listen, with_body},
    resolver::Fixed,
    send,
};

#[tokio::test]
async fn no_spelling_of_this_machine_is_connected_to() {
    let listener = listen().await;
    let port = listener.local_addr().unwrap().port();
    let transport = HttpTransport::default();
    for host in [
        "127.0.0.1",
        "127.1",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "017700000001",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "api.localhost",
        "localhost.localdomain",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
    ] {
        let sent = send(&transport, &format!("https://{host}:{port}/hook")).await;
        assert_eq!(error(&sent), AttemptError::RefusedAddress, "{host}");
        assert_eq!(sent.timings.connect, None);
    }
    assert!(!has_visitor(&listener).await);
}

#[tokio::test]
async fn what_a_resolver_or_proxy_may_take_for_an_address_is_not_looked_up() {
    let transport =
        HttpTransport::builder().with_resolver(Fixed::to(["127.0.0.1"])).build().unwrap();
    let mut failing = Vec::new();
    for (host, why) in [
        ("127.1", "short"),
        ("127.0.1", "short, three parts"),
        ("10.1", "short, private"),
        ("0x7f.1", "hex, short"),
        ("0X7F.1", "hex, upper case"),
        ("0x7f.0x1", "hex at the end"),
        ("0xa9.0xfe.0xa9.0xfe", "hex, metadata"),
        ("0177.0.0.1", "octal"),
        ("0251.0376.0251.0376", "octal, metadata"),
        ("127.000.000.001", "zeros ahead"),
        ("127.0.0.1.", "dot at the end"),
        ("127.0.0.256", "too large a part"),
        ("8.8.8.8.8", "too many parts"),
        ("your-app.127", "a number as top-level domain"),
        ("your-app.0x7f", "a hex number as top-level domain"),
        ("your-app..com", "empty label"),
        (".your-app.com", "empty label ahead"),
    ] {
        let sent = send(&transport, &format!("https://{host}/hook")).await;
        let (error, looked_up) = (error(&sent), sent.timings.resolve.is_some());
        if error != AttemptError::RefusedAddress || looked_up {
            failing.push(format!("{host} ({why}): {error:?}, looked up: {looked_up}"));
        }
    }
    assert!(failing.is_empty(), "{}", failing.join("\n"));
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_connected_to() {
    let listener = listen().await;
    let port = listener.local_addr().unwrap().port();
    let transport =
        HttpTransport::builder().with_resolver(Fixed::to(["127.0.0.1"])).build().unwrap();
    let sent = send(&transport, &format!("https://rebind.your-app.com:{port}/hook")).await;
    assert_eq!(error(&sent), AttemptError::RefusedAddress);
    assert!(!detail(&sent).contains("127.0.0.1"), "what it leads to is not shown");
    assert!(sent.timings.resolve.is_some() && sent.timings.connect.is_none());
    assert!(!has_visitor(&listener).await);
}

#[tokio::test]
async fn plain_http_needs_the_policy_that_allows_private_callbacks() {
    let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
    let url = format!("http://receiver.your-app.com:{}/hook", receiver.address().port());
    let with = |policy| {
        HttpTransport::builder()
            .with_policy(policy)
            .with_resolver(Fixed::to(["127.0.0.1"]))
            .build()
            .unwrap()
    };
    let sent = send(&with(CallbackPolicy::public()), &url).await;
    assert_eq!(error(&sent), AttemptError::RefusedAddress);
    assert_eq!(receiver.accepted(), 0);
    assert_eq!(answer(send(&with(CallbackPolicy::allow_private()), &url).await).status, 200);
}

#[tokio::test]
async fn what_an_operator_lists_is_called_over_https_and_nothing_else_is() {
    let authority = Authority::new();
    let receiver = authority.receiver(&["127.0.0.1", "hooks.internal"], 2999).await;
    let port = receiver.address().port();
    let listing = |list: &str| {
        let policy = CallbackPolicy::public().with_allowed(list.parse().unwrap());
        let resolver = Fixed::to(["127.0.0.1"]);
        authority.believer().with_policy(policy).with_resolver(resolver).build().unwrap()
    };
    for (list, host, is_called) in [
        ("127.0.0.0/8", "127.0.0.1", true),
        ("127.0.0.0/8", "hooks.internal", false),
        ("hooks.internal", "hooks.internal", true),
        ("*.internal", "hooks.internal", true),
        ("*.internal, 127.0.0.1", "127.0.0.1", true),
        ("hooks.internal", "127.0.0.1", false),
        ("hooks.internal", "other.internal", false),
        ("hooks.internal", "hooks.your-app.com", false),
        ("10.0.0.0/8", "127.0.0.1", false),
        ("", "hooks.internal", false),
    ] {
        let transport = listing(list);
        let sent = send(&transport, &format!("https://{host}:{port}/hook")).await;
        if is_called {
            assert_eq!(answer(sent).status, 200, "{host} with {list:?}");
        } else {
            assert_eq!(error(&sent), AttemptError::RefusedAddress, "{host} with {list:?}");
        }
        let sent = send(&transport, &format!("http://{host}:{port}/hook")).await;
        assert_eq!(error(&sent), AttemptError::RefusedAddress, "plain {host} with {list:?}");
    }
}
