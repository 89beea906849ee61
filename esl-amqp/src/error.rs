//! What ends a connection. All of it is the supervisor's: it says so, and begins anew.

use std::time::Duration;

/// Why a connection to the broker ended, or did not come to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{doing}")]
    Broker {
        doing: &'static str,
        #[source]
        source: lapin::Error,
    },
    #[error("{doing}: nothing for {} s", within.as_secs())]
    Silence { doing: &'static str, within: Duration },
    #[error("{doing}: the broker did not take it")]
    NotTaken { doing: &'static str },
    #[error("the broker has cancelled the consumer of {queue}")]
    Cancelled { queue: &'static str },
    #[error("the connection is lost")]
    Lost,
}

/// Says what was being done when the broker failed.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Trouble>;
}

impl<T> Doing<T> for Result<T, lapin::Error> {
    fn doing(self, doing: &'static str) -> Result<T, Trouble> {
        self.map_err(|source| Trouble::Broker { doing, source })
    }
}

/// Waits for the broker, but not for ever.
pub(crate) async fn within<T>(
    limit: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.doing(doing),
        Err(_) => Err(Trouble::Silence { doing, within: limit }),
    }
}
