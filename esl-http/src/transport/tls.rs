//! TLS towards receivers.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use esl_core::AttemptError;
use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName},
};
use rustls_platform_verifier::Verifier;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{HttpTransportError, connector::ConnectError, failure};

/// Shakes hands, trusting the machine's root certificates and perhaps others.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// Trusts the machine's root certificates, and beside them those that are given.
    pub(super) fn new(roots: Vec<CertificateDer<'static>>) -> Result<Self, HttpTransportError> {
        // Given by name: a default for the whole process is the embedder's to install.
        let provider = Arc::new(aws_lc_rs::default_provider());
        // Asked without the others first: with them, having none of its own would be no error.
        let verifier: Arc<dyn ServerCertVerifier> = match Verifier::new(Arc::clone(&provider)) {
            Ok(machine) if roots.is_empty() => Arc::new(machine),
            Ok(_) => Arc::new(
                Verifier::new_with_extra_roots(roots, Arc::clone(&provider)).map_err(unusable)?,
            ),
            Err(error) => {
                tracing::info!(%error, "this machine has no root certificates; using Mozilla's");
                bundled(roots, Arc::clone(&provider))?
            }
        };
        Ok(Self::trusting(verifier, provider))
    }

    fn trusting(verifier: Arc<dyn ServerCertVerifier>, provider: Arc<CryptoProvider>) -> Self {
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        Self(TlsConnector::from(Arc::new(config)))
    }

    pub(super) async fn handshake(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| tls_error("no certificate can be for this host"))?;
        timeout(HANDSHAKE_TIMEOUT, self.0.connect(name, tcp))
            .await
            .map_err(|_| tls_error(format!("no handshake within {HANDSHAKE_TIMEOUT:?}")))?
            .map_err(|error| tls_error(failure::bounded(error.to_string())))
    }
}

/// Trusts the root certificates of Mozilla's program, as they were when this was built, and others.
fn bundled(
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, HttpTransportError> {
    let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for root in roots {
        store.add(root).map_err(unusable)?;
    }
    let builder = WebPkiServerVerifier::builder_with_provider(store.into(), provider);
    builder.build().map(|verifier| verifier as _).map_err(unusable)
}

fn unusable(error: impl Error + Send + Sync + 'static) -> HttpTransportError {
    HttpTransportError::RootCertificate(error.into())
}

fn tls_error(detail: impl Into<String>) -> ConnectError {
    ConnectError::new(AttemptError::Tls, detail)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Its name in a handshake (RFC 9113, 3.2).
pub(super) const HTTP_2: &[u8] = b"h2";

/// As long as the longest attempt, whose own deadline comes first. It is for a connection whose
/// attempt went on with another one.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Shakes hands with a receiver of this certificate.
    async fn shake_hands(
        tls: &Tls,
        certified: &CertifiedKey<rcgen::KeyPair>,
    ) -> Result<(), ConnectError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (shaken, _) =
            tokio::join!(tls.handshake("your-app.com", tcp), acceptor.accept(accepted));
        shaken.map(drop)
    }

    #[tokio::test]
    async fn without_roots_of_the_machine_those_of_mozilla_and_the_given_ones_are_trusted() {
        let certified = generate_simple_self_signed(["your-app.com".to_owned()]).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = |roots| {
            let verifier = bundled(roots, Arc::clone(&provider)).unwrap();
            Tls::trusting(verifier, Arc::clone(&provider))
        };
        let ConnectError(failure) = shake_hands(&tls(vec![]), &certified).await.unwrap_err();
        assert_eq!(failure.error, AttemptError::Tls);
        let given = vec![certified.cert.der().clone()];
        shake_hands(&tls(given), &certified).await.expect("it is trusted now");
        assert!(webpki_roots::TLS_SERVER_ROOTS.len() > 50);
    }

    #[test]
    fn without_roots_of_the_machine_too_what_is_no_certificate_is_refused() {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let none = CertificateDer::from(b"no certificate".to_vec());
        assert!(bundled(vec![none], provider).is_err());
    }
}
