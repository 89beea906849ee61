//! Requests whose end or whose addressee a reader in front may see elsewhere than we do.
//!
//! The parser refuses most of them itself. What it lets pass, and RFC 9112 does not, is refused here:
//! a proxy that reads it otherwise would take what it has not looked at for a request of its own.

use axum::http::{
    Request, Version,
    header::{HOST, TRANSFER_ENCODING},
    uri::Authority,
};

/// Whether a request says in one way only where it ends and for whom it is.
pub(super) fn is_clear<B>(request: &Request<B>) -> bool {
    is_chunked_at_most(request) && names_one_host(request)
}

/// RFC 9112, section 6.1: `chunked` is applied once, and we know no other coding. (The parser looks
/// at the last one alone.)
fn is_chunked_at_most<B>(request: &Request<B>) -> bool {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked =
        codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    is_chunked && codings.next().is_none()
}

/// RFC 9112, section 3.2. In HTTP/1.0 it may be left out.
fn names_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let Some(host) = hosts.next() else { return request.version() < Version::HTTP_11 };
    hosts.next().is_none() && is_host(host.as_bytes())
}

/// A host with or without a port. Empty where the target has none.
fn is_host(text: &[u8]) -> bool {
    text.is_empty() || (!text.contains(&b'@') && Authority::try_from(text).is_ok())
}
