//! Links to large payloads: whoever has one may read the blob until it expires.

use std::{
    sync::{Mutex, RwLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{EventId, Monotonic, OrganizationId, Timestamp};

/// What links are signed with: 32 random bytes. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey(Zeroizing<[u8; Self::BYTES]>);

impl LinkKey {
    /// For so long a key signs; then the storage keeps another one, and this one for as long again.
    pub const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// How long a key is.
    pub const BYTES: usize = 32;

    /// A key of these bytes, which must be random.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for storage.
    #[must_use]
    pub fn expose(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    fn mac(&self, organization: OrganizationId, event: EventId, seconds: u64) -> Hmac<Sha256> {
        let mac: Hmac<Sha256> =
            KeyInit::new_from_slice(&*self.0).expect("HMAC takes keys of any length");
        mac.chain_update(organization.to_bytes())
            .chain_update(event.to_bytes())
            .chain_update(seconds.to_be_bytes())
    }
}

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKey(…)")
    }
}

/// Why a link opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Its time is over.
    #[error("the link has expired")]
    Expired,
    /// It was not made here, or altered.
    #[error("the link is not genuine")]
    NotGenuine,
}

/// Makes links, and checks them.
#[derive(Debug)]
pub(crate) struct Links {
    base: String,
    /// The newest first.
    keys: RwLock<Vec<LinkKey>>,
    /// When they may be looked for again.
    look_at: Mutex<Monotonic>,
}

const LOOK_EVERY: Duration = Duration::from_secs(5);
const TAG_BYTES: usize = 32;
/// The organization, and the tag.
const SIGNATURE_BYTES: usize = 16 + TAG_BYTES;

impl Links {
    /// Links that begin with `<base>/api/v1/blobs/`.
    pub(crate) fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            keys: RwLock::default(),
            look_at: Mutex::default(),
        }
    }

    /// What all links begin with: the URL, without a slash at the end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn set_keys(&self, keys: Vec<LinkKey>) {
        *self.keys.write().expect("no code panics while it holds this lock") = keys;
    }

    /// Whether it is time to look for keys that others have made.
    pub(crate) fn may_look(&self, now: Monotonic) -> bool {
        let mut look_at = self.look_at.lock().expect("no code panics while it holds this lock");
        let may = now >= *look_at;
        if may {
            *look_at = now + LOOK_EVERY;
        }
        may
    }

    /// How many bytes a link has.
    pub(crate) fn bytes(&self) -> usize {
        self.base.len() + 110 + SIGNATURE_BYTES * 4 / 3
    }

    /// A link to the data of an event; empty while there is no key.
    pub(crate) fn make(
        &self,
        organization: OrganizationId,
        event: EventId,
        expires_at: Timestamp,
    ) -> String {
        let keys = self.keys.read().expect("no code panics while it holds this lock");
        let Some(newest) = keys.first() else { return String::new() };
        let seconds = expires_at.as_seconds().unsigned_abs();
        let tag = newest.mac(organization, event, seconds).finalize().into_bytes();
        let mut signature = organization.to_bytes().to_vec();
        signature.extend_from_slice(&tag);
        let signature = URL_SAFE_NO_PAD.encode(signature);
        format!("{}/api/v1/blobs/{event}?exp={seconds}&sig={signature}", self.base)
    }

    /// Whose event it is whose data a link opens.
    pub(crate) fn check(
        &self,
        event: EventId,
        seconds: u64,
        signature: &str,
        now: Timestamp,
    ) -> Result<OrganizationId, LinkError> {
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| LinkError::NotGenuine)?;
        let (organization, tag) =
            signature.split_first_chunk::<16>().ok_or(LinkError::NotGenuine)?;
        let organization = OrganizationId::from_bytes(*organization);
        let keys = self.keys.read().expect("no code panics while it holds this lock");
        let is_of = |key: &LinkKey| key.mac(organization, event, seconds).verify_slice(tag).is_ok();
        let is_genuine = tag.len() == TAG_BYTES && keys.iter().any(is_of);
        if !is_genuine {
            return Err(LinkError::NotGenuine);
        }
        if now.as_seconds().unsigned_abs() >= seconds {
            return Err(LinkError::Expired);
        }
        Ok(organization)
    }
}

