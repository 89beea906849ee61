//! The seam to whatever keeps data that is too large to go inline.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Bound, Range},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::{Clock, EventId, InstallationId, OrganizationId, SystemClock, Timestamp, data_ref};

/// Names a blob: whose event it was put for, and which of the puts for that event it is.
///
/// A publish puts its blob before it knows whether it will be committed. So each has a name of its
/// own, and the envelope says which one is the event's: what is refused, rolled back or published
/// under an id that is free again never touches another's data.
///
/// Its text, `<organization>/<event>-<put>`, is what stores call the blob; texts are in the order of
/// keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    /// The event's organization. An event's id is unique within it only.
    pub organization: OrganizationId,
    /// The event.
    pub event: EventId,
    /// The put.
    pub put: PutId,
}

impl BlobKey {
    /// The blob that an envelope's data is in; `None` if the data is inline. The envelope must be as
    /// storage has it: when it is sent, a link stands in the place of the blob's name. Its first 1 024
    /// bytes are enough.
    #[must_use]
    pub fn named_by(body: &[u8]) -> Option<Self> {
        let (reference, place) = data_ref(body)?;
        let before = std::str::from_utf8(&body[..place.start]).ok()?;
        let event = before.strip_prefix("{\"id\":\"")?.split('"').next()?;
        let organization = before.strip_suffix("\",\"data_ref\":")?.rsplit('"').next()?;
        Some(Self {
            organization: organization.parse().ok()?,
            event: event.parse().ok()?,
            put: PutId::from_text(&reference.uri)?,
        })
    }

    /// Reads its text back; `None` for what is not ours.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let (organization, name) = name.split_once('/')?;
        let (event, put) = name.split_once('-')?;
        Some(Self {
            organization: organization.parse().ok()?,
            event: event.parse().ok()?,
            put: PutId::from_text(put)?,
        })
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}-{}", self.organization, self.event, self.put)
    }
}

/// One put of a blob: 128 random bits, shown as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PutId(u128);

impl PutId {
    /// How many bytes its text has.
    pub(crate) const TEXT_BYTES: usize = 32;

    /// A put of these bits, which must be random.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Only the spelling that we print ourselves.
    fn from_text(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != Self::TEXT_BYTES || !text.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for PutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for PutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keeps the `data` of large events.
#[async_trait]
pub trait BlobStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a blob under a name that is used once; durable on return. Nobody ever reads a part of
    /// it.
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError>;

    /// Reads some of the bytes of a blob, piece by piece; `None` if there is no such blob. The range
    /// lies within the blob.
    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError>;

    /// Removes a blob; of one that is not there, nothing happens.
    async fn delete(&self, key: BlobKey) -> Result<(), BlobError>;

    /// The blobs after a key, in the order of keys, page by page and no page empty; of a bounded
    /// number of them in memory at a time. What is put or deleted after this call may be in it or not.
    /// A store may take the opportunity to remove what killed processes have left half-written.
    fn list(&self, after: Option<BlobKey>) -> BlobPages;

    /// Marks the store as an installation's, unless it is marked already, and says whose it is. Of
    /// several that are the first at once, all get the same answer; durable on return. A list does not
    /// show the mark.
    ///
    /// Whoever sweeps asks first: to an installation that shares a store with another, the other's
    /// blobs are such as no event names.
    async fn mark(&self, installation: InstallationId) -> Result<InstallationId, BlobError>;

    /// A link to the store itself, where anybody reads a blob until `expires_at`; `None` if this
    /// store has no such links.
    async fn presigned(
        &self,
        key: BlobKey,
        expires_at: Timestamp,
    ) -> Result<Option<String>, BlobError>;
}

/// The bytes of a blob, as they come.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

/// Lists of blobs, one after the other. After an error nothing follows.
pub type BlobPages = Pin<Box<dyn Stream<Item = Result<Vec<StoredBlob>, BlobError>> + Send>>;

/// A blob as a list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlob {
    /// Whose it is.
    pub key: BlobKey,
    /// When it was put.
    pub put_at: Timestamp,
}

/// What the blob store could not do.
#[derive(Debug, thiserror::Error)]
#[error("the blob store could not {operation}")]
pub struct BlobError {
    operation: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl BlobError {
    /// An error in the middle of an operation ("store a blob"), and what caused it.
    pub fn new(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation, source: source.into() }
    }
}

/// Blobs in memory, gone with the process: for tests and for trying things out. Clones are the same
/// store.
#[derive(Clone)]
pub struct MemoryBlobStore {
    blobs: Arc<Mutex<BTreeMap<BlobKey, (Bytes, Timestamp)>>>,
    installation: Arc<OnceLock<InstallationId>>,
    clock: Arc<dyn Clock>,
}

