//! What the commands have in common.

use std::io::{self, Write};

use anyhow::Context;
use esl_core::storage::{StorageError, StorageErrorKind};
use serde_json::Value;

/// Prints an answer in JSON or for people.
pub(crate) fn print(
    as_json: bool,
    json: &Value,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    write(&if as_json { format!("{json}\n") } else { text() })
}

/// Writes to the standard output. A disk that is full, or a reader that is gone, is an error.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("it is done, but the answer could not be written to the standard output")
}

/// Says something on the standard error, if anybody can hear it.
pub(crate) fn tell(line: &str) {
    _ = writeln!(io::stderr(), "{line}");
}

/// How a call failed, if it did.
pub(crate) fn kind<T>(result: &Result<T, StorageError>) -> Option<StorageErrorKind> {
    result.as_ref().err().map(StorageError::kind)
}
