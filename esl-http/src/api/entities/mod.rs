//! `/api/{plural}`: the entities of each kind that the engine knows.

mod document;
mod list;
mod patch;

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{FromRequestParts, MatchedPath, Path, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION},
        request::Parts,
    },
    response::Response,
};
use esl_core::{
    DOCUMENT_BYTES_MAX, Document, Entities, EntityError, EntityId, EntityIdError, EntityKind,
    KindName, Origin, Shown, storage::REFERENCES_MAX,
};

use self::{list::Listing, patch::PatchBody};
use super::{
    Api, answer, answer_bytes,
    auth::{Authorized, MayReadEntities, MayWriteEntities},
    body::JsonBody,
    conditional::{Unmet, unmet},
    fault::{Fault, Faults, Place},
    page::{List, NoParameters, Parameters},
    problem::{Code, Problem},
    request::Context,
};

/// `POST /api/{plural}`
pub(super) async fn create(
    State(api): State<Api>,
    caller: Authorized<MayWriteEntities>,
    Kind(kind): Kind,
    context: Context,
    path: MatchedPath,
    _: NoParameters,
    JsonBody(body): JsonBody<DOCUMENT_BYTES_MAX>,
) -> Result<Response, Problem> {
    let document = document::object(&body)?;
    let entities = writing(&api, &kind, &caller, &context);
    let written = entities.create(caller.organization, document).await?;
    let mut response = shown(StatusCode::CREATED, &written.shown);
    let location = format!("{}/{}", path.as_str(), written.shown.entity.id());
    let location = HeaderValue::try_from(location).expect("paths and ids are ASCII");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// `GET /api/{plural}`
pub(super) async fn list(
    State(api): State<Api>,
    caller: Authorized<MayReadEntities>,
    Kind(kind): Kind,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let listing = Listing::read(&kind, parameters)?;
    let (data, next) = listing.page(&reading(&api, &kind), caller.organization).await?;
    let next_cursor = next.map(|position| listing.cursor(position));
    Ok(answer(StatusCode::OK, &List { data, next_cursor }))
}

/// `GET /api/{plural}/{id}`
pub(super) async fn one(
    State(api): State<Api>,
    caller: Authorized<MayReadEntities>,
    One(kind, id): One,
    _: NoParameters,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let found = reading(&api, &kind).get(caller.organization, &id).await?;
    let found = found.ok_or_else(|| Problem::not_found(noun(kind.name())))?;
    match conditions.unmet(Some(&found)) {
        None => Ok(shown(StatusCode::OK, &found)),
        Some(Unmet::NotModified) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(ETAG, header(&etag(&found)));
            Ok(response)
        }
        Some(Unmet::PreconditionFailed) => Err(precondition_failed()),
    }
}

/// `PUT /api/{plural}/{id}`
pub(super) async fn replace(
    State(api): State<Api>,
    caller: Authorized<MayWriteEntities>,
    One(kind, id): One,
    context: Context,
    _: NoParameters,
    conditions: Conditions,
    JsonBody(body): JsonBody<REPRESENTATION_BYTES_MAX>,
) -> Result<Response, Problem> {
    let document = document::object(&body)?;
    let entities = writing(&api, &kind, &caller, &context);
    let written = if kind.has_chosen_ids() {
        let put = |before: Option<&Shown>, representation: &mut Document| {
            conditions.check(before)?;
            representation.clone_from(&document);
            // Of one that is new, it is what the path says.
            if before.is_none() && document.get("id").is_some_and(|it| it == id.as_str()) {
                representation.shift_remove("id");
            }
            Ok::<_, Stop>(())
        };
        entities.put(caller.organization, &id, put).await
    } else {
        let replace = |before: &Shown, representation: &mut Document| {
            conditions.check(Some(before))?;
            representation.clone_from(&document);
            Ok::<_, Stop>(())
        };
        entities.update(caller.organization, &id, replace).await
    };
    let written = written.map_err(|stop| conditions.problem(stop))?;
    let status = if written.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(shown(status, &written.shown))
}

/// `PATCH /api/{plural}/{id}`
pub(super) async fn change(
    State(api): State<Api>,
    caller: Authorized<MayWriteEntities>,
    One(kind, id): One,
    context: Context,
    _: NoParameters,
    conditions: Conditions,
    PatchBody(patch): PatchBody,
) -> Result<Response, Problem> {
    let entities = writing(&api, &kind, &caller, &context);
    let written = entities.update(caller.organization, &id, |before, representation| {
        conditions.check(Some(before))?;
        patch.apply(representation).map_err(Stop::Problem)
    });
    let written = written.await.map_err(|stop| conditions.problem(stop))?;
    Ok(shown(StatusCode::OK, &written.shown))
}

/// `DELETE /api/{plural}/{id}`
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Authorized<MayWriteEntities>,
    One(kind, id): One,
    context: Context,
    _: NoParameters,
    conditions: Conditions,
) -> Result<StatusCode, Problem> {
    let entities = writing(&api, &kind, &caller, &context);
    let deleted =
        entities.delete(caller.organization, &id, |before| conditions.check(Some(before)));
    deleted.await.map_err(|stop| conditions.problem(stop))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The kind that a path is about: the table of routes leaves it with each request.
#[derive(Debug)]
pub(super) struct Kind(Arc<EntityKind>);

impl FromRequestParts<Api> for Kind {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Infallible> {
        let kind = parts.extensions.get::<Arc<EntityKind>>();
        Ok(Self(Arc::clone(kind.expect("routes of entities are made with their kind"))))
    }
}

/// The entity that a path is about. What is no id names nothing, and nothing can be put there.
#[derive(Debug)]
pub(super) struct One(Arc<EntityKind>, EntityId);

impl FromRequestParts<Api> for One {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Ok(Kind(kind)) = Kind::from_request_parts(parts, api).await;
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, api).await.ok();
        let id = path.and_then(|Path(parameters)| parameters.get("id")?.parse().ok());
        match id {
            Some(id) => Ok(Self(kind, id)),
            None if kind.has_chosen_ids() && parts.method == Method::PUT => Err(no_id()),
            None => Err(Problem::not_found(noun(kind.name()))),
        }
    }
}

