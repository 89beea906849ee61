//! Verifying: what a receiver does with the signature headers of a delivery.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{
    Algorithm, Secret, Timestamp,
    signing::{Keyed, standard_keyed, standard_message},
};

/// Says whether a request is a genuine delivery, by its headers and its raw body.
///
/// It is built for one of the two schemes and demands that one. Several secrets are tried, so that
/// a receiver can hold the old and the new one while a secret is rotated; without any, nothing
/// verifies. Every comparison of signatures takes constant time.
///
/// ```
/// use std::collections::HashMap;
///
/// use esl_core::{Secret, Verifier, VerifyError};
///
/// # use esl_core::{Algorithm, Signer, Timestamp};
/// # let secret = Secret::new("your-webhook-secret-for-signature-verification")?;
/// # let now = Timestamp::from(chrono::Utc::now()).as_seconds();
/// # let body = br#"{"id":"evt_01J00000000000000000000000"}"#;
/// # let signature = Signer::new(&secret, Algorithm::Sha256).standard("evt_1", now, body);
/// # let headers = HashMap::from([
/// #     ("webhook-id", "evt_1".to_owned()),
/// #     ("webhook-timestamp", now.to_string()),
/// #     ("webhook-signature", signature),
/// # ]);
/// let verifier =
///     Verifier::standard([Secret::new("your-webhook-secret-for-signature-verification")?]);
/// // With the `http` crate: |name| headers.get(name)?.to_str().ok()
/// verifier.verify_now(|name| headers.get(name).map(String::as_str), body)?;
///
/// let refused = verifier.verify_now(|name| headers.get(name).map(String::as_str), b"{}");
/// assert!(matches!(refused, Err(VerifyError::Mismatch { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Verifier {
    demand: Demand,
    standard: Vec<Hmac<Sha256>>,
    tolerance: Duration,
}

#[derive(Clone)]
enum Demand {
    Standard,
    Sapien { keys: Vec<Keyed>, signature: String, next: String },
}

/// How a genuine request was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The scheme that was demanded.
    pub scheme: Scheme,
    /// Which of the verifier's secrets it was signed with; the first is 0. While a secret is rotated,
    /// this tells when the old one is no longer needed.
    pub secret: usize,
    /// When it was signed, to the second; `None` if nothing that was signed says so.
    pub signed_at: Option<Timestamp>,
}

/// A way of signing; every delivery is signed in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// [Standard Webhooks](https://www.standardwebhooks.com): `webhook-signature`.
    Standard,
    /// The documented header: `X-Sapien-Signature`.
    Sapien,
}

/// Why a request is not taken for genuine: what failed, never what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A header that the scheme needs is not there.
    #[error("the header `{header}` is missing")]
    Missing {
        /// Which.
        header: String,
    },
    /// A header is there, but cannot be read.
    #[error("the header `{header}` is malformed")]
    Malformed {
        /// Which.
        header: String,
    },
    /// It was signed longer ago than the tolerance: perhaps a replay.
    #[error("the request was signed too long ago")]
    TooOld,
    /// It was signed in a future further away than the tolerance: a clock is wrong.
    #[error("the request was signed in the future")]
    TooNew,
    /// No secret leads to a signature that the header carries.
    #[error("no signature in the header `{header}` matches")]
    Mismatch {
        /// Which.
        header: String,
    },
}

impl Verifier {
    /// How far the time of signing may lie from now, before and after. Defaults to 5 min: what the
    /// Standard Webhooks libraries allow.
    pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

    /// Demands the [Standard Webhooks](https://www.standardwebhooks.com) headers `webhook-id`,
    /// `webhook-timestamp` and `webhook-signature`. They cover the time of sending, so that a
    /// recorded request is of use to nobody for longer than the tolerance.
    #[must_use]
    pub fn standard(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let standard = secrets.into_iter().map(|secret| standard_keyed(&secret)).collect();
        Self { demand: Demand::Standard, standard, tolerance: Self::TOLERANCE }
    }

