//! Connections are kept, used again, and given up.

use std::sync::Arc;

use esl_core::{AttemptError, CallbackPolicy, Timings, Transport as _};
use esl_http::HttpTransport;
use futures_util::future::join_all;
use tokio::sync::{Barrier, Notify};

use crate::{
    answer, error, outbound,
    receiver::{Receiver, with_body},
    resolver::Fixed,
    send, send_fresh, transport,
};

#[tokio::test]
async fn ten_attempts_in_a_row_take_one_connection() {
    for status in ["200 OK", "500 Internal Server Error"] {
        let receiver = Receiver::answering(with_body(status, &"x".repeat(10_000))).await;
        let transport = transport();
        for _ in 0..10 {
            answer(send(&transport, &receiver.url()).await);
        }
        assert_eq!(receiver.accepted(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_connection_is_opened_again_after_the_receiver_said_close() {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let receiver = Receiver::answering(head).await;
    let transport = transport();
    for _ in 0..3 {
        answer(send(&transport, &receiver.url()).await);
    }
    assert_eq!(receiver.accepted(), 3);
}

#[tokio::test]
async fn beyond_the_limit_connections_are_used_only_once() {
    let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
    let transport = HttpTransport::builder()
        .with_policy(CallbackPolicy::allow_private())
        .with_kept_connections_max(0)
        .build()
        .unwrap();
    for _ in 0..3 {
        answer(send(&transport, &receiver.url()).await);
    }
    assert_eq!(receiver.accepted(), 3);
}

#[tokio::test]
async fn opening_takes_time_once_and_is_shown_by_the_attempt_that_waited_for_it() {
    let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
    let by_address = receiver.url();
    let by_name = by_address.replace("127.0.0.1", "localhost");
    let transport = transport();

    let first = send(&transport, &by_name).await.timings;
    assert!(first.resolve.is_some() && first.connect.is_some() && first.tls.is_none());
    let first_byte = first.first_byte.unwrap();
    assert!(first.resolve.unwrap() + first.connect.unwrap() <= first_byte);
    assert!(first_byte <= first.total);

    let second = send(&transport, &by_name).await.timings;
    let Timings { resolve: None, connect: None, tls: None, first_byte: Some(_), .. } = second
    else {
        panic!("{second:?}");
    };

    let third = send(&transport, &by_address).await.timings;
    assert!(third.resolve.is_none() && third.connect.is_some());
}

#[tokio::test]
async fn the_next_address_gets_its_turn_when_one_refuses() {
    let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
    let transport = HttpTransport::builder()
        .with_policy(CallbackPolicy::allow_private())
        .with_resolver(Fixed::to(["127.0.0.2", "127.0.0.3", "127.0.0.1"]))
        .build()
        .unwrap();
    let url = format!("http://your-app.com:{}/hook", receiver.address().port());
    assert_eq!(answer(send(&transport, &url).await).status, 200);
}

/// Only Linux leaves a connection without an answer once the queue for it is full.
#[cfg(target_os = "linux")]
mod silence {
    use std::{net::SocketAddr, time::Duration};

    use futures_util::{StreamExt as _, stream::FuturesUnordered};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;
    use crate::detail;

    /// An address that answers no connection, as long as this is kept.
    struct Silent {
        _listener: TcpListener,
        _queue: Vec<TcpStream>,
    }

    impl Silent {
        async fn at(address: SocketAddr) -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(address).unwrap();
            let listener = socket.listen(1).unwrap();
            let address = listener.local_addr().unwrap();
            // The kernel keeps one more than asked for.
            let queue: FuturesUnordered<_> = (0..2).map(|_| TcpStream::connect(address)).collect();
            let queue = queue.map(Result::unwrap).collect().await;
            Self { _listener: listener, _queue: queue }
        }
    }

    fn transport(addresses: [&str; 2], connect_timeout: Duration) -> HttpTransport {
        HttpTransport::builder()
            .with_policy(CallbackPolicy::allow_private())
            .with_resolver(Fixed::to(addresses))
            .with_connect_timeout(connect_timeout)
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_keep_the_next_one_waiting() {
        let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
        let port = receiver.address().port();
        let _silent = Silent::at(([127, 0, 0, 2], port).into()).await;
        let transport = transport(["127.0.0.2", "127.0.0.1"], Duration::from_secs(60));
        let url = format!("http://your-app.com:{port}/hook");
        assert_eq!(answer(send(&transport, &url).await).status, 200);
    }

    #[tokio::test]
    async fn connecting_has_its_own_limit_for_all_addresses_together() {
        // A port that nobody else takes meanwhile.
        let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
        let port = receiver.address().port();
        let _first = Silent::at(([127, 0, 0, 2], port).into()).await;
        let _second = Silent::at(([127, 0, 0, 3], port).into()).await;
        let transport = transport(["127.0.0.2", "127.0.0.3"], Duration::from_millis(400));
        let url = format!("http://your-app.com:{port}/hook");
        let sent = send(&transport, &url).await;
        assert_eq!(error(&sent), AttemptError::Connect);
        assert_eq!(detail(&sent), "no connection within 400ms");
        assert_eq!(receiver.accepted(), 0);
    }
}

#[tokio::test]
async fn a_kept_connection_that_turns_out_to_be_closed_is_reported_once() {
    // Answers one request of each connection and closes when the second one comes.
    let receiver = Receiver::start(|mut conversation, _| async move {
        conversation.request().await;
        conversation.say(with_body("200 OK", "OK")).await;
        conversation.request().await;
    })
    .await;
    let transport = transport();
    answer(send(&transport, &receiver.url()).await);
    let stale = send(&transport, &receiver.url()).await;
    assert_eq!(error(&stale), AttemptError::StaleConnection);
    assert_eq!((stale.timings.connect, stale.timings.first_byte), (None, None));
    assert_eq!(receiver.accepted(), 1, "nothing was tried again in secret");
    answer(send(&transport, &receiver.url()).await);
    assert_eq!(receiver.accepted(), 2);
}

#[tokio::test]
async fn a_fresh_send_takes_none_of_the_kept_connections_that_were_closed() {
    const KEPT: usize = 3;
    // The first connections answer one request each, all at once, and close when the next comes.
    let together = Arc::new(Barrier::new(KEPT));
    let receiver = Receiver::start(move |mut conversation, number| {
        let together = Arc::clone(&together);
        async move {
            conversation.request().await;
            if number <= KEPT {
                together.wait().await;
            }
            conversation.say(with_body("200 OK", "OK")).await;
            conversation.request().await;
        }
    })
    .await;
    let transport = transport();
    let url = receiver.url();
    join_all((0..KEPT).map(|_| send(&transport, &url))).await.into_iter().for_each(|sent| {
        answer(sent);
    });
    assert_eq!(receiver.accepted(), KEPT);

    assert_eq!(error(&send(&transport, &url).await), AttemptError::StaleConnection);
    let fresh = send_fresh(&transport, &url).await;
    assert!(fresh.timings.connect.is_some());
    assert_eq!(answer(fresh).status, 200);
    assert_eq!(receiver.accepted(), KEPT + 1);
    let stale = send(&transport, &url).await;
    assert_eq!(error(&stale), AttemptError::StaleConnection, "the kept ones were still there");
}

#[tokio::test]
async fn a_connection_that_a_fresh_send_opened_is_not_kept() {
    let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
    let transport = transport();
    for number in 1..=3 {
        answer(send_fresh(&transport, &receiver.url()).await);
        assert_eq!(receiver.accepted(), number);
    }
    answer(send(&transport, &receiver.url()).await);
    assert_eq!(receiver.accepted(), 4);
}

#[tokio::test]
async fn a_fresh_connection_that_is_closed_without_an_answer_is_not_stale() {
    let receiver = Receiver::start(|mut conversation, _| async move {
        conversation.request().await;
    })
    .await;
    let sent = send_fresh(&transport(), &receiver.url()).await;
    assert_eq!(error(&sent), AttemptError::Reset);
}

#[tokio::test]
async fn a_kept_connection_that_is_reset_is_stale_only_before_the_answer_began() {
    for (begun, expected) in
        [("", AttemptError::StaleConnection), ("HTTP/1.1 20", AttemptError::Reset)]
    {
        let receiver = Receiver::start(move |mut conversation, _| async move {
            conversation.request().await;
            conversation.say(with_body("200 OK", "OK")).await;
            conversation.request().await;
            conversation.say(begun).await;
            if begun.is_empty() {
                conversation.reset();
            }
        })
        .await;
        let transport = transport();
        answer(send(&transport, &receiver.url()).await);
        assert_eq!(error(&send(&transport, &receiver.url()).await), expected);
    }
}

#[tokio::test]
async fn a_dropped_attempt_closes_its_connection() {
    let (arrived, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (Arc::clone(&arrived), Arc::clone(&closed));
    let receiver = Receiver::start(move |mut conversation, _| {
        let (arrived, closed) = signals.clone();
        async move {
            conversation.request().await;
            arrived.notify_one();
            conversation.closed().await;
            closed.notify_one();
        }
    })
    .await;
    let transport = transport();
    tokio::select! {
        _ = transport.send(outbound(&receiver.url())) => panic!("nobody answers"),
        () = arrived.notified() => {}
    }
    closed.notified().await;
}

#[tokio::test]
async fn dropping_the_transport_closes_what_it_kept() {
    let closed = Arc::new(Notify::new());
    let signal = Arc::clone(&closed);
    let receiver = Receiver::start(move |mut conversation, _| {
        let closed = Arc::clone(&signal);
        async move {
            conversation.request().await;
            conversation.say(with_body("200 OK", "OK")).await;
            conversation.closed().await;
            closed.notify_one();
        }
    })
    .await;
    let transport = transport();
    answer(send(&transport, &receiver.url()).await);
    drop(transport);
    closed.notified().await;
}
