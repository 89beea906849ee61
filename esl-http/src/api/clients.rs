//! `/api/v1/clients`: who acts for the organization, and with what secret.

use std::convert::Infallible;

use axum::{
    extract::{MatchedPath, State},
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, LOCATION},
    },
    response::Response,
};
use esl_core::{
    Client, ClientSecret, OrganizationId, Scopes, Timestamp,
    storage::{StorageError, StorageErrorKind},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Api, answer,
    auth::{Authorized, MayAdminister, organization_gone},
    body::{self, NoBody, OptionalJsonBody},
    fault::Faults,
    json,
    page::{List, NoParameters, Parameters},
    path::{Id, Named},
    problem::{Code, Problem},
};

/// `POST /api/v1/clients`
pub(super) async fn create(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    path: MatchedPath,
    _: NoParameters,
    OptionalJsonBody(body): OptionalJsonBody<{ body::SMALL }>,
) -> Result<Response, Problem> {
    let New { id, scopes } = read_new(&body, caller.scopes)?;
    let (client, secret) = Client::generate(id, caller.organization, scopes, api.esl.now());
    let created = api.esl.storage().create_client(client.clone(), &caller.actor()).await;
    created.map_err(|error| not_created(&error))?;
    let mut response = shown_once(StatusCode::CREATED, &client, &secret);
    let location = format!("{}/{}", path.as_str(), client.id);
    let location = HeaderValue::try_from(location).expect("paths and new ids are ASCII");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// `GET /api/v1/clients`
pub(super) async fn list(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let page = parameters.page();
    parameters.finish()?;
    let page = api.esl.storage().clients(caller.organization, page).await?;
    let view = |client| View::of(client, None);
    Ok(answer(StatusCode::OK, &List::of(&page, |last| last.id.clone(), view)))
}

/// `GET /api/v1/clients/{id}`
pub(super) async fn one(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    Id(ClientId(id)): Id<ClientId>,
    _: NoParameters,
) -> Result<Response, Problem> {
    let client = api.esl.storage().client_of(caller.organization, &id).await?;
    let client = client.ok_or_else(|| Problem::not_found(ClientId::NAME))?;
    Ok(answer(StatusCode::OK, &View::of(&client, None)))
}

/// `POST /api/v1/clients/{id}/rotate-secret`
pub(super) async fn rotate_secret(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    Id(ClientId(id)): Id<ClientId>,
    _: NoParameters,
    _: NoBody,
) -> Result<Response, Problem> {
    let secret = ClientSecret::generate();
    let (organization, by) = (caller.organization, &caller.actor());
    let storage = api.esl.storage();
    let rotated = storage.rotate_client(organization, &id, secret.digest(), by).await;
    let client = rotated.map_err(|error| Problem::about(ClientId::NAME, &error))?;
    api.callers.forget(&id);
    Ok(shown_once(StatusCode::OK, &client, &secret))
}

/// `DELETE /api/v1/clients/{id}`
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Authorized<MayAdminister>,
    Id(ClientId(id)): Id<ClientId>,
    _: NoParameters,
) -> Result<StatusCode, Problem> {
    let deleted = api.esl.storage().delete_client(caller.organization, &id, &caller.actor()).await;
    deleted.map_err(|error| Problem::about(ClientId::NAME, &error))?;
    api.callers.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// A client in a path. Any text: an embedder may have given its clients ids of another kind.
#[derive(Debug)]
pub(super) struct ClientId(String);

impl Named for ClientId {
    const NAME: &'static str = "client";
}

impl std::str::FromStr for ClientId {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// What is asked of a new client.
struct New {
    id: Option<String>,
    scopes: Scopes,
}

/// Whoever makes a client has no more to give than the own token's scopes.
fn read_new(body: &[u8], held: Scopes) -> Result<New, Problem> {
    let members = json::object(body)?;
    let mut faults = Faults::default();
    let id = members.optional("", "client_id", &mut faults, id);
    let scopes = members.optional("", "scope", &mut faults, |raw| scopes(raw, held));
    members.finish("", &["client_id", "scope"], &mut faults);
    faults.check()?;
    Ok(New { id, scopes: scopes.unwrap_or(held) })
}

fn id(raw: &RawValue) -> Result<String, String> {
    let id = json::text(raw)?.into_owned();
    if Client::is_id(&id) { Ok(id) } else { Err(format!("expected {}", Client::ID_EXPECTED)) }
}

fn scopes(raw: &RawValue, held: Scopes) -> Result<Scopes, String> {
    match Scopes::some(&json::text(raw)?) {
        None => Err(format!("expected some of these, with spaces in between: {}", Scopes::all())),
        Some(scopes) if !held.cover(scopes) => {
            Err(format!("the token has no more to give than: {held}"))
        }
        Some(scopes) => Ok(scopes),
    }
}

fn not_created(error: &StorageError) -> Problem {
    match error.kind() {
        StorageErrorKind::NotFound => organization_gone(),
        // Whose, it does not say.
        StorageErrorKind::Conflict => {
            Problem::new(Code::Conflict, "there is a client of this client_id; choose another")
        }
        StorageErrorKind::OverLimit => {
            let most = Client::PER_ORGANIZATION_MAX;
            Problem::new(Code::ClientLimit, format!("an organization has at most {most} clients"))
        }
        _ => error.into(),
    }
}

/// An answer that holds a secret.
fn shown_once(status: StatusCode, client: &Client, secret: &ClientSecret) -> Response {
    let mut response = answer(status, &View::of(client, Some(secret)));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A client as its organization sees it.
// Without Debug: it may hold a secret.
#[derive(Serialize)]
struct View<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    scope: String,
    organization_id: OrganizationId,
    created_at: Timestamp,
}

impl<'a> View<'a> {
    fn of(client: &'a Client, secret: Option<&'a ClientSecret>) -> Self {
        Self {
            client_id: &client.id,
            client_secret: secret.map(ClientSecret::expose),
            scope: client.scopes.to_string(),
            organization_id: client.organization,
            created_at: client.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gives_more_than_they_have() {
        let held = |names| Scopes::some(names).expect("scopes");
        let (few, admin) = (held("events:read events:publish"), held("events:admin"));
        for (asked, held, given) in [
            (r"{}", few, Some("events:read events:publish")),
            (r"{}", admin, Some("events:admin")),
            (r#"{"scope":"events:publish"}"#, few, Some("events:publish")),
            (
                r#"{"scope":"events:publish entities:read"}"#,
                admin,
                Some("events:publish entities:read"),
            ),
            (r#"{"scope":"events:read events:subscribe"}"#, few, None),
            (r#"{"scope":"events:admin"}"#, few, None),
            (r#"{"scope":"events:everything"}"#, admin, None),
            (r#"{"scope":" "}"#, admin, None),
            (r#"{"scope":null}"#, admin, None),
        ] {
            let new = read_new(asked.as_bytes(), held).ok();
            assert_eq!(new.map(|new| new.scopes.to_string()).as_deref(), given, "{asked}");
        }
    }
}
