//! Why a call came to nothing.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use serde::Deserialize;

/// Why a call came to nothing: [`kind`](Self::kind) is to be matched, the rest says more. It is cheap to clone,
/// and neither its message nor its `Debug` has a secret, a token or a query in it.
#[derive(Clone)]
pub struct ClientError(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    kind: ClientErrorKind,
    call: String,
    status: Option<u16>,
    code: Option<String>,
    detail: Option<String>,
    errors: Vec<Fault>,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    tries: u32,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// What kind of thing went wrong, by what its reader does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// The call, or the client, was made wrongly: nothing was sent.
    Misuse,
    /// There is no token, or it is not good: 401, or refused when a token was asked for.
    Unauthorized,
    /// The token lacks a scope: 403.
    Forbidden,
    /// There is no such thing in this organization: 404.
    NotFound,
    /// What is there does not allow it: 409 and 412.
    Conflict,
    /// It was removed because it was old, or erased: 410.
    Gone,
    /// The server does not take what was sent: any other 4xx.
    Invalid,
    /// The organization has published what it may: 429.
    RateLimited,
    /// The server cannot do it now, or took too long: 408, 502, 503 and 504.
    Unavailable,
    /// A fault of the server's: any other 5xx.
    Internal,
    /// No connection came about, so nothing was done.
    Connect,
    /// The server could not show that it is the one: its certificate is not good, or of an authority that is not
    /// trusted. Nothing was sent.
    Tls,
    /// The connection broke before the answer was whole: what was done is not known.
    Broken,
    /// No answer came in time: what was done is not known.
    Timeout,
    /// The answer is larger than a client holds, which is 256 MiB. A page of a list is asked for with a smaller
    /// limit by itself.
    TooLarge,
    /// The answer is none that the API gives: a redirect, for instance, or not the documented JSON.
    Unexpected,
}

/// One thing that is wrong in a request: where, and what.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Fault {
    /// A member of the body, by JSON pointer (RFC 6901); `""` is the whole body.
    pub pointer: Option<String>,
    /// A parameter of the query.
    pub parameter: Option<String>,
    /// A header.
    pub header: Option<String>,
    /// What is wrong with it, for people.
    pub detail: String,
}

impl ClientError {
    pub(super) fn new(kind: ClientErrorKind, call: impl Into<String>) -> Self {
        Self(Arc::new(Parts {
            kind,
            call: call.into(),
            status: None,
            code: None,
            detail: None,
            errors: Vec::new(),
            request_id: None,
            retry_after: None,
            tries: 0,
            source: None,
        }))
    }

    pub(super) fn misuse(call: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ClientErrorKind::Misuse, call).with_detail(detail)
    }

    /// What `reqwest` says of a request that got no whole answer. Its URL may have a signature in the query.
    pub(super) fn transport(call: &str, error: reqwest::Error) -> Self {
        let kind = match () {
            () if error.is_builder() => ClientErrorKind::Misuse,
            () if is_of_certificate(&error) => ClientErrorKind::Tls,
            () if error.is_connect() => ClientErrorKind::Connect,
            () if error.is_timeout() => ClientErrorKind::Timeout,
            () => ClientErrorKind::Broken,
        };
        Self::new(kind, call).with_source(error.without_url())
    }

    pub(super) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.parts().detail = Some(detail.into());
        self
    }

    pub(super) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.parts().source = Some(Arc::new(source));
        self
    }

    pub(super) fn with_tries(mut self, tries: u32) -> Self {
        self.parts().tries = tries;
        self
    }

    /// With what an answer that is no success says.
    pub(super) fn with_answer(
        mut self,
        status: u16,
        request_id: Option<String>,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let said = serde_json::from_slice::<Said>(body).unwrap_or_default();
        let parts = self.parts();
        parts.status = Some(status);
        parts.request_id = request_id;
        parts.retry_after = retry_after;
        parts.code = said.code.or(said.error);
        parts.detail = said.detail.or(said.error_description).or_else(|| parts.detail.take());
        parts.errors = said.errors;
        self
    }

    fn parts(&mut self) -> &mut Parts {
        Arc::make_mut(&mut self.0)
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ClientErrorKind {
        self.0.kind
    }

    /// The status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The problem's `code`, such as `event_conflict`; of a token that was refused, OAuth's `error`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// What the server says of it, for people.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Everything that is wrong in the request, by its place.
    #[must_use]
    pub fn errors(&self) -> &[Fault] {
        &self.0.errors
    }

    /// Under what the server's log knows the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// When the server wants to be asked again: so long after the answer.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// How often the request was sent, or was tried to be; 0 if it never came to that.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.0.tries
    }

    /// Whether the same call may succeed later. Whether it is safe to repeat is another question: after
    /// [`Broken`](ClientErrorKind::Broken), [`Timeout`](ClientErrorKind::Timeout) and
    /// [`Unavailable`](ClientErrorKind::Unavailable) it may have been done.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.0.kind.is_transient()
    }
}

impl ClientErrorKind {
    /// Whether the same request may succeed later.
    pub(super) const fn is_transient(self) -> bool {
        match self {
            Self::RateLimited
            | Self::Unavailable
            | Self::Connect
            | Self::Broken
            | Self::Timeout => true,
            Self::Misuse
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict
            | Self::Gone
            | Self::Invalid
            | Self::Internal
            | Self::Tls
            | Self::TooLarge
            | Self::Unexpected => false,
        }
    }

