//! `/api/v1/replays`, and those of a subscription: sending many deliveries again.

use std::num::NonZeroU32;

use axum::{
    extract::{MatchedPath, State},
    http::{HeaderValue, StatusCode, header::LOCATION},
    response::Response,
};
use esl_core::{
    NewReplay, Replay, ReplayId, ReplayOf, ReplayRange, Seq, SubscriptionId, Timestamp,
    storage::StorageErrorKind,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Api, answer,
    auth::{Authorized, MayRead, MaySubscribe},
    body::{self, NoBody, OptionalJsonBody},
    fault::{Faults, Place},
    json::{self, Items},
    page::{List, NoParameters, Parameters},
    path::{Id, Named},
    problem::{Code, Problem},
    request::Context,
};

/// `POST /api/v1/subscriptions/{id}/replay`
pub(super) async fn create(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    context: Context,
    path: MatchedPath,
    Id(subscription): Id<SubscriptionId>,
    _: NoParameters,
    OptionalJsonBody(body): OptionalJsonBody<{ body::SMALL }>,
) -> Result<Response, Problem> {
    let Asked { new, is_dry_run } = read(&body)?;
    let organization = caller.organization;
    if is_dry_run {
        context.when_too_slow(COUNT_TOO_SLOW);
        let count = api.esl.count_replay(organization, subscription, new).await?;
        let count = count.ok_or_else(|| Problem::not_found(SubscriptionId::NAME))?;
        return Ok(answer(StatusCode::OK, &CountView { count }));
    }
    api.demand_enabled()?;
    let created = api.esl.replay(organization, subscription, new).await;
    let replay = created.map_err(|error| match error.kind() {
        StorageErrorKind::Conflict => Problem::new(
            Code::Conflict,
            "a replay to this subscription is running; cancel it first",
        ),
        _ => Problem::about(SubscriptionId::NAME, &error),
    })?;
    let mut response = answer(StatusCode::ACCEPTED, &View::of(&replay));
    // Beside the subscriptions, wherever the API is mounted.
    let (mounted, _) = path.as_str().rsplit_once("/subscriptions/").expect("the route's path");
    let location = HeaderValue::try_from(format!("{mounted}/replays/{}", replay.id));
    response.headers_mut().insert(LOCATION, location.expect("paths and ids are ASCII"));
    Ok(response)
}

/// `GET /api/v1/subscriptions/{id}/replays`
pub(super) async fn list(
    State(api): State<Api>,
    caller: Authorized<MayRead>,
    Id(subscription): Id<SubscriptionId>,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let page = parameters.page();
    parameters.finish()?;
    let page = api.esl.storage().replays(caller.organization, subscription, page).await?;
    let page = page.ok_or_else(|| Problem::not_found(SubscriptionId::NAME))?;
    Ok(answer(StatusCode::OK, &List::of(&page, |last| last.number, View::of)))
}

/// `GET /api/v1/replays/{id}`
pub(super) async fn one(
    State(api): State<Api>,
    caller: Authorized<MayRead>,
    Id(id): Id<ReplayId>,
    _: NoParameters,
) -> Result<Response, Problem> {
    let replay = api.esl.storage().replay(caller.organization, id).await?;
    let replay = replay.ok_or_else(|| Problem::not_found(ReplayId::NAME))?;
    Ok(answer(StatusCode::OK, &View::of(&replay)))
}

/// `POST /api/v1/replays/{id}/cancel`
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    Id(id): Id<ReplayId>,
    _: NoParameters,
    _: NoBody,
) -> Result<Response, Problem> {
    let cancelled = api.esl.cancel_replay(caller.organization, id).await;
    let replay = cancelled.map_err(|error| Problem::about(ReplayId::NAME, &error))?;
    Ok(answer(StatusCode::OK, &View::of(&replay)))
}

struct Asked {
    new: NewReplay,
    is_dry_run: bool,
}