/// What a request expects of the entity before anything is done.
#[derive(Debug)]
pub(super) struct Conditions {
    method: Method,
    /// `If-Match` and `If-None-Match`.
    headers: HeaderMap,
}

impl FromRequestParts<Api> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Infallible> {
        let mut headers = HeaderMap::new();
        for name in [IF_MATCH, IF_NONE_MATCH] {
            for value in parts.headers.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        Ok(Self { method: parts.method.clone(), headers })
    }
}

impl Conditions {
    fn unmet(&self, there: Option<&Shown>) -> Option<Unmet> {
        if self.headers.is_empty() {
            return None;
        }
        unmet(&self.method, &self.headers, there.map(etag).as_deref())
    }

    fn check(&self, there: Option<&Shown>) -> Result<(), Stop> {
        match self.unmet(there) {
            None => Ok(()),
            Some(_) => Err(Stop::Problem(precondition_failed())),
        }
    }

    /// What a write that was stopped is answered.
    fn problem(&self, stop: Stop) -> Problem {
        match stop {
            // Which is not there, whatever version of it was read.
            Stop::Entity(EntityError::NotFound(_)) if self.headers.contains_key(IF_MATCH) => {
                precondition_failed()
            }
            Stop::Entity(error) => error.into(),
            Stop::Problem(problem) => problem,
        }
    }
}

/// Why an entity is not written.
enum Stop {
    Entity(EntityError),
    Problem(Problem),
}

impl From<EntityError> for Stop {
    fn from(error: EntityError) -> Self {
        Self::Entity(error)
    }
}

impl From<EntityError> for Problem {
    fn from(error: EntityError) -> Self {
        let conflict = |detail: String| Self::new(Code::Conflict, detail);
        match error {
            EntityError::NotFound(key) => Self::not_found(noun(&key.kind)),
            EntityError::Exists(key) => {
                conflict(format!("the {} of this id is there already", noun(&key.kind)))
            }
            EntityError::Invalid(invalid) => {
                let mut faults = Faults::default();
                for fault in invalid {
                    faults.add(Place::pointed(&fault.pointer), fault.detail);
                }
                match faults.check() {
                    Err(problem) => problem,
                    Ok(()) => Self::new(Code::Invalid, "the document is not valid"),
                }
            }
            EntityError::TooLarge { bytes, bytes_max } => Self::new(
                Code::TooLarge,
                format!("the document would have {bytes} bytes; {bytes_max} are the most"),
            ),
            EntityError::InUse { key, by } => {
                let (kind, by) = (noun(&key.kind), noun(&by));
                conflict(format!("the {kind} is referred to by at least one {by}"))
            }
            EntityError::TooMany { kind, at_most } => conflict(format!(
                "the organization has {at_most} of {} already, which are the most",
                kind.noun()
            )),
            EntityError::TooManyReferences(key) => conflict(format!(
                "the {} {} has {REFERENCES_MAX} that refer to it already, which are the most",
                noun(&key.kind),
                key.id
            )),
            EntityError::Contended(_) => {
                Self::unavailable("others went on writing what this depends on; try again", 1)
            }
            EntityError::Publish(error) => error.into(),
            EntityError::Storage(error) => Self::from(&*error),
            _ => Self::internal(&error),
        }
    }
}

fn reading(api: &Api, kind: &EntityKind) -> Entities {
    let entities = api.esl.entities(kind.name().as_str());
    entities.expect("routes are made of the kinds that the engine knows")
}

fn writing(
    api: &Api,
    kind: &EntityKind,
    caller: &Authorized<MayWriteEntities>,
    context: &Context,
) -> Entities {
    let origin = Origin {
        correlation_id: context.request_id().to_owned(),
        triggered_by: caller.client.to_string(),
        source: "api",
    };
    reading(api, kind).from(Arc::new(origin))
}

/// An answer that shows an entity.
fn shown(status: StatusCode, shown: &Shown) -> Response {
    let json = shown.representation.json().get().as_bytes().to_vec();
    let mut response = answer_bytes(status, json);
    response.headers_mut().insert(ETAG, header(&etag(shown)));
    response
}

fn etag(shown: &Shown) -> String {
    format!("\"{}\"", shown.tag())
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("tags are ASCII")
}

/// What one of the kind is called: the last segment of its name.
fn noun(kind: &KindName) -> &str {
    kind.as_str().rsplit('.').next().unwrap_or_default()
}

fn no_id() -> Problem {
    let detail = EntityIdError.to_string();
    let fault = Fault::at(Place::member("", "id"), detail.clone());
    Problem::new(Code::Invalid, detail).with_errors(vec![fault])
}

fn precondition_failed() -> Problem {
    let detail = "what is there is not what If-Match, or If-None-Match, expects";
    Problem::new(Code::PreconditionFailed, detail)
}

/// What the table of routes leaves with each request for a kind.
pub(super) fn about(kind: &Arc<EntityKind>) -> Extension<Arc<EntityKind>> {
    Extension(Arc::clone(kind))
}

/// A representation shows those who refer to it, too, and may be sent as it was read.
const REPRESENTATION_BYTES_MAX: usize = 4 * DOCUMENT_BYTES_MAX;
