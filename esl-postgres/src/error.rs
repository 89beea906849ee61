//! Foreign errors, translated once.
//!
//! What the server says of values is left out: its details, and its messages where they name some. An error
//! goes to logs, and an organization's name or a secret must not.

use std::{error::Error, fmt, io};

use deadpool_postgres::PoolError;
use esl_core::{
    NoRandomness, OpenError,
    storage::{StorageError, StorageErrorKind},
};
use tokio_postgres::error::DbError;

pub(crate) fn translate(operation: &'static str, error: tokio_postgres::Error) -> StorageError {
    let storage_error = StorageError::new(kind(&error), operation);
    match error.as_db_error() {
        Some(said) => storage_error.with_source(ServerError::new(said)),
        None => storage_error.with_source(error),
    }
}

pub(crate) fn translate_pool(operation: &'static str, error: PoolError) -> StorageError {
    match error {
        PoolError::Backend(error) => translate(operation, error),
        PoolError::Timeout(_) => StorageError::new(StorageErrorKind::Busy, operation)
            .with_source("no connection was free or could be made in time"),
        other => StorageError::new(StorageErrorKind::Unavailable, operation).with_source(other),
    }
}

/// What is said when the server has not answered in time.
pub(crate) fn timed_out(operation: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Busy, operation)
        .with_source("the server has not answered in time")
}

pub(crate) const fn refused(kind: StorageErrorKind, operation: &'static str) -> StorageError {
    StorageError::new(kind, operation)
}

/// The same for another caller.
pub(crate) fn copy(error: &StorageError) -> StorageError {
    let copy = StorageError::new(error.kind(), error.operation());
    let Some(source) = error.source() else { return copy };
    let mut text = source.to_string();
    let mut next = source.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    copy.with_source(text)
}

/// Whether the server has said that nothing of the transaction is left, and that the same may do when it
/// comes again: it was in the way of another one.
pub(crate) fn is_worth_repeating(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "40001" | "40P01"))
}

/// Whether a connection could not be made since there are as many as there may be: the server's, or this
/// process's open files.
pub(crate) fn is_for_want_of_connections(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => code.code() == "53300",
        None => is_for_want_of_descriptors(error),
    }
}