fn read(body: &[u8]) -> Result<Asked, Problem> {
    let members = json::object(body)?;
    let mut faults = Faults::default();
    let of = match members.get("state") {
        None => Some(ReplayOf::UNDELIVERED),
        Some(raw) => states(raw, &mut faults),
    };
    let mut seq = |name| {
        members.optional("", name, &mut faults, |raw| {
            json::whole(raw, 1..=Seq::MAX.get()).map(Seq::new)
        })
    };
    let (from, to) = (seq("from_seq"), seq("to_seq"));
    let mut time = |name| members.optional("", name, &mut faults, json::time);
    let (since, until) = (time("from_time"), time("to_time"));
    let max_per_second = members.optional("", "max_per_second", &mut faults, |raw| {
        json::whole(raw, 1..=u64::from(NewReplay::PER_SECOND_MAX))
    });
    let is_dry_run = members.optional("", "dry_run", &mut faults, json::boolean);
    for (lower, upper, is_empty) in [
        ("from_seq", "to_seq", from.zip(to).is_some_and(|(from, to)| from > to)),
        ("from_time", "to_time", since.zip(until).is_some_and(|(since, until)| since > until)),
    ] {
        if is_empty {
            faults.add(Place::member("", upper), format!("expected no less than {lower}"));
        }
    }
    members.finish("", &NAMES, &mut faults);
    faults.check()?;
    let range = ReplayRange {
        from: from.unwrap_or(ReplayRange::ALL.from),
        to: to.unwrap_or(ReplayRange::ALL.to),
        since,
        until,
    };
    let per_second = max_per_second.and_then(|number| u32::try_from(number).ok());
    let per_second = per_second.and_then(NonZeroU32::new);
    let new = NewReplay::new(of.expect("what cannot be read is a fault"))
        .within(range)
        .with_max_per_second(per_second.unwrap_or(NewReplay::PER_SECOND_DEFAULT));
    Ok(Asked { new, is_dry_run: is_dry_run.unwrap_or(false) })
}

/// One state or an array of them; `missing` stands alone.
fn states(raw: &RawValue, faults: &mut Faults) -> Option<ReplayOf> {
    let single;
    let names = match Items::of(raw, STATES.len()) {
        Some(items) if (1..=STATES.len()).contains(&items.count) => items.list,
        Some(_) => {
            faults.add(Place::member("", "state"), "expected 1 to 4 states");
            return None;
        }
        None => {
            single = [raw];
            single.to_vec()
        }
    };
    let is_array = raw.get().starts_with('[');
    let (mut chosen, mut is_right) = ([false; STATES.len()], true);
    for (index, raw) in names.iter().enumerate() {
        let name = json::text(raw).unwrap_or_default();
        match STATES.iter().position(|state| *state == name) {
            Some(state) => chosen[state] = true,
            None => {
                let place = match is_array {
                    true => Place::member("/state", &index.to_string()),
                    false => Place::member("", "state"),
                };
                faults.add(place, "expected missing, exhausted, expired or delivered");
                is_right = false;
            }
        }
    }
    match chosen {
        _ if !is_right => None,
        [true, false, false, false] => Some(ReplayOf::Missing),
        [true, ..] => {
            faults.add(Place::member("", "state"), "expected missing to stand alone");
            None
        }
        [false, exhausted, expired, delivered] => {
            Some(ReplayOf::Deliveries { exhausted, expired, delivered })
        }
    }
}

const COUNT_TOO_SLOW: &str = "counting took too long, and was given up; count a narrower range \
    (from_seq, to_seq, from_time, to_time), or begin the replay without counting";
const STATES: [&str; 4] = ["missing", "exhausted", "expired", "delivered"];
const NAMES: [&str; 7] =
    ["state", "from_seq", "to_seq", "from_time", "to_time", "max_per_second", "dry_run"];

#[derive(Debug, Serialize)]
struct CountView {
    count: u64,
}

/// A replay as its organization sees it.
#[derive(Debug, Serialize)]
struct View {
    id: ReplayId,
    subscription_id: SubscriptionId,
    state: &'static str,
    of: Vec<&'static str>,
    from_seq: u64,
    to_seq: u64,
    from_time: Option<Timestamp>,
    to_time: Option<Timestamp>,
    max_per_second: NonZeroU32,
    position: u64,
    opened: u64,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl View {
    fn of(replay: &Replay) -> Self {
        Self {
            id: replay.id,
            subscription_id: replay.subscription,
            state: replay.state.as_str(),
            of: names(&replay.of),
            from_seq: replay.range.from.get().max(1),
            to_seq: replay.range.to.get(),
            from_time: replay.range.since,
            to_time: replay.range.until,
            max_per_second: replay.max_per_second,
            position: replay.position.get(),
            opened: replay.opened,
            created_at: replay.created_at,
            finished_at: replay.finished_at,
        }
    }
}

fn names(of: &ReplayOf) -> Vec<&'static str> {
    match *of {
        ReplayOf::Missing => vec!["missing"],
        ReplayOf::Deliveries { exhausted, expired, delivered } => {
            let chosen = STATES[1..].iter().zip([exhausted, expired, delivered]);
            chosen.filter(|(_, is_chosen)| *is_chosen).map(|(name, _)| *name).collect()
        }
        _ => Vec::new(),
    }
}
