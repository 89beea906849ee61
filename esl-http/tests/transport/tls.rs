//! TLS: whom we believe.

use esl_core::{AttemptError, CallbackPolicy};
use esl_http::{HttpTransport, HttpTransportError};

use crate::{answer, authority::Authority, detail, error, receiver::Receiver, send};

fn believer(authority: &Authority) -> HttpTransport {
    authority.believer().build().unwrap()
}

fn https(receiver: &Receiver, host: &str) -> String {
    format!("https://{host}:{}/hook", receiver.address().port())
}

#[tokio::test]
async fn a_certificate_from_a_trusted_root_for_the_right_name_is_believed() {
    let authority = Authority::new();
    let receiver = authority.receiver(&["localhost", "127.0.0.1"], 2999).await;
    let transport = believer(&authority);
    for host in ["localhost", "127.0.0.1"] {
        let sent = send(&transport, &https(&receiver, host)).await;
        assert!(sent.timings.tls.is_some());
        assert_eq!(answer(sent).status, 200);
        let sent = send(&transport, &https(&receiver, host)).await;
        assert!(sent.timings.tls.is_none());
        assert_eq!(answer(sent).status, 200);
    }
    assert_eq!(receiver.accepted(), 2);
}

#[tokio::test]
async fn any_other_certificate_is_a_failure_of_tls() {
    let authority = Authority::new();
    let stranger = Authority::new();
    for (receiver, words) in [
        (authority.receiver(&["localhost"], 2001).await, "expired"),
        (authority.receiver(&["elsewhere.your-app.com"], 2999).await, "not valid for name"),
        (stranger.receiver(&["localhost"], 2999).await, "invalid peer certificate"),
    ] {
        let sent = send(&believer(&authority), &https(&receiver, "localhost")).await;
        assert_eq!(error(&sent), AttemptError::Tls);
        assert!(detail(&sent).contains(words), "{}", detail(&sent));
        assert!(sent.timings.connect.is_some() && sent.timings.tls.is_none());
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_speak_tls_is_a_failure_of_tls() {
    let plain = Receiver::start(|mut conversation, _| async move {
        conversation.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        conversation.closed().await;
    })
    .await;
    let silent = Receiver::start(|conversation, _| async move { drop(conversation) }).await;
    let transport = believer(&Authority::new());
    for receiver in [plain, silent] {
        let sent = send(&transport, &https(&receiver, "localhost")).await;
        assert_eq!(error(&sent), AttemptError::Tls, "{}", detail(&sent));
    }
}

#[tokio::test]
async fn a_pem_file_may_hold_several_roots() {
    let (first, second) = (Authority::new(), Authority::new());
    let pem = format!("# two of them\n{}\n{}", first.pem(), second.pem());
    let transport = HttpTransport::builder()
        .with_policy(CallbackPolicy::allow_private())
        .with_root_certificates_pem(pem.as_bytes())
        .unwrap()
        .build()
        .unwrap();
    for authority in [first, second] {
        let receiver = authority.receiver(&["localhost"], 2999).await;
        assert_eq!(answer(send(&transport, &https(&receiver, "localhost")).await).status, 200);
    }
}

#[test]
fn a_pem_text_without_a_certificate_is_refused() {
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let another = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for pem in ["", "no PEM", broken, another] {
        let built = HttpTransport::builder().with_root_certificates_pem(pem.as_bytes());
        assert!(matches!(built, Err(HttpTransportError::RootCertificate(_))), "{pem}");
    }
}

#[test]
fn what_is_no_certificate_is_refused_when_building() {
    let built =
        HttpTransport::builder().with_root_certificates([b"no certificate".to_vec()]).build();
    assert!(matches!(built, Err(HttpTransportError::RootCertificate(_))));
}
