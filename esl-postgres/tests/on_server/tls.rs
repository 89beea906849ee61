//! TLS towards a server.

use std::error::Error;

use esl_core::storage::{StorageError, StorageErrorKind};
use esl_postgres::PostgresStorage;

use crate::cluster::{self, Own};

async fn open(own: &Own, host: &str, options: &str) -> Result<PostgresStorage, StorageError> {
    let url = format!("postgres://postgres@{host}:{}/postgres?{options}", own.port);
    let opened = PostgresStorage::options().schema(cluster::new_schema()).may_lose_everything();
    opened.open(&url).await
}

#[tokio::test]
async fn a_server_with_a_certificate_that_is_trusted_is_spoken_to() {
    let Some(own) = cluster::own() else { return };
    let certificate = own.certificate().display();
    for mode in ["", "sslmode=verify-full&", "sslmode=require&", "sslmode=prefer&"] {
        let options = format!("{mode}sslrootcert={certificate}");
        open(own, "localhost", &options).await.unwrap();
    }
    open(own, "localhost", "sslmode=disable").await.unwrap();
}

#[tokio::test]
async fn a_server_that_may_be_another_is_not_spoken_to() {
    let Some(own) = cluster::own() else { return };
    let certificate = own.certificate().display();
    let trusted = format!("sslmode=verify-full&sslrootcert={certificate}");
    for (host, options) in [
        // Nobody vouches for it, also where TLS is not asked for.
        ("localhost", "sslmode=verify-full"),
        ("localhost", "sslmode=prefer"),
        // Somebody does, under another name.
        ("127.0.0.1", &trusted),
    ] {
        let error = open(own, host, options).await.expect_err("it is refused");
        assert_eq!(error.kind(), StorageErrorKind::Unavailable, "{host} {options}");
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains("TLS"), "{cause}");
    }
}

#[tokio::test]
async fn files_that_hold_no_certificate_are_refused() {
    let Some(own) = cluster::own() else { return };
    let certificate = own.certificate().display().to_string();
    for options in [
        "sslrootcert=/nowhere.pem".to_owned(),
        "sslrootcert=/dev/null".to_owned(),
        format!("sslrootcert={certificate}&sslcert={certificate}&sslkey={certificate}"),
    ] {
        let error = open(own, "localhost", &options).await.expect_err("it is refused");
        assert_eq!(error.kind(), StorageErrorKind::Unavailable, "{options}");
    }
}
