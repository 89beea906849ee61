//! `/api/v1/event-types`: what can be subscribed to.

use axum::{extract::State, http::StatusCode, response::Response};
use esl_core::EventTypeEntry;
use serde::Serialize;
use serde_json::Value;

use super::{
    Api, answer,
    auth::{Authorized, MayReadEventTypes},
    page::NoParameters,
    problem::Problem,
};

/// `GET /api/v1/event-types`
pub(super) async fn list(
    State(api): State<Api>,
    _: Authorized<MayReadEventTypes>,
    _: NoParameters,
) -> Result<Response, Problem> {
    let data = api.esl.event_types().iter().map(View::of).collect();
    Ok(answer(StatusCode::OK, &ListView { data }))
}

/// They are few: all of them are on one page.
#[derive(Debug, Serialize)]
struct ListView<'a> {
    data: Vec<View<'a>>,
}

#[derive(Debug, Serialize)]
struct View<'a> {
    r#type: &'a str,
    description: &'a str,
    schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<&'a Value>,
}

impl<'a> View<'a> {
    fn of(entry: &'a EventTypeEntry) -> Self {
        Self {
            r#type: entry.event_type.as_str(),
            description: &entry.meaning,
            schema: &entry.schema,
            example: entry.example.as_ref(),
        }
    }
}
