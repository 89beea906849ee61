//! Where the broker is.

use std::{fmt, str::FromStr};

use lapin::uri::{AMQPScheme, AMQPUri};

/// A broker's address, with the user and the password that open it.
///
/// `amqp://user:password@host:port/vhost`, or `amqps://…` for TLS. User and password default to
/// `guest`, the virtual host to `/`; special characters in any of them are percent-encoded. Neither
/// its `Display` nor its `Debug` shows user or password.
///
/// ```
/// let url: esl_amqp::BrokerUrl = "amqp://esl:secret@broker.internal/events".parse()?;
/// assert_eq!(url.to_string(), "amqp://broker.internal:5672/events");
/// # Ok::<(), esl_amqp::BrokerUrlError>(())
/// ```
#[derive(Clone)]
pub struct BrokerUrl(AMQPUri);

/// Why a text is no broker's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerUrlError {
    /// It is not such a URL. What it was is not said: it may hold a password.
    #[error(
        "expected amqp:// or amqps:// and a host, such as amqp://esl:secret@localhost:5672/events"
    )]
    Url,
    /// This build speaks no TLS.
    #[error("this build has no TLS for brokers (feature `tls`)")]
    NoTls,
}

impl BrokerUrl {
    pub(crate) const fn uri(&self) -> &AMQPUri {
        &self.0
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let mut uri: AMQPUri = text.parse().map_err(|_| BrokerUrlError::Url)?;
        if uri.scheme == AMQPScheme::AMQPS && !cfg!(feature = "tls") {
            return Err(BrokerUrlError::NoTls);
        }
        if uri.authority.host.is_empty() {
            return Err(BrokerUrlError::Url);
        }
        // Strictly, a slash at the end names the virtual host ``, which nobody has.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self(uri))
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.0.scheme {
            AMQPScheme::AMQP => "amqp",
            AMQPScheme::AMQPS => "amqps",
        };
        let (authority, vhost) = (&self.0.authority, self.0.vhost.trim_start_matches('/'));
        write!(f, "{scheme}://{}:{}/{vhost}", authority.host, authority.port)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

/// A connection that is silent for twice as long is lost. RabbitMQ itself would wait for two minutes.
const HEARTBEAT_SECONDS: u16 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_opens_the_broker() {
        for (text, shown) in [
            ("amqp://localhost", "amqp://localhost:5672/"),
            ("amqp://localhost/", "amqp://localhost:5672/"),
            ("amqp://localhost/%2f", "amqp://localhost:5672/"),
            ("amqp://esl:hunter2@10.0.0.7:5673/events", "amqp://10.0.0.7:5673/events"),
            ("amqp://esl:hunt%40r2@broker/a%20b?heartbeat=30", "amqp://broker:5672/a b"),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("BrokerUrl({shown})"));
        }
    }

    #[test]
    fn what_is_no_brokers_address_is_refused_without_repeating_it() {
        for text in ["", "localhost", "http://esl:hunter2@localhost", "amqp://a:b:c@d:e"] {
            let error = text.parse::<BrokerUrl>().unwrap_err();
            assert_eq!(error, BrokerUrlError::Url, "{text}");
        }
        let with_tls = "amqps://localhost".parse::<BrokerUrl>();
        assert_eq!(with_tls.is_ok(), cfg!(feature = "tls"));
    }

    #[test]
    fn a_lost_connection_is_noticed_soon_unless_the_url_says_otherwise() {
        let heartbeat = |text: &str| text.parse::<BrokerUrl>().unwrap().uri().query.heartbeat;
        assert_eq!(heartbeat("amqp://localhost"), Some(HEARTBEAT_SECONDS));
        assert_eq!(heartbeat("amqp://localhost?heartbeat=30"), Some(30));
    }
}
