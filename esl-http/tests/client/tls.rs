//! Over TLS: whom a client believes.

use std::sync::Arc;

use esl_http::client::{Client, ClientErrorKind};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use crate::scripted::{self, Server};

/// The certificate of an authority, and the TLS of a server that it vouches for.
fn authority() -> (String, TlsAcceptor) {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (own, its) = (key(), key());
    let pem = params.self_signed(&own).unwrap().pem();
    let issuer = Issuer::new(params, own);
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&its, &issuer).unwrap().der().clone();
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(its.serialize_der()).unwrap());
    (pem, Arc::new(config.unwrap()).into())
}

#[tokio::test]
async fn an_authority_of_ones_own_is_believed_and_no_other() {
    let (pem, acceptor) = authority();
    let healthy = |_: &scripted::Asked, _| {
        scripted::json(200, &json!({ "status": "healthy", "version": "1.0.0" }))
    };
    let server = Server::over(Some(acceptor), healthy).await;
    let base = server.base().replace("http://127.0.0.1", "https://localhost");
    let client = Client::builder(&base).with_root_certificates(pem).build().unwrap();
    assert!(client.health().await.unwrap().is_healthy());

    let (another, _) = authority();
    let client = Client::builder(&base).with_root_certificates(another).build().unwrap();
    let error = client.health().await.unwrap_err();
    assert_eq!((error.kind(), error.tries()), (ClientErrorKind::Tls, 1), "{error:?}");
    assert_eq!(server.asked().len(), 1, "nothing is sent to whom nobody vouches for");
}

#[test]
fn what_is_no_certificate_is_refused() {
    for pem in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let builder = Client::builder("https://localhost").with_root_certificates(pem);
        assert_eq!(builder.build().unwrap_err().kind(), ClientErrorKind::Misuse, "{pem}");
    }
}
