//! Fetching data that was too large to be sent, from servers on real sockets.

mod guard;
mod http2;
mod server;
mod verified;

use std::time::Duration;

use esl_core::{CallbackPolicy, Clock as _, DataRef, SystemClock, Timestamp};
use esl_http::receiver::{Fetcher, FetcherBuilder};

const DATA: &str = r#"{"name":"Jörg","n":1.0}"#;

/// A reference to [`DATA`] behind this link, for another hour.
fn reference(link: String) -> DataRef {
    DataRef::to_blob(DATA.as_bytes(), link, from_now(3_600_000))
}

fn from_now(millis: i64) -> Timestamp {
    Timestamp::from_millis(SystemClock::new().utc().as_millis() + millis)
}

/// Goes to loopback, too, and has far more time than anything here needs.
fn anywhere() -> FetcherBuilder {
    Fetcher::builder().with_policy(CallbackPolicy::allow_private()).with_timeout(Duration::MAX)
}
