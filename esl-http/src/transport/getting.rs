//! Getting what a link leads to: for receivers, whose large payloads are fetched under the guard that
//! deliveries are sent under.

use std::fmt;

use bytes::Bytes;
use esl_core::Failure;
use http_body_util::Empty;
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    header::{HeaderValue, USER_AGENT},
};
use hyper_util::client::legacy::Client;

use super::{HttpTransportBuilder, HttpTransportError, connector::Connector, failure};

/// GETs, each over a connection of its own, with nothing that says who asks.
#[derive(Clone)]
pub(crate) struct Getting(Client<Connector, Empty<Bytes>>);

impl Getting {
    pub(crate) fn new(options: HttpTransportBuilder) -> Result<Self, HttpTransportError> {
        let (connector, mut client) = options.client()?;
        let client = client
            .pool_max_idle_per_host(0)
            .http2_initial_stream_window_size(HTTP2_WINDOW)
            .http2_initial_connection_window_size(HTTP2_WINDOW)
            .build(connector);
        Ok(Self(client))
    }

    /// The answer, whatever it is. No redirect is followed.
    pub(crate) async fn get(&self, uri: Uri) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(WHO));
        self.0.request(request).await.map_err(|error| failure::of_request(&error))
    }
}

impl fmt::Debug for Getting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Getting").finish_non_exhaustive()
    }
}

const WHO: &str = concat!("ESL/", env!("CARGO_PKG_VERSION"));
/// What may be on its way before it is read: large payloads are read to their end.
const HTTP2_WINDOW: u32 = 1024 * 1024;
