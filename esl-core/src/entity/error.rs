use std::sync::Arc;

use super::Fault;
use crate::{EntityKey, KindName, PublishError, storage::StorageError};

/// Why entities were not written, or read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EntityError {
    /// No kind of that name is declared.
    #[error("no kind `{0}` is declared")]
    UnknownKind(String),
    /// There is no such entity.
    #[error("there is no {0}")]
    NotFound(EntityKey),
    /// One of that id is there already.
    #[error("there is a {0} already")]
    Exists(EntityKey),
    /// The document is not what its kind asks for.
    #[error("the document is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Fault>),
    /// The document is larger than [one may be](crate::DOCUMENT_BYTES_MAX).
    #[error("the document has {bytes} bytes; {bytes_max} are the most")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// The most.
        bytes_max: usize,
    },
    /// It cannot be deleted while others refer to it.
    #[error("{key} is referred to by {by}")]
    InUse {
        /// What is to be deleted.
        key: EntityKey,
        /// The kind of those that refer to it.
        by: KindName,
    },
    /// The organization has as many of a kind as it may.
    #[error("an organization has at most {at_most} of {kind}")]
    TooMany {
        /// The kind.
        kind: KindName,
        /// So many there may be.
        at_most: usize,
    },
    /// As many refer to it as may.
    #[error("{0} has as many that refer to it as it may")]
    TooManyReferences(EntityKey),
    /// Something that was read has changed meanwhile: read it anew and try again. Calls that do so by
    /// themselves say this after many tries.
    #[error("{0} was written by others meanwhile")]
    Contended(EntityKey),
    /// The events could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Storage failed; whether anything was written is not known.
    #[error("entities could not be read or written")]
    Storage(#[source] Arc<StorageError>),
}

impl From<StorageError> for EntityError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl EntityError {
    /// One thing that is wrong with a document.
    #[must_use]
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault { pointer: pointer.into(), detail: detail.into() }])
    }
}
