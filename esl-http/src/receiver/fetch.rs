//! Data that was too large to be sent: the seam.

use std::{error::Error, fmt};

use async_trait::async_trait;
use bytes::Bytes;
use esl_core::DataRef;

/// Fetches the data of an event that was too large to be sent.
///
/// With feature `fetch` there is one, `Fetcher`.
#[async_trait]
pub trait Fetch: fmt::Debug + Send + Sync {
    /// The data: all of it, of the size and with the checksum that the reference has.
    ///
    /// # Errors
    /// See [`FetchError`].
    ///
    /// # Cancellation
    /// A dropped call changes nothing.
    async fn fetch(&self, reference: &DataRef) -> Result<Bytes, FetchError>;
}

/// Why data was not fetched. No text has the link in it: who has it can read the data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The link has expired. A delivery that ESL sends again has a new one.
    #[error("the link to the data has expired")]
    Expired,
    /// There is more of it than is taken; nothing was asked for.
    #[error("the data has {size_bytes} bytes, and at most {bytes_max} are taken")]
    TooLarge {
        /// How much there is.
        size_bytes: u64,
        /// How much is taken.
        bytes_max: u64,
    },
    /// The reference, or a link that it led to, cannot be followed.
    #[error("the link to the data cannot be followed: {0}")]
    Unusable(&'static str),
    /// The link leads to what must not be called: plain `http`, or an address that is not public.
    #[error("the link to the data is refused: {0}")]
    Refused(String),
    /// The answer was not the data.
    #[error("the link to the data was answered with {0}")]
    Status(u16),
    /// There are more bytes than the reference says.
    #[error("the data is longer than the event says")]
    TooLong,
    /// There are fewer bytes than the reference says.
    #[error("the data is shorter than the event says")]
    TooShort,
    /// They are other bytes.
    #[error("the data is not what the event says: its checksum is another")]
    Checksum,
    /// It took too long.
    #[error("the data took too long to arrive")]
    Timeout,
    /// It could not be had: there was no connection, or it broke.
    #[error("the data could not be had")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}
