//! Tokens for clients: OAuth 2.0 (RFC 6749), with revocation (RFC 7009), introspection (RFC 7662) and
//! metadata (RFC 8414).

mod attempts;
mod client;
mod form;
mod grant;
mod introspection;
mod metadata;
mod refusal;
mod revocation;

use axum::{
    extract::Request,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, PRAGMA},
        request::Parts,
    },
    response::Response,
};
use esl_core::Client;

pub(super) use self::{
    attempts::Attempts,
    grant::token,
    introspection::introspect,
    metadata::{Metadata, metadata, metadata_of_issuer},
    revocation::revoke,
};
use self::{form::Form, refusal::Refusal};
use super::{Api, request::Context};

/// A request of somebody who has yet to prove who they are.
struct Asking {
    head: Parts,
    form: Form,
}

impl Asking {
    async fn read(request: Request, api: &Api) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let form = Form::read(&head.headers, body, api).await?;
        Ok(Self { head, form })
    }

    /// The client that asks, once it has proven itself.
    async fn client(&self, context: &Context, api: &Api) -> Result<Client, Refusal> {
        let client = client::authenticate(&self.head, &self.form, api).await?;
        context.set_client(client.id.as_str().into());
        Ok(client)
    }
}

/// What no cache may keep.
fn not_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
