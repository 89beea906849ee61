//! TLS towards receivers.

use std::{fmt, sync::Arc, time::Duration};

use esl_core::AttemptError;
use rustls::{
    ClientConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName},
};
use rustls_platform_verifier::Verifier;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{HttpTransportError, connector::ConnectError, failure};

/// Shakes hands, trusting the machine's root certificates and perhaps others.
#[derive(Clone)]
pub(super) struct Tls {
    /// `None` on a machine without root certificates.
    connector: Option<TlsConnector>,
}

impl Tls {
    pub(super) fn new(roots: Vec<Vec<u8>>) -> Result<Self, HttpTransportError> {
        // Given by name: a default for the whole process is the embedder's to install.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let has_roots = !roots.is_empty();
        let roots = roots.into_iter().map(CertificateDer::from);
        match Verifier::new_with_extra_roots(roots, Arc::clone(&provider)) {
            Ok(verifier) => Ok(Self { connector: Some(connector(verifier, provider)) }),
            Err(error) if has_roots => Err(HttpTransportError::RootCertificate(error.into())),
            Err(error) => {
                tracing::warn!(%error, "no https callback can be called: {NO_ROOTS}");
                Ok(Self { connector: None })
            }
        }
    }

    pub(super) async fn handshake(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let Some(connector) = &self.connector else { return Err(tls_error(NO_ROOTS)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| tls_error("no certificate can be for this host"))?;
        timeout(HANDSHAKE_TIMEOUT, connector.connect(name, tcp))
            .await
            .map_err(|_| tls_error(format!("no handshake within {HANDSHAKE_TIMEOUT:?}")))?
            .map_err(|error| tls_error(failure::bounded(error.to_string())))
    }
}

fn connector(verifier: Verifier, provider: Arc<CryptoProvider>) -> TlsConnector {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // Without it, a server that prefers HTTP/2 could speak it unasked.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn tls_error(detail: impl Into<String>) -> ConnectError {
    ConnectError::new(AttemptError::Tls, detail)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("has_roots", &self.connector.is_some()).finish()
    }
}

const NO_ROOTS: &str =
    "this machine has no root certificates; install its package of CA certificates";

/// As long as the longest attempt, whose own deadline comes first. It is for a connection whose
/// attempt went on with another one.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn without_root_certificates_https_fails_and_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let tls = Tls { connector: None };
        let ConnectError(failure) = tls.handshake("your-app.com", tcp).await.unwrap_err();
        assert_eq!(failure.error, AttemptError::Tls);
        assert!(failure.detail.contains("CA certificates"), "{}", failure.detail);
    }
}
