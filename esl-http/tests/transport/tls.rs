//! TLS: whom we believe.

use std::sync::Arc;

use esl_core::{AttemptError, CallbackPolicy};
use esl_http::{HttpTransport, HttpTransportError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    answer, detail, error,
    receiver::{Conversation, Receiver, with_body},
    send,
};

/// Signs the certificates of a test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ESL test authority");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn acceptor(&self, names: &[&str], until_year: i32) -> TlsAcceptor {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config).into()
    }

    /// A receiver with a certificate for these names, until the beginning of that year.
    async fn receiver(&self, names: &[&str], until_year: i32) -> Receiver {
        let acceptor = self.acceptor(names, until_year);
        Receiver::start(move |conversation, _| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(conversation.into_stream()).await else { return };
                let mut conversation = Conversation::new(stream);
                while conversation.request().await.is_some() {
                    conversation.say(with_body("200 OK", "OK")).await;
                }
            }
        })
        .await
    }

    fn believer(&self) -> HttpTransport {
        HttpTransport::builder()
            .with_policy(CallbackPolicy::allow_private())
            .with_root_certificates([self.certificate.to_vec()])
            .build()
            .unwrap()
    }
}

fn https(receiver: &Receiver, host: &str) -> String {
    format!("https://{host}:{}/hook", receiver.address().port())
}

#[tokio::test]
async fn a_certificate_from_a_trusted_root_for_the_right_name_is_believed() {
    let authority = Authority::new();
    let receiver = authority.receiver(&["localhost", "127.0.0.1"], 2999).await;
    let transport = authority.believer();
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
        let sent = send(&authority.believer(), &https(&receiver, "localhost")).await;
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
    let transport = Authority::new().believer();
    for receiver in [plain, silent] {
        let sent = send(&transport, &https(&receiver, "localhost")).await;
        assert_eq!(error(&sent), AttemptError::Tls, "{}", detail(&sent));
    }
}

#[test]
fn what_is_no_certificate_is_refused_when_building() {
    let built =
        HttpTransport::builder().with_root_certificates([b"no certificate".to_vec()]).build();
    assert!(matches!(built, Err(HttpTransportError::RootCertificate(_))));
}
