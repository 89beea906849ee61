//! Any request to the API.

use std::fmt;

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde::Serialize;
use url::form_urlencoded::Serializer;

use super::{
    Answer, Client, ClientError,
    exchange::{Prepared, Repeat},
};

/// A request in the making, from [`Client::call`]: for what has no method of its own, and for headers such as
/// `If-Match`. Its `Debug` has of the query and the headers only the names, and of the body only the size.
#[must_use]
pub struct Call {
    client: Client,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Option<Bytes>,
    is_open: bool,
    is_repeatable: bool,
    is_once: bool,
    /// What was wrong with one of the parts.
    fault: Option<ClientError>,
}

impl Call {
    pub(super) fn new(client: &Client, method: Method, path: &str) -> Self {
        let is_repeatable =
            [Method::GET, Method::HEAD, Method::PUT, Method::DELETE].contains(&method);
        let mut call = Self {
            client: client.clone(),
            method,
            path: path.to_owned(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            is_open: false,
            is_repeatable,
            is_once: false,
            fault: None,
        };
        if !path.starts_with('/') || path.contains(['?', '#']) {
            call.wrong("expected a path that begins with a slash, without a query");
        }
        call
    }

    /// With a parameter of the query.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            _ => self.wrong("there can be no such header"),
        }
        self
    }

    /// With a body in JSON; its `Content-Type` is `application/json`, unless another was said before.
    pub fn json(mut self, body: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => {
                self.body = Some(bytes.into());
                let json = HeaderValue::from_static("application/json");
                self.headers.entry(CONTENT_TYPE).or_insert(json);
            }
            // What it says may be a part of the body.
            Err(_) => self.wrong("the body cannot be written as JSON"),
        }
        self
    }

    /// With a body as it stands.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Says that doing it twice is like doing it once, so that it is tried again where it is not known whether
    /// it was done. That is so of `GET`, `HEAD`, `PUT` and `DELETE` without saying.
    pub const fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    /// Sends it once, whatever comes of it; but for a token that is refused, which is changed all the same.
    pub const fn once(mut self) -> Self {
        self.is_once = true;
        self
    }

    /// Without a token: for what is open to everybody.
    pub const fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    /// Sends it, as often as the client's [`RetryPolicy`](super::RetryPolicy) lets it.
    ///
    /// # Errors
    /// See [`ClientError`]; an answer that is no success is one.
    pub async fn send(self) -> Result<Answer, ClientError> {
        self.answer().await?.successful()
    }

    /// Sends it likewise, and gives the answer whatever its status is.
    ///
    /// # Errors
    /// See [`ClientError`]: there is no answer.
    pub async fn answer(self) -> Result<Answer, ClientError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let query = match self.query.is_empty() {
            true => String::new(),
            false => Serializer::new(String::new()).extend_pairs(&self.query).finish(),
        };
        let Client(inner) = &self.client;
        let prepared = Prepared {
            call: format!("{} {}", self.method, self.path),
            url: inner.url(&self.path, &query),
            method: self.method,
            headers: self.headers,
            body: self.body,
            repeat: match (self.is_once, self.is_repeatable) {
                (true, _) => Repeat::Never,
                (false, true) => Repeat::WhenInDoubt,
                (false, false) => Repeat::WhenUndone,
            },
        };
        match self.is_open {
            true => inner.exchange_open(&prepared).await,
            false => inner.exchange(&prepared).await,
        }
    }

    fn wrong(&mut self, detail: &str) {
        let call = format!("{} {}", self.method, self.path);
        self.fault.get_or_insert_with(|| ClientError::misuse(call, detail));
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query: Vec<_> = self.query.iter().map(|(name, _)| name).collect();
        let headers: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Call")
            .field("client", &self.client)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &query)
            .field("headers", &headers)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}