impl MemoryBlobStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// An empty store that goes by this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { blobs: Arc::default(), installation: Arc::default(), clock }
    }

    fn blobs(&self) -> std::sync::MutexGuard<'_, BTreeMap<BlobKey, (Bytes, Timestamp)>> {
        self.blobs.lock().expect("no code panics while it holds this lock")
    }
}

impl Default for MemoryBlobStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBlobStore({} blobs)", self.blobs().len())
    }
}

#[async_trait]
impl BlobStore for MemoryBlobStore {
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError> {
        self.blobs().insert(key, (blob, self.clock.utc()));
        Ok(())
    }

    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        let Some((blob, _)) = self.blobs().get(&key).cloned() else { return Ok(None) };
        let bound = |bound: u64| usize::try_from(bound).unwrap_or(usize::MAX).min(blob.len());
        let (start, end) = (bound(range.start), bound(range.end));
        let piece = blob.slice(start..end.max(start));
        Ok(Some(Box::pin(Once(Some(Ok(piece))))))
    }

    async fn delete(&self, key: BlobKey) -> Result<(), BlobError> {
        self.blobs().remove(&key);
        Ok(())
    }

    fn list(&self, after: Option<BlobKey>) -> BlobPages {
        Box::pin(Pages { store: self.clone(), after })
    }

    async fn mark(&self, installation: InstallationId) -> Result<InstallationId, BlobError> {
        Ok(*self.installation.get_or_init(|| installation))
    }

    async fn presigned(
        &self,
        _key: BlobKey,
        _expires_at: Timestamp,
    ) -> Result<Option<String>, BlobError> {
        Ok(None)
    }
}

/// What there is in memory, from a key on.
struct Pages {
    store: MemoryBlobStore,
    after: Option<BlobKey>,
}

impl Stream for Pages {
    type Item = Result<Vec<StoredBlob>, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        const PAGE: usize = 500;
        let after = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        let blobs = self.store.blobs();
        let later = blobs.range((after, Bound::Unbounded));
        let stored = later.map(|(key, (_, put_at))| StoredBlob { key: *key, put_at: *put_at });
        let page: Vec<_> = stored.take(PAGE).collect();
        drop(blobs);
        let Some(last) = page.last() else { return Poll::Ready(None) };
        self.after = Some(last.key);
        Poll::Ready(Some(Ok(page)))
    }
}

/// One piece.
struct Once(Option<Result<Bytes, BlobError>>);

impl Stream for Once {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRef, NewEvent, seal, seal_with_reference};

    const KEY: BlobKey = BlobKey {
        organization: OrganizationId::from_bytes([7; 16]),
        event: EventId::from_bytes([9; 16]),
        put: PutId::from_bits(0x00ab_cdef << 96),
    };

    #[test]
    fn a_name_is_read_only_in_the_spelling_it_is_printed_in() {
        let name = KEY.to_string();
        assert!(name.ends_with("-00abcdef000000000000000000000000"), "{name}");
        assert_eq!(BlobKey::from_name(&name), Some(KEY));
        for wrong in [
            "",
            "esl-installation",
            &name[1..],
            &name[..name.len() - 1],
            &format!("{name}0"),
            &format!("{name}.part"),
            &name.to_uppercase(),
            &name.replace("-00", "-+0"),
            &name.replace('-', "/"),
            name.split_once('-').unwrap().0,
        ] {
            assert_eq!(BlobKey::from_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_keys() {
        let of = |organization, event, put| BlobKey {
            organization: OrganizationId::from_bytes([organization; 16]),
            event: EventId::from_bytes([event; 16]),
            put: PutId::from_bits(put),
        };
        let mut keys: Vec<_> = [(1, 2, 3), (1, 2, u128::MAX), (1, 2, 10 << 80), (2, 0, 0)]
            .map(|(organization, event, put)| of(organization, event, put))
            .to_vec();
        let mut names: Vec<_> = keys.iter().map(ToString::to_string).collect();
        keys.sort_unstable();
        names.sort_unstable();
        assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
    }

    #[test]
    fn an_envelope_names_its_blob() {
        let event_type = "person.updated".parse().unwrap();
        let event = NewEvent::new(KEY.organization, event_type, &"x".repeat(2000)).unwrap();
        let at = Timestamp::from_millis(1_705_329_120_000);
        let named = |uri: &str| {
            let reference = DataRef::to_blob(b"1", uri.into(), at);
            let sealed = seal_with_reference(&event, KEY.event, at, &reference, true);
            BlobKey::named_by(&sealed.body[..sealed.body.len().min(1024)])
        };
        assert_eq!(named(&KEY.put.to_string()), Some(KEY));
        assert_eq!(named("https://events.example.com/api/v1/blobs/evt_1"), None);
        assert_eq!(BlobKey::named_by(&seal(&event, KEY.event, at).body), None);
    }
}
