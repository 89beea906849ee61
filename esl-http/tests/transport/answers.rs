//! What a receiver answers, and how much of it is taken.

use std::sync::Arc;

use esl_core::{Answer, CallbackPolicy, CallbackUrl, Outbound, Transport as _};
use tokio::sync::Mutex;

use crate::{
    BODY, answer, outbound,
    receiver::{Received, Receiver, has_visitor, listen, with_body},
    send, transport,
};

#[tokio::test]
async fn a_delivery_is_one_post_with_the_given_headers_and_exact_bytes() {
    let received = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&received);
    let receiver = Receiver::start(move |mut conversation, _| {
        let seen = Arc::clone(&seen);
        async move {
            *seen.lock().await = conversation.request().await;
            conversation.say(with_body("200 OK", "OK")).await;
        }
    })
    .await;

    let url = format!("{}/%C3%B6?a=b&c=%20", receiver.url());
    let mut outbound = outbound(&url);
    outbound.headers.push(("user-agent".into(), "ESL/1.0.0".to_owned()));
    let sent = transport().send(outbound).await;
    assert_eq!(answer(sent), Answer { status: 200, retry_after: None, excerpt: "".into() });

    let Received { head, body } = received.lock().await.take().unwrap();
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "POST /hook/%C3%B6?a=b&c=%20 HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", receiver.address());
    let length = format!("content-length: {}", BODY.len());
    let expected = [
        &length,
        "content-type: application/json",
        &host,
        "user-agent: ESL/1.0.0",
        "x-sapien-event: person.updated",
    ];
    assert_eq!(lines, expected);
    assert_eq!(body, BODY.as_bytes());
}

#[tokio::test]
async fn whatever_a_callback_url_may_hold_can_be_sent() {
    let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
    let transport = transport();
    let policy = CallbackPolicy::allow_private();
    for character in ('!'..='~').chain(['ö', '€', '🦀']) {
        for place in ["", "?", "?a="] {
            let text = format!("{}{place}{character}x", receiver.url());
            let url = CallbackUrl::parse(&text, &policy).unwrap();
            assert_eq!(answer(send(&transport, url.as_str()).await).status, 200, "{text}");
        }
    }
}

#[tokio::test]
async fn every_kind_of_success_is_an_answer_without_an_excerpt() {
    for (status, head) in [(200, "200 OK"), (201, "201 Created"), (299, "299 Fine")] {
        let receiver = Receiver::answering(with_body(head, "thanks")).await;
        let answer = answer(send(&transport(), &receiver.url()).await);
        assert_eq!(answer, Answer { status, retry_after: None, excerpt: "".into() });
    }
    let receiver = Receiver::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(answer(send(&transport(), &receiver.url()).await).status, 204);
}

#[tokio::test]
async fn of_a_refusal_the_first_kibibyte_is_handed_on() {
    for (length, excerpt_length) in [(0, 0), (1, 1), (1023, 1023), (1024, 1024), (1025, 1024)] {
        let body = "x".repeat(length);
        let receiver = Receiver::answering(with_body("500 Internal Server Error", &body)).await;
        let answer = answer(send(&transport(), &receiver.url()).await);
        assert_eq!((answer.status, answer.excerpt.len()), (500, excerpt_length));
    }
}

#[tokio::test]
async fn a_chunked_refusal_is_put_together() {
    let receiver = Receiver::answering(
        "HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n\
         3\r\nno \r\n6\r\nthanks\r\n0\r\n\r\n",
    )
    .await;
    let answer = answer(send(&transport(), &receiver.url()).await);
    assert_eq!(answer, Answer { status: 400, retry_after: None, excerpt: "no thanks".into() });
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let elsewhere = listen().await;
    let location = elsewhere.local_addr().unwrap();
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let head = format!(
            "HTTP/1.1 {status}\r\nlocation: http://{location}/\r\ncontent-length: 0\r\n\r\n"
        );
        let receiver = Receiver::answering(head).await;
        let answer = answer(send(&transport(), &receiver.url()).await);
        assert_eq!(answer.status.to_string(), status[..3]);
    }
    assert!(!has_visitor(&elsewhere).await);
}

#[tokio::test]
async fn retry_after_is_handed_on_as_it_came() {
    for value in ["120", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"] {
        let head = format!(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {value}\r\ncontent-length: 0\r\n\r\n"
        );
        let receiver = Receiver::answering(head).await;
        let answer = answer(send(&transport(), &receiver.url()).await);
        assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some(value)));
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let receiver = Receiver::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(answer(send(&transport(), &receiver.url()).await).status, 200);
}

#[tokio::test]
async fn an_endless_body_is_left_after_16_kib_and_is_an_answer_all_the_same() {
    for status in ["200 OK", "500 Internal Server Error"] {
        // How much the receiver could write before its connection was closed.
        let (done, written) = tokio::sync::oneshot::channel();
        let done = Arc::new(std::sync::Mutex::new(Some(done)));
        let receiver = Receiver::start(move |mut conversation, _| {
            let done = done.lock().unwrap().take().expect("one connection");
            async move {
                conversation.request().await;
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 1073741824\r\n\r\n");
                conversation.say(head).await;
                let mut written = 0;
                while written < 1 << 30 && conversation.say([b'x'; 64 * 1024]).await {
                    written += 64 * 1024;
                }
                done.send(written).unwrap();
            }
        })
        .await;
        let answer = answer(send(&transport(), &receiver.url()).await);
        assert_eq!(answer.status.to_string(), status[..3]);
        assert_eq!(answer.excerpt.len(), if answer.status == 200 { 0 } else { 1024 });
        // The kernel's buffers took some.
        let written = written.await.unwrap();
        assert!(written < 64 << 20, "{written}");
    }
}

#[tokio::test]
async fn attempts_at_the_same_time_get_their_own_answers() {
    let receiver = Receiver::start(|mut conversation, _| async move {
        while let Some(Received { body, .. }) = conversation.request().await {
            let body = String::from_utf8(body).unwrap();
            conversation.say(with_body("422 Unprocessable", &body)).await;
        }
    })
    .await;
    let transport = transport();
    let sends = (0..50).map(|number| {
        let body = format!("{{\"number\":{number}}}");
        let outbound = Outbound { body: body.clone().into(), ..outbound(&receiver.url()) };
        let transport = transport.clone();
        tokio::spawn(async move { (transport.send(outbound).await, body) })
    });
    for send in sends.collect::<Vec<_>>() {
        let (sent, body) = send.await.unwrap();
        assert_eq!(answer(sent).excerpt, body);
    }
}
