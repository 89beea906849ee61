//! A secret, five headers and a body, a line each, but for the body, which may have more. An empty
//! header is left out. `{id}`, `{time}`, `{v1}` and `{hex}` stand for what a genuine request has
//! there. Who believes the request must have found genuine signatures in it; a genuine one is always
//! believed, and never again when a bit of it has changed.
#![no_main]

use esl_core::{Algorithm, Secret, Signer, Timestamp, Verifier, VerifyError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(7, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let Ok(secret) = Secret::new(line()) else { return };
    let written = [line(), line(), line(), line(), line()];
    let body = line().as_bytes();
    // Where a bit changes: it depends on everything, so that libFuzzer moves it about.
    let place = text.bytes().map(usize::from).sum();
    for algorithm in Algorithm::ALL {
        let genuine = Request::genuine(&secret, algorithm, body);
        let verifiers = Verifiers::new(&secret, algorithm);
        is_believed_until_it_changes(&verifiers, &genuine, body, place);
        let request = genuine.with(&written);
        let [standard, sapien] = verifiers.verify(&request, body);
        assert!(standard.is_err() || request.has_genuine_standard(&genuine));
        assert!(sapien.is_err() || request.has_genuine_sapien(&genuine));
    }
});

fn is_believed_until_it_changes(
    verifiers: &Verifiers,
    genuine: &Request,
    body: &[u8],
    place: usize,
) {
    assert_eq!(verifiers.verify(genuine, body), [Ok(()), Ok(())]);
    let flip = |bytes: &mut [u8]| {
        let length = bytes.len();
        // Never the highest bit, so that a header stays text.
        bytes[place % length] ^= 1_u8 << (place % 7);
    };
    if !body.is_empty() {
        let mut body = body.to_vec();
        flip(&mut body);
        assert!(verifiers.verify(genuine, &body).iter().all(Result::is_err));
    }
    for index in 0..HEX + 1 {
        let mut changed = genuine.clone();
        let mut value = changed.0[index].clone().into_bytes();
        flip(&mut value);
        changed.0[index] = String::from_utf8(value).expect("it is ASCII");
        let [standard, sapien] = verifiers.verify(&changed, body);
        assert!(standard.is_err() || index == HEX, "{changed:?}");
        assert!(sapien.is_err(), "{changed:?}");
    }
}

/// The headers, in the order of [`NAMES`].
#[derive(Debug, Clone)]
struct Request([String; 5]);

impl Request {
    fn genuine(secret: &Secret, algorithm: Algorithm, body: &[u8]) -> Self {
        let signer = Signer::new(secret, algorithm);
        let standard = signer.standard(GENUINE_ID, SECONDS, body);
        let id = GENUINE_ID.to_owned();
        Self([id, SECONDS.to_string(), standard, signer.sapien(body), String::new()])
    }

    /// What is written, with this request's values where it says so.
    fn with(&self, written: &[&str; 5]) -> Self {
        Self(written.map(|text| {
            let signs = [("{id}", ID), ("{time}", TIME), ("{v1}", V1), ("{hex}", HEX)];
            signs
                .iter()
                .fold(text.to_owned(), |text, &(sign, index)| text.replace(sign, &self.0[index]))
        }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let index = NAMES.iter().position(|known| *known == name)?;
        Some(self.0[index].as_str()).filter(|value| !value.is_empty())
    }

    fn has_genuine_standard(&self, genuine: &Self) -> bool {
        self.0[ID] == genuine.0[ID]
            && self.0[TIME] == genuine.0[TIME]
            && self.0[V1].split(' ').any(|entry| entry == genuine.0[V1])
    }

    fn has_genuine_sapien(&self, genuine: &Self) -> bool {
        let has_standard = [ID, TIME, V1].iter().any(|&index| !self.0[index].is_empty());
        [HEX, NEXT].iter().any(|&index| self.0[index] == genuine.0[HEX])
            && (!has_standard || self.has_genuine_standard(genuine))
    }
}

struct Verifiers([Verifier; 2]);

impl Verifiers {
    fn new(secret: &Secret, algorithm: Algorithm) -> Self {
        let secret = || [secret.clone()];
        Self([Verifier::standard(secret()), Verifier::sapien(secret(), algorithm)])
    }

    fn verify(&self, request: &Request, body: &[u8]) -> [Result<(), VerifyError>; 2] {
        let now = Timestamp::from_millis(SECONDS * 1000);
        let verify = |verifier: &Verifier| verifier.verify(|name| request.header(name), body, now);
        self.0.each_ref().map(|verifier| verify(verifier).map(drop))
    }
}

const GENUINE_ID: &str = "evt_01J00000000000000000000000";
const SECONDS: i64 = 1_705_329_120;
const NAMES: [&str; 5] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-sapien-signature",
    "x-sapien-signature-next",
];
const ID: usize = 0;
const TIME: usize = 1;
const V1: usize = 2;
const HEX: usize = 3;
const NEXT: usize = 4;
