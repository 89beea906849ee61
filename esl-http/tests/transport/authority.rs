//! Certificates of a test.

use std::sync::Arc;

use esl_core::CallbackPolicy;
use esl_http::{HttpTransport, HttpTransportBuilder};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::receiver::{Conversation, Receiver, with_body};

/// Signs the certificates of a test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ESL test authority");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Takes connections with a certificate for these names, until the beginning of that year, and
    /// speaks one of these protocols.
    pub(crate) fn acceptor(
        &self,
        names: &[&str],
        until_year: i32,
        protocols: &[&str],
    ) -> TlsAcceptor {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }

    /// A receiver with a certificate for these names, until the beginning of that year.
    pub(crate) async fn receiver(&self, names: &[&str], until_year: i32) -> Receiver {
        let acceptor = self.acceptor(names, until_year, &[]);
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

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Trusts this authority, and calls loopback, too.
    pub(crate) fn believer(&self) -> HttpTransportBuilder {
        HttpTransport::builder()
            .with_policy(CallbackPolicy::allow_private())
            .with_root_certificates([self.certificate.der().to_vec()])
    }
}
