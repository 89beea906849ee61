use std::{fmt, ops::Deref, sync::OnceLock};

use serde_json::value::RawValue;

use super::Document;

/// What is shown of an entity: its document, with `id`, `created_at`, `updated_at`, those that are shown in it,
/// and what its kind's rules add. It is the data of the events that say what happened to it, too.
pub struct Representation {
    document: Document,
    json: OnceLock<Box<RawValue>>,
}

impl Representation {
    /// It in JSON, which is written once.
    #[must_use]
    pub fn json(&self) -> &RawValue {
        self.json.get_or_init(|| {
            serde_json::value::to_raw_value(&self.document).expect("a document is JSON")
        })
    }
}

impl From<Document> for Representation {
    fn from(document: Document) -> Self {
        Self { document, json: OnceLock::new() }
    }
}

impl Deref for Representation {
    type Target = Document;

    fn deref(&self) -> &Document {
        &self.document
    }
}

impl PartialEq for Representation {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

impl fmt::Debug for Representation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}
