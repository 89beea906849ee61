//! `POST /oauth/revoke`: a client gives up a token of its own (RFC 7009).

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use esl_core::{Digest, Revoked};

use super::{
    Asking, not_stored,
    refusal::{ErrorCode, Refusal},
};
use crate::api::{Api, request::Context};

/// `POST /oauth/revoke`
pub(crate) async fn revoke(
    State(api): State<Api>,
    context: Context,
    request: Request,
) -> Result<Response, Refusal> {
    let asking = Asking::read(request, &api).await?;
    let client = asking.client(&context, &api).await?;
    let digest = Digest::of(asking.form.demand("token")?.as_bytes());
    let storage = api.esl.storage();
    match storage.revoke_token(client.organization, &client.id, &digest).await? {
        Revoked::Done => api.callers.forget(&client.id),
        // It is worth nothing, which is what was wanted (section 2.2).
        Revoked::Unknown => {}
        Revoked::OfAnother => {
            let detail = "the token was given to another client";
            return Err(Refusal::new(ErrorCode::InvalidGrant, detail));
        }
    }
    Ok(not_stored(().into_response()))
}
