//! Looking for secrets in what was written, in every spelling that they may have got there.

use std::{collections::HashMap, fs};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use super::World;

/// Something that the server wrote.
#[derive(Debug)]
pub(super) struct Trace {
    what: String,
    is_output: bool,
    bytes: Vec<u8>,
}

/// Where a secret must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Nowhere,
    /// In files and answers it may be.
    NotInOutput,
}

impl Trace {
    pub(super) fn output(what: impl Into<String>, text: String) -> Self {
        Self { what: what.into(), is_output: true, bytes: text.into_bytes() }
    }

    /// Whether it is that file, and has this in it.
    pub(super) fn is_of(&self, file: &str, text: &str) -> bool {
        let mut windows = self.bytes.windows(text.len());
        self.what.ends_with(file) && windows.any(|window| window == text.as_bytes())
    }

    pub(super) fn answer(what: &str, text: String) -> Self {
        Self { what: format!("the answer to {what}"), is_output: false, bytes: text.into_bytes() }
    }
}

impl World {
    /// Keeps the files, of blobs, too, and what is in Postgres.
    pub(super) async fn keep_state(&mut self) {
        if let Some(bytes) = self.folder.rows().await {
            self.traces.push(Trace { what: ROWS.to_owned(), is_output: false, bytes });
        }
        let database = self.folder.database();
        let mut folders = vec![database.parent().expect("a folder").to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("it is there") {
                let path = entry.expect("it can be read").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let what = path.display().to_string();
                    let bytes = fs::read(path).expect("it can be read");
                    self.traces.push(Trace { what, is_output: false, bytes });
                }
            }
        }
    }
}

/// What the rows in Postgres are called.
pub(super) const ROWS: &str = "the rows in Postgres";

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<(Vec<u8>, Where)>);

impl Secrets {
    pub(super) fn add(&mut self, secret: &[u8], not_to_be: Where) {
        self.0.push((secret.to_vec(), not_to_be));
    }

    /// One that signs, and the key that it stands for.
    pub(super) fn add_signing(&mut self, secret: &str, not_to_be: Where) {
        let encoded = secret.strip_prefix("whsec_").expect("a secret of Standard Webhooks");
        self.add(encoded.as_bytes(), not_to_be);
        self.add(&STANDARD.decode(encoded).expect("base64"), not_to_be);
    }

    /// Which secret is where it must not be.
    pub(super) fn found_in(&self, traces: &[Trace]) -> Vec<String> {
        // By their beginnings, so that everything is gone through once.
        let mut spellings: HashMap<[u8; BEGINNING], Vec<(Vec<u8>, Where)>> = HashMap::new();
        for (secret, not_to_be) in &self.0 {
            for spelling in spellings_of(secret) {
                let beginning = *spelling.first_chunk().expect("secrets here are long enough");
                spellings.entry(beginning).or_default().push((spelling, *not_to_be));
            }
        }
        let mut found = Vec::new();
        for Trace { what, is_output, bytes } in traces {
            for (at, beginning) in bytes.windows(BEGINNING).enumerate() {
                for (spelling, not_to_be) in spellings.get(beginning).into_iter().flatten() {
                    let is_allowed = *not_to_be == Where::NotInOutput && !is_output;
                    if !is_allowed && bytes[at..].starts_with(spelling) {
                        let around = &bytes[at.saturating_sub(300)..bytes.len().min(at + 100)];
                        let around = String::from_utf8_lossy(around);
                        let spelling = String::from_utf8_lossy(spelling);
                        found.push(format!("{spelling} in {what}: …{around}…"));
                    }
                }
            }
        }
        found
    }
}

const BEGINNING: usize = 8;

/// As it is, in base64 wherever in it the secret begins, in hex, percent-encoded, and as Rust shows
/// bytes.
fn spellings_of(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent = |is_plain: fn(u8) -> bool| -> String {
        let encoded = secret.iter().map(|byte| match is_plain(*byte) {
            true => char::from(*byte).to_string(),
            false => format!("%{byte:02X}"),
        });
        encoded.collect()
    };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut texts = vec![hex.to_uppercase(), hex, percent(unreserved), percent(|_| false)];
    texts.push(percent(unreserved).to_lowercase());
    texts.push(format!("{secret:?}").trim_matches(['[', ']']).to_owned());
    for before in 0..3 {
        let shifted = [&[0; 2][..before], secret].concat();
        // Without the characters that what stands before and after has a part in.
        let characters = (before * 8).div_ceil(6)..shifted.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            texts.push(engine.encode(&shifted)[characters.clone()].to_owned());
        }
    }
    let mut spellings: Vec<_> = texts.into_iter().map(String::into_bytes).collect();
    spellings.push(secret.to_vec());
    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

#[test]
fn a_secret_is_found_in_every_spelling() {
    let mut secrets = Secrets::default();
    secrets.add(b"a secret/of+some=sort", Where::Nowhere);
    secrets.add(b"only not in output", Where::NotInOutput);
    let found = |text: &str| {
        let mut all = secrets.found_in(&[Trace::output("it", text.to_owned())]);
        all.extend(secrets.found_in(&[Trace::answer("it", text.to_owned())]));
        all.len()
    };
    for text in [
        "x a secret/of+some=sort y",
        "eGEgc2VjcmV0L29mK3NvbWU9c29ydHk",
        "YSBzZWNyZXQvb2Yrc29tZT1zb3J0",
        "6120736563726574 6120736563726574 61207365637265742f6f662b736f6d653d736f7274",
        "a%20secret%2Fof%2Bsome%3Dsort",
        "[0, 97, 32, 115, 101, 99, 114, 101, 116, 47, 111, 102, 43, 115, 111, 109, 101, 61, 115, 111, \
         114, 116]",
    ] {
        assert_eq!(found(text), 2, "{text}");
    }
    assert_eq!(found("only not in output"), 1);
    assert_eq!(found("a secret/of+some=thing"), 0);
}