    /// Demands the documented header `X-Sapien-Signature`: the lowercase hex HMAC of the body.
    ///
    /// **It has no protection against replay**: who has recorded a request can send it again, at
    /// any time. [`standard`](Self::standard) has.
    ///
    /// If Standard Webhooks headers are present, they must verify, too. While a secret is rotated,
    /// `X-Sapien-Signature-Next` is made with the new one; either may match.
    #[must_use]
    pub fn sapien(secrets: impl IntoIterator<Item = Secret>, algorithm: Algorithm) -> Self {
        let mut keys = Vec::new();
        let mut standard = Vec::new();
        for secret in secrets {
            keys.push(Keyed::new(algorithm, secret.expose().as_bytes()));
            standard.push(standard_keyed(&secret));
        }
        let demand = Demand::Sapien {
            keys,
            signature: "x-sapien-signature".to_owned(),
            next: "x-sapien-signature-next".to_owned(),
        };
        Self { demand, standard, tolerance: Self::TOLERANCE }
    }

    /// Looks for `<prefix>-signature` instead of `x-sapien-signature`, for a sender whose headers
    /// begin differently.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        if let Demand::Sapien { signature, next, .. } = &mut self.demand {
            let prefix = prefix.to_ascii_lowercase();
            *signature = format!("{prefix}-signature");
            *next = format!("{prefix}-signature-next");
        }
        self
    }

    /// Allows another distance between the time of signing and now.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Verifies a request that arrived `now`. `header` looks a header up by its name in lower case;
    /// `body` is what came over the wire, before any parsing.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify<'h>(
        &self,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Verified, VerifyError> {
        match &self.demand {
            Demand::Standard => self.verify_standard(&header, body, now),
            Demand::Sapien { keys, signature, next } => {
                let secret = verify_sapien(keys, signature, next, &header, body)?;
                let has_standard = [ID, TIMESTAMP, SIGNATURE].iter().any(|n| header(n).is_some());
                let signed_at = if has_standard {
                    self.verify_standard(&header, body, now)?.signed_at
                } else {
                    None
                };
                Ok(Verified { scheme: Scheme::Sapien, secret, signed_at })
            }
        }
    }

    /// Verifies a request that has just arrived, by the machine's clock.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub fn verify_now<'h>(
        &self,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
    ) -> Result<Verified, VerifyError> {
        self.verify(header, body, DateTime::<Utc>::from(SystemTime::now()).into())
    }

    fn verify_standard<'h>(
        &self,
        header: &impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Verified, VerifyError> {
        let id = required(header, ID)?;
        let seconds = required(header, TIMESTAMP)?;
        let signatures = required(header, SIGNATURE)?;

        // With a dot in it, the border between id and time could be moved.
        if id.is_empty() || id.contains('.') {
            return Err(malformed(ID));
        }
        let signed_at = parse_seconds(seconds).ok_or_else(|| malformed(TIMESTAMP))?;
        self.check_time(signed_at, now)?;

        let candidates: Vec<[u8; 32]> = signatures.split(' ').filter_map(parse_v1).collect();
        if candidates.is_empty() {
            return Err(malformed(SIGNATURE));
        }
        let message = standard_message(id, seconds, body);
        let secret = self.standard.iter().position(|key| {
            let mut mac = key.clone();
            message.iter().for_each(|part| mac.update(part));
            let tag = mac.finalize().into_bytes();
            candidates.iter().any(|candidate| tag.as_slice().ct_eq(candidate).into())
        });
        let secret = secret.ok_or_else(|| mismatch(SIGNATURE))?;
        let signed_at = Some(Timestamp::from_millis(signed_at * 1000));
        Ok(Verified { scheme: Scheme::Standard, secret, signed_at })
    }

    fn check_time(&self, seconds: i64, now: Timestamp) -> Result<(), VerifyError> {
        let age = now.as_seconds() - seconds;
        if age.unsigned_abs() <= self.tolerance.as_secs() {
            Ok(())
        } else if age > 0 {
            Err(VerifyError::TooOld)
        } else {
            Err(VerifyError::TooNew)
        }
    }
}