    /// The kind of an answer with a status that is no success.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            408 | 502..=504 => Self::Unavailable,
            409 | 412 => Self::Conflict,
            410 => Self::Gone,
            429 => Self::RateLimited,
            400..=499 => Self::Invalid,
            500..=599 => Self::Internal,
            _ => Self::Unexpected,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Misuse => "the call was made wrongly",
            Self::Unauthorized => "the client or its token was refused",
            Self::Forbidden => "the token lacks a scope",
            Self::NotFound => "it is not there",
            Self::Conflict => "what is there does not allow it",
            Self::Gone => "it was removed",
            Self::Invalid => "the request was refused",
            Self::RateLimited => "the organization may not publish more now",
            Self::Unavailable => "the server cannot do it now",
            Self::Internal => "the server failed",
            Self::Connect => "no connection came about",
            Self::Tls => "the server's certificate was refused",
            Self::Broken => "the connection broke",
            Self::Timeout => "no answer came in time",
            Self::TooLarge => "the answer is too large",
            Self::Unexpected => "the answer is none of the API's",
        }
    }
}

/// Whether a certificate is behind an error: that does not pass by itself.
fn is_of_certificate(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        next = match error.downcast_ref::<io::Error>() {
            // Its source is that of what it wraps, which would be passed over.
            Some(error) => error.get_ref().map(|error| error as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}

impl fmt::Display for ClientErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &*self.0;
        write!(f, "{}: {}", parts.call, parts.kind)?;
        match (parts.status, &parts.code) {
            (Some(status), Some(code)) => write!(f, " ({status} {code})")?,
            (Some(status), None) => write!(f, " ({status})")?,
            (None, _) => {}
        }
        if let Some(detail) = &parts.detail {
            write!(f, ": {detail}")?;
        }
        for Fault { pointer, parameter, header, detail } in &parts.errors {
            match [pointer, parameter, header].into_iter().flatten().next().map(String::as_str) {
                None => write!(f, "; {detail}")?,
                Some("") => write!(f, "; the whole body: {detail}")?,
                Some(place) => write!(f, "; {place}: {detail}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &*self.0;
        f.debug_struct("ClientError")
            .field("kind", &parts.kind)
            .field("call", &parts.call)
            .field("status", &parts.status)
            .field("code", &parts.code)
            .field("detail", &parts.detail)
            .field("errors", &parts.errors)
            .field("request_id", &parts.request_id)
            .field("retry_after", &parts.retry_after)
            .field("tries", &parts.tries)
            .field("source", &parts.source)
            .finish()
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// A problem (RFC 9457), or an error of OAuth (RFC 6749, section 5.2).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    code: Option<String>,
    detail: Option<String>,
    errors: Vec<Fault>,
    error: Option<String>,
    error_description: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_kind() {
        for (status, expected, is_transient) in [
            (301, ClientErrorKind::Unexpected, false),
            (400, ClientErrorKind::Invalid, false),
            (401, ClientErrorKind::Unauthorized, false),
            (403, ClientErrorKind::Forbidden, false),
            (404, ClientErrorKind::NotFound, false),
            (408, ClientErrorKind::Unavailable, true),
            (409, ClientErrorKind::Conflict, false),
            (410, ClientErrorKind::Gone, false),
            (412, ClientErrorKind::Conflict, false),
            (422, ClientErrorKind::Invalid, false),
            (429, ClientErrorKind::RateLimited, true),
            (500, ClientErrorKind::Internal, false),
            (502, ClientErrorKind::Unavailable, true),
            (503, ClientErrorKind::Unavailable, true),
            (504, ClientErrorKind::Unavailable, true),
            (600, ClientErrorKind::Unexpected, false),
        ] {
            let kind = ClientErrorKind::of_status(status);
            assert_eq!(kind, expected, "{status}");
            assert_eq!(ClientError::new(kind, "GET /x").is_transient(), is_transient, "{status}");
        }
    }

    #[test]
    fn a_message_has_what_the_problem_says() {
        let body =
            br#"{"type":"about:blank","title":"Unprocessable Entity","status":422,"code":"invalid",
            "detail":"see errors","errors":[{"pointer":"/events/1","detail":"no pattern"},
            {"parameter":"limit","detail":"too many"}],"more":1}"#;
        let error = ClientError::new(ClientErrorKind::Invalid, "POST /x").with_answer(
            422,
            Some("req_1".to_owned()),
            None,
            body,
        );
        assert_eq!(
            error.to_string(),
            "POST /x: the request was refused (422 invalid): see errors; /events/1: no pattern; \
             limit: too many"
        );
        assert_eq!((error.code(), error.request_id()), (Some("invalid"), Some("req_1")));
        assert_eq!(error.errors()[0].pointer.as_deref(), Some("/events/1"));
    }

    #[test]
    fn what_is_wrong_with_the_whole_body_is_said_of_it() {
        for (fault, expected) in [
            (r#"{"pointer":"","detail":"expected 1 to 1000 events"}"#, "the whole body: expected"),
            (r#"{"pointer":"/0","detail":"expected an object"}"#, "/0: expected an object"),
            (r#"{"header":"if-match","detail":"expected it"}"#, "if-match: expected it"),
            (r#"{"detail":"expected something else"}"#, "expected something else"),
        ] {
            let body = format!(r#"{{"errors":[{fault}]}}"#);
            let error = ClientError::new(ClientErrorKind::Invalid, "POST /x");
            let error = error.with_answer(422, None, None, body.as_bytes()).to_string();
            let expected = format!("POST /x: the request was refused (422); {expected}");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn an_answer_that_is_no_problem_is_still_an_error() {
        let error = ClientError::new(ClientErrorKind::Unavailable, "GET /x");
        let error = error.with_answer(502, None, None, b"<html>Bad Gateway</html>");
        assert_eq!(error.to_string(), "GET /x: the server cannot do it now (502)");
    }
}
