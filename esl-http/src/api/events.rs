//! `/api/v1/events`: publishing, and reading what was published.

use std::{borrow::Cow, sync::Arc};

use axum::{
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::Response,
};
use esl_core::{
    Digest, EventId, EventType, Metadata, NewEvent, OrganizationId, Origin, Published, Seq,
    storage::{Idempotency, StoredEvent},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Api, answer, answer_bytes,
    auth::{Authorized, MayPublish, MayRead},
    body::JsonBody,
    fault::{Faults, Place},
    json::{self, Items, Members, OneOrMany},
    page::{self, NoParameters, Parameters},
    path::{Id, Named},
    problem::Problem,
    request::Context,
};

/// `POST /api/v1/events`
pub(super) async fn publish(
    State(api): State<Api>,
    caller: Authorized<MayPublish>,
    context: Context,
    _: NoParameters,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<BODY_BYTES_MAX>,
) -> Result<Response, Problem> {
    let origin = Origin {
        correlation_id: context.request_id().to_owned(),
        triggered_by: caller.client.to_string(),
        source: "api",
    };
    let reader = Reader { organization: caller.organization, origin: Arc::new(origin) };
    let idempotency =
        key.map(|key| Idempotency { key, fingerprint: *Digest::of(&body).as_bytes() });
    match (json::one_or_many(&body, EVENTS_MAX)?, idempotency) {
        (OneOrMany::One(members), None) => {
            let published = api.esl.publish(reader.one(&members)?).await?;
            Ok(answer(StatusCode::ACCEPTED, &PublishedView::from(published)))
        }
        (OneOrMany::One(members), idempotency) => {
            let events = vec![reader.one(&members)?];
            let published = api.esl.publish_batch(caller.organization, events, idempotency).await?;
            let only = published.into_iter().next().expect("one event, one answer");
            Ok(answer(StatusCode::ACCEPTED, &PublishedView::from(only)))
        }
        (OneOrMany::Many(items), idempotency) => {
            let events = reader.many(&items)?;
            let published = api.esl.publish_batch(caller.organization, events, idempotency).await?;
            let data = published.into_iter().map(PublishedView::from).collect();
            Ok(answer(StatusCode::ACCEPTED, &PublishedList { data }))
        }
    }
}

/// `GET /api/v1/events`
pub(super) async fn list(
    State(api): State<Api>,
    caller: Authorized<MayRead>,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let event_type = parameters.take("type", |text| {
        text.parse().map_err(|error: esl_core::EventTypeError| error.to_string().into())
    });
    let page = parameters.page();
    parameters.finish()?;
    let page = api.esl.storage().events(caller.organization, event_type, page).await?;
    let bodies: usize = page.items.iter().map(|event| event.body.len()).sum();
    let mut out = Vec::with_capacity(bodies + 256 * (page.items.len() + 1));
    out.extend_from_slice(br#"{"data":["#);
    for (index, event) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_event(&mut out, event, &api.esl.envelope(caller.organization, event));
    }
    out.extend_from_slice(br#"],"next_cursor":"#);
    write_json(&mut out, &page::next_cursor(&page, |last| last.seq));
    out.push(b'}');
    Ok(answer_bytes(StatusCode::OK, out))
}

/// `GET /api/v1/events/{id}`
pub(super) async fn one(
    State(api): State<Api>,
    caller: Authorized<MayRead>,
    Id(id): Id<EventId>,
    _: NoParameters,
) -> Result<Response, Problem> {
    let event = api.esl.storage().event(caller.organization, id).await?;
    let event = event.ok_or_else(|| Problem::not_found(EventId::NAME))?;
    let mut out = Vec::with_capacity(event.body.len() + 256);
    write_event(&mut out, &event, &api.esl.envelope(caller.organization, &event));
    Ok(answer_bytes(StatusCode::OK, out))
}

/// The `Idempotency-Key` header.
#[derive(Debug)]
pub(super) struct IdempotencyKey(Option<String>);

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let key = value.to_str().unwrap_or_default();
        let is_key =
            (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if is_key && values.next().is_none() {
            Ok(Self(Some(key.to_owned())))
        } else {
            let detail = "expected one key of 1 to 255 visible ASCII characters";
            Err(Faults::only(Place::Header("Idempotency-Key"), detail))
        }
    }
}

/// Makes events of what a request says.
struct Reader {
    organization: OrganizationId,
    origin: Arc<Origin>,
}

impl Reader {
    fn one(&self, members: &Members<'_>) -> Result<NewEvent, Problem> {
        let mut faults = Faults::default();
        let event = self.event("", members, &mut faults);
        faults.check()?;
        Ok(event.expect("an event that cannot be read is a fault"))
    }

