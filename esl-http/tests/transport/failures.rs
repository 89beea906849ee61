//! What goes wrong, by name.

use std::time::Duration;

use esl_core::{AttemptError, CallbackPolicy, Outbound, Transport as _};
use esl_http::HttpTransport;
use tokio::net::TcpSocket;

use crate::{
    detail, error, outbound,
    receiver::{Receiver, has_visitor, listen},
    resolver::Fixed,
    send, send_within, transport,
};

#[tokio::test]
async fn nobody_listening_is_a_failure_to_connect() {
    // Taken, so that no other test listens there, but not listened on.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let sent = send(&transport(), &format!("http://{address}/")).await;
    assert_eq!(error(&sent), AttemptError::Connect);
    assert!(!detail(&sent).contains("127.0.0.1"), "{}", detail(&sent));
    assert_eq!(sent.timings.connect, None);
}

#[tokio::test]
async fn an_unknown_name_is_a_failure_of_dns() {
    let transport = HttpTransport::builder()
        .with_policy(CallbackPolicy::allow_private())
        .with_resolver(Fixed::to([]))
        .build()
        .unwrap();
    let sent = send(&transport, "http://your-app.com/").await;
    assert_eq!(error(&sent), AttemptError::Dns);
    assert!(sent.timings.resolve.is_some());
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_left_at_the_deadline() {
    let receiver = Receiver::start(|mut conversation, _| async move {
        conversation.closed().await;
    })
    .await;
    let timeout = Duration::from_millis(100);
    let sent = send_within(&transport(), &receiver.url(), timeout).await;
    assert_eq!(error(&sent), AttemptError::Timeout);
    assert_eq!(detail(&sent), "no answer within 100ms");
    assert!(sent.timings.total >= timeout);
    assert_eq!(sent.timings.first_byte, None);
}

#[tokio::test]
async fn a_body_that_never_ends_is_left_at_the_same_deadline() {
    let receiver = Receiver::start(|mut conversation, _| async move {
        conversation.request().await;
        conversation.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        conversation.closed().await;
    })
    .await;
    let timeout = Duration::from_secs(2);
    let sent = send_within(&transport(), &receiver.url(), timeout).await;
    assert_eq!(error(&sent), AttemptError::Timeout);
    assert_eq!(detail(&sent), "the answer did not end within 2s");
    assert!(sent.timings.connect.is_some() && sent.timings.first_byte.unwrap() < timeout);
}

#[tokio::test]
async fn dripping_does_not_move_the_deadline() {
    for head in ["HTTP/1.1 200 OK\r\nx-long: ", "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"] {
        let receiver = Receiver::start(move |mut conversation, _| async move {
            conversation.request().await;
            conversation.say(head).await;
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            while conversation.say("x").await {
                pace.tick().await;
            }
        })
        .await;
        let timeout = Duration::from_millis(300);
        let sent = send_within(&transport(), &receiver.url(), timeout).await;
        assert_eq!(error(&sent), AttemptError::Timeout);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_answer_is_a_reset() {
    for said in [
        "",
        "H",
        "HTTP/1.1 200 O",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal",
    ] {
        for is_reset in [false, true] {
            let receiver = Receiver::start(move |mut conversation, _| async move {
                conversation.request().await;
                conversation.say(said).await;
                if is_reset {
                    conversation.reset();
                }
            })
            .await;
            let sent = send(&transport(), &receiver.url()).await;
            assert_eq!(error(&sent), AttemptError::Reset, "{said:?} {is_reset}");
            assert!(sent.timings.connect.is_some());
        }
    }
}

#[tokio::test]
async fn a_new_connection_that_is_closed_at_once_is_a_reset_and_not_stale() {
    let receiver = Receiver::start(|conversation, _| async move { drop(conversation) }).await;
    let sent = send(&transport(), &receiver.url()).await;
    assert_eq!(error(&sent), AttemptError::Reset);
    assert_eq!(receiver.accepted(), 1);
}

#[tokio::test]
async fn what_is_not_http_is_a_reset() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "\u{0}\u{1}\u{2}\u{3}\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        "<html></html>\r\n\r\n",
    ] {
        let receiver = Receiver::answering(garbage).await;
        let sent = send(&transport(), &receiver.url()).await;
        assert_eq!(error(&sent), AttemptError::Reset, "{garbage:?}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_named_so() {
    let long = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-many: x\r\n".repeat(200));
    for head in [long, many] {
        let receiver = Receiver::answering(head).await;
        let sent = send(&transport(), &receiver.url()).await;
        assert_eq!(error(&sent), AttemptError::TooLarge);
    }
}

#[tokio::test]
async fn what_cannot_be_sent_over_http_connects_to_nobody() {
    let listener = listen().await;
    let url = format!("http://{}/", listener.local_addr().unwrap());
    for (name, value) in [("x-line", "a\r\nx-smuggled: b"), ("not a name", "a")] {
        let headers = vec![(name.into(), value.to_owned())];
        let sent = transport().send(Outbound { headers, ..outbound(&url) }).await;
        assert_eq!(error(&sent), AttemptError::Connect);
        assert!(detail(&sent).contains(name) && !detail(&sent).contains("smuggled"));
    }
    for url in ["", "/hook", "http://", "receiver", "http://a b/"] {
        assert_eq!(error(&send(&transport(), url).await), AttemptError::Connect, "{url}");
    }
    assert!(!has_visitor(&listener).await);
}