/// When the link to a blob expires that goes out at `now` with an event sealed at `sealed_at`: 24 h
/// after the sealing, rounded up to the hour, or so many half days later that it lasts for 12 h more.
/// So receivers in the same half day, and retries, get the same bytes.
pub(crate) fn link_expiry(sealed_at: Timestamp, now: Timestamp) -> Timestamp {
    const HOUR: i64 = 60 * 60 * 1000;
    const HALF_DAY: i64 = 12 * HOUR;
    let first = (sealed_at.as_millis() + 2 * HALF_DAY + HOUR - 1).div_euclid(HOUR) * HOUR;
    let missing = now.as_millis() + HALF_DAY - first;
    let half_days = if missing > 0 { (missing + HALF_DAY - 1) / HALF_DAY } else { 0 };
    Timestamp::from_millis(first + half_days * HALF_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([7; 16]);
    const EVENT: EventId = EventId::from_bytes([9; 16]);

    fn parts(link: &str) -> (u64, String) {
        let (_, query) = link.split_once("?exp=").expect("a link");
        let (seconds, signature) = query.split_once("&sig=").expect("a link");
        (seconds.parse().expect("a number"), signature.to_owned())
    }

    #[test]
    fn a_link_opens_its_blob_until_it_expires_and_no_other() {
        let links = Links::new("https://events.example.com/");
        let (old, new) = (LinkKey::from_bytes([1; 32]), LinkKey::from_bytes([2; 32]));
        let expires_at = Timestamp::from_millis(1_705_329_120_000);
        let before = Timestamp::from_millis(1_705_329_119_999);
        assert_eq!(links.make(ORGANIZATION, EVENT, expires_at), "");
        links.set_keys(vec![old.clone()]);
        let link = links.make(ORGANIZATION, EVENT, expires_at);
        assert!(link.starts_with("https://events.example.com/api/v1/blobs/evt_"), "{link}");
        assert!(link.len() <= links.bytes(), "{link}");
        let (seconds, signature) = parts(&link);
        let check =
            |event, seconds, signature: &str, now| links.check(event, seconds, signature, now);
        assert_eq!(check(EVENT, seconds, &signature, before), Ok(ORGANIZATION));
        assert_eq!(check(EVENT, seconds, &signature, expires_at), Err(LinkError::Expired));
        let other = EventId::from_bytes([8; 16]);
        let not_genuine = Err(LinkError::NotGenuine);
        assert_eq!(check(other, seconds, &signature, before), not_genuine);
        assert_eq!(check(EVENT, seconds + 3600, &signature, before), not_genuine);
        for wrong in ["", "!", &signature[..40], &signature[1..], &format!("{signature}AA")] {
            assert_eq!(check(EVENT, seconds, wrong, before), not_genuine, "{wrong}");
        }
        links.set_keys(vec![new.clone(), old]);
        assert_eq!(check(EVENT, seconds, &signature, before), Ok(ORGANIZATION));
        links.set_keys(vec![new]);
        assert_eq!(check(EVENT, seconds, &signature, before), not_genuine);
    }

    #[test]
    fn a_link_lasts_for_half_a_day_at_least_and_is_the_same_for_as_long() {
        let minutes = |count: i64| Timestamp::from_millis(count * 60 * 1000);
        let hour = 60;
        for (sealed, now, expires) in [
            (0, 0, 24 * hour),
            (1, 1, 25 * hour),
            (1, 13 * hour, 25 * hour),
            (1, 13 * hour + 1, 37 * hour),
            (1, 25 * hour, 37 * hour),
            (1, 25 * hour + 1, 49 * hour),
            (1, 1 + 3 * 24 * hour, 85 * hour),
            // A clock that was set back.
            (24 * hour, 0, 48 * hour),
        ] {
            let expiry = link_expiry(minutes(sealed), minutes(now));
            assert_eq!(expiry, minutes(expires), "sealed {sealed}, sent {now}");
        }
    }
}
