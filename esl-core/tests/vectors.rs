//! The vectors of `tests/vectors`, which nothing of ours has made: our verifier says exactly what they
//! expect, and the published `standardwebhooks` crate agrees about what is genuine.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use esl_core::{Algorithm, Secret, Timestamp, Verifier, VerifyError};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use standardwebhooks::Webhook;

/// `tests/vectors/README.md` has the format.
#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    scheme: String,
    algorithm: String,
    secrets: Vec<String>,
    headers: HashMap<String, String>,
    body: String,
    #[serde(default = "once")]
    body_times: usize,
    now: i64,
    expected: Expected,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Expected {
    Accepted { accepted: usize },
    Refused { refused: String, header: Option<String> },
}

#[test]
fn our_verifier_says_what_every_vector_expects() {
    let mut count = 0;
    for (name, vector) in vectors() {
        assert_eq!(vector.verify(), vector.expected, "{name}");
        count += 1;
    }
    assert!(count > 250, "only {count} vectors");
}

#[test]
fn the_published_crate_agrees_but_for_the_exceptions() {
    let exceptions = exceptions_of("crate");
    let differing: BTreeMap<_, _> = vectors()
        .filter(|(_, vector)| vector.scheme == "standard")
        .filter_map(|(name, vector)| {
            let expects = matches!(vector.expected, Expected::Accepted { .. });
            let accepts = vector.is_accepted_by_the_crate();
            (accepts != expects).then_some((name, accepts))
        })
        .collect();
    assert!(
        differing.keys().eq(exceptions.keys()),
        "accepts or not, unlike us: {differing:#?}\nexceptions.json has {exceptions:#?}"
    );
}

impl Vector {
    fn body(&self) -> Vec<u8> {
        STANDARD.decode(&self.body).expect("a body in base64").repeat(self.body_times)
    }

    fn verify(&self) -> Expected {
        let secrets: Result<Vec<_>, _> = self.secrets.iter().map(Secret::new).collect();
        let Ok(secrets) = secrets else {
            return Expected::Refused { refused: "secret".to_owned(), header: None };
        };
        let algorithm = Algorithm::ALL.into_iter().find(|it| it.as_str() == self.algorithm);
        let algorithm = algorithm.expect("one of the three");
        let verifier = match self.scheme.as_str() {
            "standard" => Verifier::standard(secrets),
            "sapien" => Verifier::sapien(secrets, algorithm),
            other => panic!("no such scheme: {other}"),
        };
        let header = |name: &str| self.headers.get(name).map(String::as_str);
        let (refused, header) =
            match verifier.verify(header, &self.body(), Timestamp::from_millis(self.now * 1000)) {
                Ok(verified) => return Expected::Accepted { accepted: verified.secret },
                Err(VerifyError::Missing { header }) => ("missing", Some(header)),
                Err(VerifyError::Malformed { header }) => ("malformed", Some(header)),
                Err(VerifyError::Mismatch { header }) => ("mismatch", Some(header)),
                Err(VerifyError::TooOld) => ("too_old", None),
                Err(VerifyError::TooNew) => ("too_new", None),
                Err(other) => panic!("no vector expects {other:?}"),
            };
        Expected::Refused { refused: refused.to_owned(), header }
    }

    /// The crate goes by the machine's clock. So it says by `sign` which signatures are genuine;
    /// these are made anew for a time that is as far from now, and `verify` says the rest.
    fn is_accepted_by_the_crate(&self) -> bool {
        self.secrets.iter().any(|secret| {
            // As its documentation says: what is no base64 goes in as bytes.
            let webhook = if secret.starts_with("whsec_") {
                Webhook::new(secret)
            } else {
                Webhook::from_bytes(secret.clone().into_bytes())
            };
            webhook.is_ok_and(|webhook| self.is_accepted_by(&webhook))
        })
    }

    fn is_accepted_by(&self, webhook: &Webhook) -> bool {
        let body = self.body();
        loop {
            let before = unix_seconds();
            let headers = self.headers_moved_by(before - self.now, webhook, &body);
            let is_accepted = webhook.verify(&body, &headers).is_ok();
            // At the edges a second counts: what was asked across two of them says nothing.
            if unix_seconds() == before {
                return is_accepted;
            }
        }
    }

    fn headers_moved_by(&self, seconds: i64, webhook: &Webhook, body: &[u8]) -> HeaderMap {
        let mut headers = self.headers.clone();
        let signed_at = headers.get("webhook-timestamp").and_then(|text| text.parse::<i64>().ok());
        let id = headers.get("webhook-id").cloned();
        let signature = headers.get("webhook-signature").cloned();
        if let (Some(signed_at), Some(id), Some(signature)) = (signed_at, id, signature) {
            let moved_to = signed_at + seconds;
            headers.insert("webhook-timestamp".to_owned(), moved_to.to_string());
            if let Ok(genuine) = webhook.sign(&id, signed_at, body) {
                let moved = webhook.sign(&id, moved_to, body).expect("has signed this body before");
                headers.insert("webhook-signature".to_owned(), signature.replace(&genuine, &moved));
            }
        }
        let parsed = |(name, value): (&String, &String)| {
            let name: HeaderName = name.parse().expect("a header's name");
            (name, HeaderValue::from_str(value).expect("a header's value"))
        };
        headers.iter().map(parsed).collect()
    }
}

/// Each with its file's name before its own.
fn vectors() -> impl Iterator<Item = (String, Vector)> {
    ["algorithms", "bodies", "rotation", "secrets", "tampering", "time"].into_iter().flat_map(
        |file| {
            let content: File = read(&format!("{file}.json"));
            content.vectors.into_iter().map(move |it| (format!("{file}/{}", it.name), it))
        },
    )
}

/// Where somebody differs, and why.
fn exceptions_of(who: &str) -> BTreeMap<String, String> {
    let mut all: HashMap<String, BTreeMap<String, String>> = read("exceptions.json");
    all.remove(who).expect("everybody has a list, be it empty")
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    let content = fs::read(folder.join(name)).expect("a file of vectors");
    serde_json::from_slice(&content).expect("what README.md says of the format")
}

fn unix_seconds() -> i64 {
    DateTime::<Utc>::from(SystemTime::now()).timestamp()
}

fn once() -> usize {
    1
}
