//! Signatures.

use esl_core::{Algorithm, Secret, Signer, Timestamp, Verifier, VerifyError};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::config;

const SECONDS: i64 = 1_705_329_120;
const ID: &str = "evt_01J00000000000000000000000";

fn secret() -> impl Strategy<Value = Secret> {
    prop_oneof![
        // No zeros at the end, which an HMAC's key has anyway.
        "[ -~]{1,200}".prop_filter_map("a secret", |text| Secret::new(text).ok()),
        any::<[u8; 32]>().prop_map(|bytes| Secret::from_random(&bytes)),
    ]
}

/// The headers of a request, in the order of [`NAMES`].
type Headers = [String; 4];
const NAMES: [&str; 4] =
    ["webhook-id", "webhook-timestamp", "webhook-signature", "x-sapien-signature"];

fn signed(secret: &Secret, algorithm: Algorithm, body: &[u8]) -> Headers {
    let signer = Signer::new(secret, algorithm);
    let standard = signer.standard(ID, SECONDS, body);
    [ID.to_owned(), SECONDS.to_string(), standard, signer.sapien(body)]
}

fn verify(verifier: &Verifier, headers: &Headers, body: &[u8]) -> Result<(), VerifyError> {
    let header = |name: &str| {
        let index = NAMES.iter().position(|known| *known == name)?;
        Some(headers[index].as_str())
    };
    verifier.verify(header, body, Timestamp::from_millis(SECONDS * 1000)).map(drop)
}

fn both(secrets: &[Secret], algorithm: Algorithm) -> [Verifier; 2] {
    [Verifier::standard(secrets.to_vec()), Verifier::sapien(secrets.to_vec(), algorithm)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_secret_verifies_its_own_and_no_other(
        secret in secret(),
        other in secret(),
        algorithm in select(&Algorithm::ALL[..]),
        body in vec(any::<u8>(), 0..300),
    ) {
        prop_assume!(secret != other);
        let headers = signed(&secret, algorithm, &body);
        for verifier in both(&[other.clone(), secret.clone()], algorithm) {
            prop_assert_eq!(verify(&verifier, &headers, &body), Ok(()));
        }
        for verifier in both(&[other], algorithm) {
            prop_assert!(verify(&verifier, &headers, &body).is_err());
        }
    }

    #[test]
    fn any_flipped_bit_fails(
        secret in secret(),
        algorithm in select(&Algorithm::ALL[..]),
        body in vec(any::<u8>(), 1..300),
        place in any::<proptest::sample::Index>(),
        bit in 0..7_u32,
    ) {
        let headers = signed(&secret, algorithm, &body);
        let [standard, sapien] = both(&[secret], algorithm);
        let mut flipped = body.clone();
        flipped[place.index(body.len())] ^= 1_u8 << bit;
        prop_assert!(verify(&standard, &headers, &flipped).is_err());
        prop_assert!(verify(&sapien, &headers, &flipped).is_err());

        for (index, name) in NAMES.iter().enumerate() {
            let mut headers = headers.clone();
            let mut bytes = headers[index].clone().into_bytes();
            let length = bytes.len();
            bytes[place.index(length)] ^= 1_u8 << bit;
            headers[index] = String::from_utf8(bytes).expect("ASCII");
            prop_assert!(verify(&sapien, &headers, &body).is_err(), "{} {}", name, headers[index]);
            if *name != "x-sapien-signature" {
                prop_assert!(verify(&standard, &headers, &body).is_err(), "{} {}", name, headers[index]);
            }
        }
    }

    #[test]
    fn no_header_makes_a_verifier_panic_or_believe(headers in any::<Headers>(), body in vec(any::<u8>(), 0..30)) {
        let secret = Secret::new("a secret").expect("a secret");
        for verifier in both(&[secret], Algorithm::Sha256) {
            prop_assert!(verify(&verifier, &headers, &body).is_err());
        }
    }
}
