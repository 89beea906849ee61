//! `/api/v1/audit`: who has changed what.

use std::net::IpAddr;

use axum::{extract::State, http::StatusCode, response::Response};
use esl_core::{AuditEntry, Timestamp};
use serde::Serialize;

use super::{
    Api, answer,
    auth::{Authorized, MayAdminister},
    page::{List, Parameters},
    problem::Problem,
};

/// `GET /api/v1/audit`
pub(super) async fn list(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let page = parameters.page();
    parameters.finish()?;
    let page = api.esl.storage().audit(caller.organization, page).await?;
    Ok(answer(StatusCode::OK, &List::of(&page, |last| last.number, View::of)))
}

#[derive(Serialize)]
struct View<'a> {
    at: Timestamp,
    action: &'static str,
    subject: &'a str,
    fields: &'a [String],
    actor: ActorView<'a>,
}

#[derive(Serialize)]
struct ActorView<'a> {
    kind: &'static str,
    name: Option<&'a str>,
    address: Option<IpAddr>,
}

impl<'a> View<'a> {
    fn of(entry: &'a AuditEntry) -> Self {
        let AuditEntry { at, actor, action, subject, fields, .. } = entry;
        let (kind, name, address) = (actor.kind(), actor.name(), actor.address());
        let actor = ActorView { kind, name, address };
        Self { at: *at, action: action.as_str(), subject, fields, actor }
    }
}
