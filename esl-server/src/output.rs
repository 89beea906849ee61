//! What the commands have in common.

use esl_core::storage::{StorageError, StorageErrorKind};
use serde_json::Value;

/// Prints an answer in JSON or for people.
pub(crate) fn print(as_json: bool, json: &Value, text: impl FnOnce() -> String) {
    if as_json {
        println!("{json}");
    } else {
        print!("{}", text());
    }
}

/// How a call failed, if it did.
pub(crate) fn kind<T>(result: &Result<T, StorageError>) -> Option<StorageErrorKind> {
    result.as_ref().err().map(StorageError::kind)
}
