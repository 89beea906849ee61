//! The log: by `tracing`, to the standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Starts logging what the filter lets through.
pub(crate) fn start(config: &Config, filter: &str) {
    let filter = EnvFilter::try_new(filter).expect("the configuration checks it");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would be told on the standard error, too, and a failure there is a panic.
        .log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).init(),
    }
}