fn is_for_want_of_descriptors(error: &(dyn Error + 'static)) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    let mut next = Some(error);
    while let Some(error) = next {
        let code = error.downcast_ref().and_then(io::Error::raw_os_error);
        if matches!(code, Some(ENFILE | EMFILE)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether something was there already that a statement took for new.
pub(crate) fn is_there_already(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == "23505")
}

/// Whether nobody knows what has become of a transaction: the connection ended before the server's last word.
pub(crate) fn is_outcome_unknown(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => code.code().starts_with("57P0") || code.code().starts_with("08"),
        None => true,
    }
}

/// Whether the other side has refused a connection for what it was to begin with.
pub(crate) fn is_of_parameters(error: &StorageError) -> bool {
    let said = error.source().and_then(|source| source.downcast_ref::<ServerError>());
    said.is_some_and(|said| matches!(said.code.as_str(), "08P01" | "0A000"))
}

fn kind(error: &tokio_postgres::Error) -> StorageErrorKind {
    // Without a code it is not the server that speaks: the connection could not be made, or was lost.
    error.code().map_or(StorageErrorKind::Unavailable, |code| kind_of_code(code.code()))
}

fn kind_of_code(code: &str) -> StorageErrorKind {
    match (code, code.get(..2).unwrap_or_default()) {
        ("ESL01", _) => StorageErrorKind::Fenced,
        ("ESL04", _) => StorageErrorKind::KeyMissing,
        ("ESL05", _) => StorageErrorKind::Unsupported,
        // Serialization, deadlock, a lock that was not free in time, a query that was cancelled.
        ("40001" | "40P01" | "55P03" | "57014", _) => StorageErrorKind::Busy,
        // No right to it, which a person can grant.
        ("42501", _) => StorageErrorKind::Unavailable,
        ("XX001" | "XX002", _) => StorageErrorKind::Corrupt,
        // A value or a constraint: of ours they can only fail on rows that ESL has not written.
        (_, "22" | "23") => StorageErrorKind::Corrupt,
        // Something is not there, or not as this build knows it.
        (_, "42" | "0A" | "3F") => StorageErrorKind::Unsupported,
        // Connections, resources, administrators, a server that only reads, and the rest.
        _ => StorageErrorKind::Unavailable,
    }
}

/// What the server said, without values.
#[derive(Debug)]
struct ServerError {
    code: String,
    said: String,
}

impl ServerError {
    fn new(error: &DbError) -> Self {
        let code = error.code().code().to_owned();
        // Their messages may quote a value.
        let said = if code.starts_with("22") || code.starts_with("23") || code.starts_with("P0") {
            let place = error.constraint().or(error.column()).or(error.table());
            format!("not accepted at {}", place.unwrap_or("a value"))
        } else {
            error.message().to_owned()
        };
        Self { code, said }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.said, self.code)
    }
}

impl Error for ServerError {}

/// A column that does not hold what ESL puts there.
#[derive(Debug)]
pub(crate) struct Damage {
    column: usize,
    cause: Box<dyn Error + Send + Sync>,
}

impl Damage {
    pub(crate) fn new(column: usize, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { column, cause: cause.into() }
    }

    /// Whether a secret could not be read because its key was not given.
    pub(crate) fn is_key_missing(&self) -> bool {
        matches!(self.cause.downcast_ref(), Some(OpenError::UnknownKey(_)))
    }

    pub(crate) fn into_error(self, operation: &'static str) -> StorageError {
        let kind = if self.is_key_missing() {
            StorageErrorKind::KeyMissing
        } else {
            StorageErrorKind::Corrupt
        };
        StorageError::new(kind, operation).with_source(self)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {} is not what ESL writes there", self.column)
    }
}

impl Error for Damage {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// A secret that could not be sealed for lack of random bits. Nothing is wrong with it.
pub(crate) fn without_randomness(operation: &'static str, error: NoRandomness) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, operation).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_kind_that_says_what_to_do() {
        for (code, expected) in [
            ("ESL01", StorageErrorKind::Fenced),
            ("ESL04", StorageErrorKind::KeyMissing),
            ("ESL05", StorageErrorKind::Unsupported),
            ("40001", StorageErrorKind::Busy),
            ("40P01", StorageErrorKind::Busy),
            ("55P03", StorageErrorKind::Busy),
            ("57014", StorageErrorKind::Busy),
            ("08006", StorageErrorKind::Unavailable),
            ("25006", StorageErrorKind::Unavailable),
            ("28P01", StorageErrorKind::Unavailable),
            ("3D000", StorageErrorKind::Unavailable),
            ("42501", StorageErrorKind::Unavailable),
            ("53100", StorageErrorKind::Unavailable),
            ("53300", StorageErrorKind::Unavailable),
            ("57P01", StorageErrorKind::Unavailable),
            ("57P03", StorageErrorKind::Unavailable),
            ("0A000", StorageErrorKind::Unsupported),
            ("3F000", StorageErrorKind::Unsupported),
            ("42P01", StorageErrorKind::Unsupported),
            ("42883", StorageErrorKind::Unsupported),
            ("22021", StorageErrorKind::Corrupt),
            ("23505", StorageErrorKind::Corrupt),
            ("XX001", StorageErrorKind::Corrupt),
        ] {
            assert_eq!(kind_of_code(code), expected, "{code}");
        }
    }

    #[test]
    fn a_copy_says_the_same() {
        let damage = Damage::new(3, "no seq");
        let error = damage.into_error("read");
        let copy = copy(&error);
        assert_eq!((copy.kind(), copy.operation()), (error.kind(), error.operation()));
        let source = copy.source().map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("column 3 is not what ESL writes there: no seq"));
    }
}