    fn many(&self, items: &Items<'_>) -> Result<Vec<NewEvent>, Problem> {
        if !(1..=EVENTS_MAX).contains(&items.count) {
            let detail = format!("expected 1 to {EVENTS_MAX} events, not {}", items.count);
            return Err(Faults::only(Place::root(), detail));
        }
        let mut faults = Faults::default();
        let mut events = Vec::with_capacity(items.count);
        for (index, raw) in items.list.iter().enumerate() {
            let at = format!("/{index}");
            match Members::of(raw) {
                Some(members) => events.extend(self.event(&at, &members, &mut faults)),
                None => faults.add(Place::Pointer(at), "expected an object"),
            }
        }
        faults.check()?;
        Ok(events)
    }

    /// One event; `None` comes with a fault.
    fn event(&self, at: &str, members: &Members<'_>, faults: &mut Faults) -> Option<NewEvent> {
        let event_type = members.required(at, "type", faults, event_type);
        let data = members.required(at, "data", faults, |raw| Ok::<_, &str>(raw.to_owned()));
        let id = members.optional(at, "id", faults, |raw| {
            json::text(raw)?.parse().map_err(|error: esl_core::IdError| error.to_string())
        });
        let changes = members.optional(at, "changes", faults, |raw| {
            let is_object = raw.get().starts_with('{');
            if is_object { Ok(raw.to_owned()) } else { Err("expected an object") }
        });
        let metadata = members.get("metadata").map(|raw| metadata(at, raw, faults));
        members.finish(at, &["type", "data", "id", "changes", "metadata"], faults);

        let mut event = NewEvent::from_raw(self.organization, event_type?, data?)
            .with_metadata(metadata.unwrap_or_default())
            .with_origin(self.origin.clone());
        event.id = id;
        event.changes = changes;
        Some(event)
    }
}

fn event_type(raw: &RawValue) -> Result<EventType, Cow<'static, str>> {
    let event_type: EventType =
        json::text(raw)?.parse().map_err(|error: esl_core::EventTypeError| error.to_string())?;
    if event_type.is_system() {
        return Err("the types below system are ESL's own".into());
    }
    Ok(event_type)
}

/// The metadata that a publisher gives; what is wrong with it is a fault.
fn metadata(parent: &str, raw: &RawValue, faults: &mut Faults) -> Metadata {
    let mut metadata = Metadata::default();
    let at = format!("{parent}/metadata");
    let Some(members) = Members::of(raw) else {
        faults.add(Place::Pointer(at), "expected an object");
        return metadata;
    };
    let bytes = raw.get().len();
    if bytes > Metadata::BYTES_MAX {
        let detail = format!("{bytes} bytes; {} are the most", Metadata::BYTES_MAX);
        faults.add(Place::Pointer(at), detail);
        return metadata;
    }
    let mut named =
        |name| members.optional(&at, name, faults, |raw| json::text(raw).map(Cow::into_owned));
    metadata.correlation_id = named("correlation_id");
    metadata.triggered_by = named("triggered_by");
    metadata.source = named("source");
    members.refuse_repeated(&at, faults);
    metadata.other = members
        .iter()
        .filter(|(name, _)| !["correlation_id", "triggered_by", "source"].contains(name))
        .map(|(name, raw)| (name.to_owned(), raw.to_owned()))
        .collect();
    metadata
}

/// What became of one published event.
#[derive(Debug, Serialize)]
pub(super) struct PublishedView {
    id: EventId,
    seq: u64,
    deliveries: u32,
}

#[derive(Debug, Serialize)]
struct PublishedList {
    data: Vec<PublishedView>,
}

impl From<Published> for PublishedView {
    fn from(Published { id, seq, deliveries, .. }: Published) -> Self {
        Self { id, seq: seq.get(), deliveries }
    }
}

/// Writes an event by hand, because its envelope is JSON already and must stay what was signed.
fn write_event(out: &mut Vec<u8>, event: &StoredEvent, envelope: &[u8]) {
    out.extend_from_slice(br#"{"id":"#);
    write_json(out, &event.id);
    out.extend_from_slice(br#","type":"#);
    write_json(out, &event.event_type.as_str());
    out.extend_from_slice(br#","seq":"#);
    write_json(out, &Seq::get(event.seq));
    out.extend_from_slice(br#","timestamp":"#);
    write_json(out, &event.timestamp);
    out.extend_from_slice(br#","deliveries":"#);
    write_json(out, &event.deliveries);
    if let Some(erased_at) = event.erased_at {
        out.extend_from_slice(br#","erased_at":"#);
        write_json(out, &erased_at);
    }
    if let Some(changes) = &event.changes {
        out.extend_from_slice(br#","changes":"#);
        out.extend_from_slice(changes);
    }
    out.extend_from_slice(br#","envelope":"#);
    out.extend_from_slice(envelope);
    out.push(b'}');
}

fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("views are JSON, and a Vec takes everything");
}

const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
const EVENTS_MAX: usize = 1000;
