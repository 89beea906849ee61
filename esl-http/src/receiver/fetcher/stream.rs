//! Holding data against its reference, while it comes.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use esl_core::DataRef;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};

use super::super::FetchError;

/// Large data, as it comes: what it has said to its end is what the event's reference says.
///
/// More bytes than there are to be are an error at once. The last of them are held back until the
/// checksum is known: if it is another, or bytes are missing, an error comes in their place. So
/// whoever has read to the end without an error has the data, and until then nobody should rely on it.
pub struct DataStream(Pin<Box<dyn Stream<Item = Result<Bytes, FetchError>> + Send>>);

/// What a reference says of its data.
#[derive(Debug)]
pub(super) struct Expected {
    size_bytes: u64,
    sha256: [u8; 32],
}

impl Expected {
    pub(super) fn of(reference: &DataRef) -> Result<Self, FetchError> {
        let hex = reference.checksum.strip_prefix("sha256:");
        let hex = hex.ok_or(FetchError::Unusable("its checksum is not of a kind that is known"))?;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(hex, &mut sha256)
            .map_err(|_| FetchError::Unusable("its checksum is malformed"))?;
        Ok(Self { size_bytes: reference.size_bytes, sha256 })
    }
}

impl DataStream {
    pub(super) fn new(
        body: Incoming,
        expected: &Expected,
        deadline: Instant,
    ) -> Result<Self, FetchError> {
        let said = body.size_hint();
        if said.lower() > expected.size_bytes {
            return Err(FetchError::TooLong);
        }
        if said.upper().is_some_and(|upper| upper < expected.size_bytes) {
            return Err(FetchError::TooShort);
        }
        let &Expected { size_bytes: missing, sha256 } = expected;
        let coming = Coming { body, missing, sha256, digest: Some(Sha256::new()), deadline };
        let parts = stream::try_unfold(coming, |mut coming| async move {
            Ok(coming.next().await?.map(|part| (part, coming)))
        });
        Ok(Self(Box::pin(parts)))
    }
}

/// Data on its way.
struct Coming {
    body: Incoming,
    missing: u64,
    sha256: [u8; 32],
    /// `None` once it was compared.
    digest: Option<Sha256>,
    deadline: Instant,
}

impl Coming {
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let Some(part) = self.part().await? else { return self.end().map(|()| None) };
        if let Some(digest) = &mut self.digest {
            digest.update(&part);
        }
        self.missing = self.missing.checked_sub(part.len() as u64).ok_or(FetchError::TooLong)?;
        if self.missing == 0 {
            if self.part().await?.is_some() {
                return Err(FetchError::TooLong);
            }
            self.end()?;
        }
        Ok(Some(part))
    }

    /// The next bytes, if there are any.
    async fn part(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = timeout_at(self.deadline, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| FetchError::Timeout)? else { return Ok(None) };
            let frame = frame.map_err(|error| FetchError::Unavailable(error.into()))?;
            match frame.into_data() {
                Ok(part) if !part.is_empty() => return Ok(Some(part)),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// What is to be said when nothing more comes.
    fn end(&mut self) -> Result<(), FetchError> {
        if self.missing > 0 {
            return Err(FetchError::TooShort);
        }
        let digest = self.digest.take().map(Sha256::finalize);
        let is_other = digest.is_some_and(|digest| digest.as_slice() != self.sha256);
        if is_other { Err(FetchError::Checksum) } else { Ok(()) }
    }
}

impl Stream for DataStream {
    type Item = Result<Bytes, FetchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for DataStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataStream").finish_non_exhaustive()
    }
}
