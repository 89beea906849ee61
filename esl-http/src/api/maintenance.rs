//! `/api/admin/maintenance`: telling an organization of a time in which something will not be there.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use esl_core::{
    Announced, EventId, Maintenance, MaintenanceError, Origin, Timestamp,
    storage::{Scheduled, StorageErrorKind},
};
use serde::{Deserialize, Serialize};

use super::{
    Api, answer,
    auth::{Authorized, MayAdminister},
    body::{self, JsonBody, NoBody},
    events::PublishedView,
    fault::{Faults, Place},
    json,
    page::{List, NoParameters, Parameters},
    path::Id,
    problem::{Code, Problem},
    request::Context,
};

/// `POST /api/admin/maintenance`
pub(super) async fn announce(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    context: Context,
    _: NoParameters,
    JsonBody(body): JsonBody<{ body::SMALL }>,
) -> Result<Response, Problem> {
    let (maintenance, at) = read(&body, api.esl.now())?;
    let origin = Origin {
        correlation_id: context.request_id().to_owned(),
        triggered_by: caller.client.to_string(),
        source: "api",
    };
    let origin = Some(Arc::new(origin));
    let announced =
        api.esl.announce_maintenance(caller.organization, &maintenance, at, origin).await;
    match announced {
        Ok(Announced::Now(published)) => {
            Ok(answer(StatusCode::ACCEPTED, &PublishedView::from(published)))
        }
        Ok(Announced::Later(id, announce_at)) => {
            Ok(answer(StatusCode::ACCEPTED, &LaterView { id, announce_at }))
        }
        Err(esl_core::PublishError::Storage(error))
            if error.kind() == StorageErrorKind::OverLimit =>
        {
            let detail = "very many announcements wait already; take some of them back";
            Err(Problem::new(Code::Conflict, detail))
        }
        Err(error) => Err(error.into()),
    }
}

/// `GET /api/admin/maintenance`
pub(super) async fn list(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let page = parameters.page();
    parameters.finish()?;
    let page = api.esl.storage().scheduled(caller.organization, page).await?;
    Ok(answer(StatusCode::OK, &List::of(&page, |last| last.number, View::of)))
}

/// `DELETE /api/admin/maintenance/{id}`
pub(super) async fn take_back(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    Id(id): Id<EventId>,
    _: NoParameters,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    let forgotten = api.esl.storage().unschedule(caller.organization, id).await;
    forgotten.map_err(|error| Problem::about("announcement that waits", &error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn read(body: &[u8], now: Timestamp) -> Result<(Maintenance, Option<Timestamp>), Problem> {
    let members = json::object(body)?;
    let mut faults = Faults::default();
    let starts_at = members.required("", "starts_at", &mut faults, json::time);
    let ends_at = members.required("", "ends_at", &mut faults, json::time);
    let message =
        members.required("", "message", &mut faults, |raw| json::text(raw).map(Cow::into_owned));
    let at = members.optional("", "announce_at", &mut faults, json::time);
    if at.is_some_and(|at| at > now + AHEAD_MAX) {
        faults.add(Place::member("", "announce_at"), "expected a time within a year");
    }
    if let (Some(starts_at), Some(ends_at), Some(message)) = (starts_at, ends_at, &message) {
        let maintenance = Maintenance { starts_at, ends_at, message: message.clone() };
        if let Err(error) = maintenance.check(at.map_or(now, |at| at.max(now))) {
            let member = match error {
                MaintenanceError::Message => "message",
                _ => "ends_at",
            };
            faults.add(Place::member("", member), error.to_string());
        }
    }
    members.finish("", &["starts_at", "ends_at", "message", "announce_at"], &mut faults);
    faults.check()?;
    let whole = starts_at.zip(ends_at).zip(message);
    let ((starts_at, ends_at), message) = whole.expect("what is missing is a fault");
    Ok((Maintenance { starts_at, ends_at, message }, at))
}

/// A leap year.
const AHEAD_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

#[derive(Serialize)]
struct LaterView {
    id: EventId,
    announce_at: Timestamp,
}

#[derive(Serialize)]
struct View {
    id: EventId,
    announce_at: Timestamp,
    #[serde(flatten)]
    said: Said,
}

/// What the envelope has in `data`.
#[derive(Default, Serialize, Deserialize)]
struct Said {
    starts_at: Option<Timestamp>,
    ends_at: Option<Timestamp>,
    message: Option<String>,
}

impl View {
    fn of(scheduled: &Scheduled) -> Self {
        #[derive(Deserialize)]
        struct Envelope {
            data: Said,
        }

        let envelope = serde_json::from_slice::<Envelope>(&scheduled.event.body);
        let said = envelope.map(|envelope| envelope.data).unwrap_or_default();
        Self { id: scheduled.event.id, announce_at: scheduled.due_at, said }
    }
}
