//! TLS towards the server: always verified.

use std::{error::Error, path::Path, sync::Arc};

use esl_core::storage::{StorageError, StorageErrorKind};
use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{OPEN, TlsOptions};

/// Trusts the given root certificates, or the machine's; shows a certificate of its own if it was given one.
pub(crate) fn connector(options: &TlsOptions) -> Result<MakeRustlsConnect, StorageError> {
    // Given by name: a default for the whole process is the embedder's to install.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &options.root_certificates {
        Some(file) => given(file, Arc::clone(&provider))?,
        None => {
            let machine = Verifier::new(Arc::clone(&provider));
            Arc::new(machine.map_err(|error| {
                unusable(format!(
                    "this machine has no root certificates ({error}): give sslrootcert"
                ))
            })?)
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key);
            let key = key.map_err(|error| unusable(format!("sslkey: {error}")))?;
            config
                .with_client_auth_cert(certificates(certificate, "sslcert")?, key)
                .map_err(|error| unusable(format!("sslcert and sslkey: {error}")))?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn given(
    file: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, StorageError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file, "sslrootcert")? {
        store.add(certificate).map_err(|error| unusable(format!("sslrootcert: {error}")))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(store.into(), provider).build();
    verifier
        .map(|verifier| verifier as _)
        .map_err(|error| unusable(format!("sslrootcert: {error}")))
}

/// The certificates of a file, one at least.
fn certificates(
    file: &Path,
    option: &'static str,
) -> Result<Vec<CertificateDer<'static>>, StorageError> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let certificates: Vec<_> =
        certificates.map_err(|error| unusable(format!("{option}: {error}")))?;
    if certificates.is_empty() {
        return Err(unusable(format!("{option}: the file holds no certificate")));
    }
    Ok(certificates)
}

fn unusable(why: impl Into<Box<dyn Error + Send + Sync>>) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, OPEN).with_source(why)
}
