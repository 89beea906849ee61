use std::{error::Error, fmt};

/// What storage could not do, and why.
///
/// Shaped by what the caller does next: [`kind`](Self::kind) to match,
/// [`is_transient`](Self::is_transient) to decide whether to try again.
#[derive(Debug, thiserror::Error)]
#[error("storage could not {operation}: {kind}")]
pub struct StorageError {
    kind: StorageErrorKind,
    operation: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of [`StorageError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// Another writer held the database for too long.
    Busy,
    /// Something of that name exists already.
    Conflict,
    /// The organization has as many of them as it may have.
    OverLimit,
    /// What was read cannot be what was written.
    Corrupt,
    /// No room, no permission or an I/O error: nothing works until a person or time mends it.
    Unavailable,
    /// There is no such thing in that organization.
    NotFound,
    /// There was such a thing, and it was removed because it was old, or erased.
    Gone,
    /// Another engine has the storage, or the epoch of this one is over.
    Fenced,
    /// The database was made by a newer ESL, or its settings make the promise of durability void.
    Unsupported,
    /// Secrets in it are encrypted with a key that was not given. Nothing is wrong with them.
    KeyMissing,
}

impl StorageError {
    /// An error of one kind, in the middle of an operation ("commit", "open the database").
    #[must_use]
    pub const fn new(kind: StorageErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// What was being done.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            StorageErrorKind::Busy | StorageErrorKind::Unavailable => true,
            StorageErrorKind::Conflict
            | StorageErrorKind::OverLimit
            | StorageErrorKind::Corrupt
            | StorageErrorKind::NotFound
            | StorageErrorKind::Gone
            | StorageErrorKind::Fenced
            | StorageErrorKind::Unsupported
            | StorageErrorKind::KeyMissing => false,
        }
    }
}

impl fmt::Display for StorageErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "it is busy",
            Self::Conflict => "it exists already",
            Self::OverLimit => "there may be no more of them",
            Self::Corrupt => "the data is damaged",
            Self::Unavailable => "it is unavailable",
            Self::NotFound => "not found",
            Self::Gone => "it was erased, or removed because it was old",
            Self::Fenced => "another engine has it, or its time is over",
            Self::Unsupported => "it is not supported",
            Self::KeyMissing => "its secrets are encrypted with a key that was not given",
        })
    }
}