fn verify_sapien<'h>(
    keys: &[Keyed],
    signature: &str,
    next: &str,
    header: &impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
) -> Result<usize, VerifyError> {
    let secret_of = |tag: &[u8]| keys.iter().position(|key| key.verify(body, tag));
    let current = parse_hex(required(header, signature)?).ok_or_else(|| malformed(signature))?;
    if let Some(secret) = secret_of(&current) {
        return Ok(secret);
    }
    let Some(value) = header(next) else { return Err(mismatch(signature)) };
    let upcoming = parse_hex(value).ok_or_else(|| malformed(next))?;
    secret_of(&upcoming).ok_or_else(|| mismatch(signature))
}

fn required<'h>(
    header: &impl Fn(&str) -> Option<&'h str>,
    name: &str,
) -> Result<&'h str, VerifyError> {
    header(name).ok_or_else(|| VerifyError::Missing { header: name.to_owned() })
}

fn malformed(name: &str) -> VerifyError {
    VerifyError::Malformed { header: name.to_owned() }
}

fn mismatch(name: &str) -> VerifyError {
    VerifyError::Mismatch { header: name.to_owned() }
}

/// Digits only, and few enough that sums with them cannot overflow.
fn parse_seconds(text: &str) -> Option<i64> {
    let is_number = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// One entry of `webhook-signature`; `None` for another version, for which there may be a `v1`
/// beside it.
fn parse_v1(entry: &str) -> Option<[u8; 32]> {
    let tag = STANDARD.decode(entry.strip_prefix("v1,")?).ok()?;
    tag.try_into().ok()
}

/// Lower case only, as it is documented: one signature must not have two spellings.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_lower { hex::decode(text).ok().filter(|tag| !tag.is_empty()) } else { None }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Standard => "standard",
            Self::Sapien => "sapien",
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.demand {
            Demand::Standard => Scheme::Standard,
            Demand::Sapien { .. } => Scheme::Sapien,
        };
        f.debug_struct("Verifier")
            .field("scheme", &scheme)
            .field("secrets", &self.standard.len())
            .field("tolerance", &self.tolerance)
            .finish()
    }
}

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::Signer;

    const BODY: &[u8] = br#"{"id":"evt_01J00000000000000000000000","data":{"n":1.0}}"#;
    const SENT_AT: i64 = 1_705_329_120;
    const PLAIN: &str = "your-webhook-secret-for-signature-verification";
    const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "another-secret";

    /// The headers of a request, to be tampered with.
    #[derive(Clone)]
    struct Request(HashMap<&'static str, String>);

    impl Request {
        /// What ESL sends with `BODY` at `SENT_AT`.
        fn signed(secret_text: &str, algorithm: Algorithm) -> Self {
            let signer = Signer::new(&secret(secret_text), algorithm);
            Self(HashMap::from([
                ("x-sapien-signature", signer.sapien(BODY)),
                ("webhook-id", "evt_1".to_owned()),
                ("webhook-timestamp", SENT_AT.to_string()),
                ("webhook-signature", signer.standard("evt_1", SENT_AT, BODY)),
            ]))
        }

        fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
            self.0.insert(name, value.into());
            self
        }

        fn without(mut self, names: &[&str]) -> Self {
            self.0.retain(|name, _| !names.contains(name));
            self
        }

        fn value(&self, name: &str) -> &str {
            &self.0[name]
        }

        fn verify(&self, verifier: &Verifier) -> Result<(), VerifyError> {
            self.verify_body_after(verifier, BODY, 0)
        }

        fn verify_body_after(
            &self,
            verifier: &Verifier,
            body: &[u8],
            seconds: i64,
        ) -> Result<(), VerifyError> {
            let now = Timestamp::from_millis((SENT_AT + seconds) * 1000);
            verifier.verify(|name| self.0.get(name).map(String::as_str), body, now).map(drop)
        }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    fn standard(texts: &[&str]) -> Verifier {
        Verifier::standard(texts.iter().map(|text| secret(text)))
    }

    fn sapien(texts: &[&str]) -> Verifier {
        Verifier::sapien(texts.iter().map(|text| secret(text)), Algorithm::Sha256)
    }

    #[test]
    fn what_is_signed_verifies_by_both_schemes_with_both_kinds_of_secret() {
        for text in [PLAIN, WHSEC] {
            for algorithm in Algorithm::ALL {
                let request = Request::signed(text, algorithm);
                assert_eq!(request.verify(&standard(&[text])), Ok(()));
                let verifier = Verifier::sapien([secret(text)], algorithm);
                assert_eq!(request.verify(&verifier), Ok(()));
            }
        }
    }

    #[test]
    fn the_published_vector_verifies() {
        let headers = |name: &str| match name {
            "webhook-id" => Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
            "webhook-timestamp" => Some("1614265330"),
            "webhook-signature" => Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            _ => None,
        };
        let now = Timestamp::from_millis(1_614_265_330_000);
        let body = br#"{"test": 2432232314}"#;
        let verified = standard(&[PLAIN, WHSEC]).verify(headers, body, now);
        let signed_at = Some(now);
        assert_eq!(verified, Ok(Verified { scheme: Scheme::Standard, secret: 1, signed_at }));
    }

    #[test]
    fn any_altered_byte_is_refused() {
        let request = Request::signed(WHSEC, Algorithm::Sha256);
        for position in 0..BODY.len() {
            let mut body = BODY.to_vec();
            body[position] ^= 1;
            let refused = request.verify_body_after(&standard(&[WHSEC]), &body, 0);
            assert_eq!(refused, Err(mismatch("webhook-signature")));
            let refused = request.verify_body_after(&sapien(&[WHSEC]), &body, 0);
            assert_eq!(refused, Err(mismatch("x-sapien-signature")));
        }
    }

    #[test]
    fn id_and_time_are_part_of_what_is_signed() {
        let request = Request::signed(PLAIN, Algorithm::Sha256);
        for verifier in [standard(&[PLAIN]), sapien(&[PLAIN])] {
            for tampered in [
                request.clone().with("webhook-id", "evt_2"),
                request.clone().with("webhook-timestamp", (SENT_AT + 1).to_string()),
            ] {
                assert_eq!(tampered.verify(&verifier), Err(mismatch("webhook-signature")));
            }
        }
    }

    #[test]
    fn a_signature_verifies_for_five_minutes_around_its_time() {
        let request = Request::signed(PLAIN, Algorithm::Sha256);
        for verifier in [standard(&[PLAIN]), sapien(&[PLAIN])] {
            for (seconds, result) in [
                (-301, Err(VerifyError::TooNew)),
                (-300, Ok(())),
                (300, Ok(())),
                (301, Err(VerifyError::TooOld)),
            ] {
                assert_eq!(
                    request.verify_body_after(&verifier, BODY, seconds),
                    result,
                    "{seconds}"
                );
            }
        }
        let patient = standard(&[PLAIN]).with_tolerance(Duration::from_secs(3600));
        assert_eq!(request.verify_body_after(&patient, BODY, 3600), Ok(()));
    }

    #[test]
    fn each_of_several_secrets_and_signatures_is_tried() {
        let request = Request::signed(PLAIN, Algorithm::Sha256);
        assert_eq!(request.verify(&standard(&[OTHER, PLAIN])), Ok(()));
        assert_eq!(request.verify(&sapien(&[OTHER, PLAIN])), Ok(()));
        assert_eq!(request.verify(&standard(&[OTHER])), Err(mismatch("webhook-signature")));
        assert_eq!(request.verify(&sapien(&[OTHER])), Err(mismatch("x-sapien-signature")));
        assert_eq!(request.verify(&standard(&[])), Err(mismatch("webhook-signature")));

        // As during a rotation: both signatures in the one header, another version between them.
        let other = Request::signed(OTHER, Algorithm::Sha256);
        let both = format!(
            "{} v1a,AAAA v1,!! {}",
            other.value("webhook-signature"),
            request.value("webhook-signature")
        );
        let request = request.with("webhook-signature", both);
        for text in [PLAIN, OTHER] {
            assert_eq!(request.verify(&standard(&[text])), Ok(()));
        }
    }

    #[test]
    fn during_a_rotation_either_documented_header_may_match() {
        let new = Request::signed(OTHER, Algorithm::Sha256);
        let request = Request::signed(PLAIN, Algorithm::Sha256)
            .with("x-sapien-signature-next", new.value("x-sapien-signature"))
            .without(&["webhook-id", "webhook-timestamp", "webhook-signature"]);
        for texts in [&[PLAIN][..], &[OTHER], &[PLAIN, OTHER]] {
            assert_eq!(request.verify(&sapien(texts)), Ok(()));
        }
        let neither = request.verify(&sapien(&["a third"]));
        assert_eq!(neither, Err(mismatch("x-sapien-signature")));
    }

    #[test]
    fn a_missing_or_unreadable_header_is_named() {
        let request = Request::signed(PLAIN, Algorithm::Sha256);
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let missing = Err(VerifyError::Missing { header: name.to_owned() });
            let without = request.clone().without(&[name]);
            assert_eq!(without.verify(&standard(&[PLAIN])), missing);
            assert_eq!(without.verify(&sapien(&[PLAIN])), missing);
        }
        let name = "x-sapien-signature";
        let without = request.clone().without(&[name]);
        let missing = Err(VerifyError::Missing { header: name.to_owned() });
        assert_eq!(without.verify(&sapien(&[PLAIN])), missing);
        assert_eq!(without.verify(&standard(&[PLAIN])), Ok(()));

        let signature = request.value(name).to_owned();
        for (name, value) in [
            ("webhook-id", ""),
            ("webhook-id", "evt_1.1705329120"),
            ("webhook-timestamp", ""),
            ("webhook-timestamp", "soon"),
            ("webhook-timestamp", "-1"),
            ("webhook-timestamp", "+1705329120"),
            ("webhook-timestamp", "1705329120.0"),
            ("webhook-timestamp", "99999999999999999999"),
            ("webhook-signature", ""),
            ("webhook-signature", "v1,"),
            ("webhook-signature", "v1,AAAA"),
            ("webhook-signature", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ("x-sapien-signature", ""),
            ("x-sapien-signature", "sha256="),
            ("x-sapien-signature", &signature.to_uppercase()),
        ] {
            let refused = request.clone().with(name, value).verify(&sapien(&[PLAIN]));
            assert_eq!(refused, Err(malformed(name)), "{name}: {value}");
        }
        let shorter = request.with(name, &signature[..62]).verify(&sapien(&[PLAIN]));
        assert_eq!(shorter, Err(mismatch(name)));
    }

    #[test]
    fn the_documented_scheme_alone_verifies_without_standard_headers_at_any_time() {
        let request = Request::signed(PLAIN, Algorithm::Sha256).without(&[
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        ]);
        assert_eq!(request.verify_body_after(&sapien(&[PLAIN]), BODY, 1_000_000), Ok(()));
        assert!(request.verify(&standard(&[PLAIN])).is_err());
    }

    #[test]
    fn another_prefix_is_looked_for_when_asked() {
        let request = Request::signed(PLAIN, Algorithm::Sha256);
        let signature = request.value("x-sapien-signature").to_owned();
        let request = request.without(&["x-sapien-signature"]).with("x-acme-signature", signature);
        assert_eq!(request.verify(&sapien(&[PLAIN]).with_prefix("X-Acme")), Ok(()));
        assert!(request.verify(&sapien(&[PLAIN])).is_err());
    }

    #[test]
    fn neither_debug_nor_an_error_shows_a_secret_or_a_signature() {
        let request = Request::signed(PLAIN, Algorithm::Sha256);
        let verifier = sapien(&[OTHER]);
        let refused = request.verify(&verifier).unwrap_err();
        let shown = format!("{verifier:?} {refused:?} {refused}");
        assert!(!shown.contains(OTHER) && !shown.contains(request.value("x-sapien-signature")));
    }
}
