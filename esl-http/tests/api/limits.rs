//! What an organization is told of its limits (SPEC.md, "Rate Limiting").

use std::time::Duration;

use axum::http::StatusCode;
use esl_core::{Limit, Plan, Tier};
use serde_json::json;

use crate::{
    faulty::Mode,
    world::{Reply, World},
};

const EVENTS: &str = "/api/v1/events";
const ORGANIZATION: &str = "/api/v1/organization";
/// The end of the hour that a case begins in, 28 minutes after its begin.
const RESET: &str = "1705330800";

fn told(reply: &Reply) -> [Option<&str>; 4] {
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"]
        .map(|name| reply.header(name))
}

async fn limited(events_per_hour: Limit) -> World {
    let world = World::new().await;
    let mut plan = Plan::new(Tier::Free);
    plan.events_per_hour = Some(events_per_hour);
    world.esl.set_plan(world.organization, Some(plan)).await.expect("it exists");
    world
}

#[tokio::test]
async fn every_answer_says_what_is_left_of_the_hour() {
    let world = limited(Limit::AtMost(3)).await;
    let event = json!({ "type": "person.updated", "data": {} });
    let left = |remaining| [Some("3"), Some(remaining), Some(RESET), None];
    assert_eq!(told(&world.get(EVENTS).send().await), left("3"));
    for remaining in ["2", "1", "0"] {
        let reply = world.post(EVENTS).json(&event).send().await;
        assert_eq!((reply.status, told(&reply)), (StatusCode::ACCEPTED, left(remaining)));
    }
    world.clock.advance(Duration::from_millis(500));
    for body in [event.clone(), json!([event, event])] {
        let reply = world.post(EVENTS).json(&body).send().await;
        let expected = [Some("3"), Some("0"), Some(RESET), Some("1680")];
        assert_eq!((reply.status, told(&reply)), (StatusCode::TOO_MANY_REQUESTS, expected));
        assert_eq!(reply.body["code"], "rate_limited");
    }
    // To errors, too, and to callers that lack a scope; to nobody else.
    let reply = world.get("/api/v1/subscriptions/nothing").send().await;
    assert_eq!((reply.status, told(&reply)), (StatusCode::NOT_FOUND, left("0")));
    let token = world.token_for("acme-client", world.organization, "events:subscribe").await;
    let reply = world.post(EVENTS).token(&token).json(&event).send().await;
    assert_eq!((reply.status, told(&reply)), (StatusCode::FORBIDDEN, left("0")));
    let reply = world.get(EVENTS).token("garbage").send().await;
    assert_eq!((reply.status, told(&reply)), (StatusCode::UNAUTHORIZED, [None; 4]));
    let reply = world.post(EVENTS).token(&world.stranger_token).json(&event).send().await;
    assert_eq!((reply.status, told(&reply)), (StatusCode::ACCEPTED, [None; 4]));

    world.clock.advance(Duration::from_secs(28 * 60));
    let reply = world.post(EVENTS).json(&event).send().await;
    let expected = [Some("3"), Some("2"), Some("1705334400"), None];
    assert_eq!((reply.status, told(&reply)), (StatusCode::ACCEPTED, expected));
}

#[tokio::test]
async fn at_free_a_thousand_events_an_hour_count_down_and_are_told_of_once() {
    let world = World::new().await;
    let plan = Some(Plan::new(Tier::Free));
    world.esl.set_plan(world.organization, plan).await.expect("it exists");
    let event = json!({ "type": "person.updated", "data": {} });
    let notices = async |name: &str| {
        let list = world.get(&format!("{EVENTS}?type=system.rate_limit.{name}")).send().await;
        list.body["data"].as_array().expect("a list").len()
    };
    for hour in 1..=2 {
        for number in 1..=1000 {
            let reply = world.post(EVENTS).json(&event).send().await;
            let left = (1000 - number).to_string();
            assert_eq!(reply.status, StatusCode::ACCEPTED, "{number}");
            assert_eq!(told(&reply)[..2], [Some("1000"), Some(&*left)]);
            if matches!(number, 799 | 800 | 999 | 1000) {
                let so_far = (notices("warning").await, notices("exceeded").await);
                let before = hour - 1;
                let expected =
                    (before + usize::from(number >= 800), before + usize::from(number >= 1000));
                assert_eq!(so_far, expected, "{number}");
            }
        }
        let reply = world.post(EVENTS).json(&event).send().await;
        assert_eq!((reply.status, told(&reply)[1]), (StatusCode::TOO_MANY_REQUESTS, Some("0")));
        // So much is left of the first hour.
        world.clock.advance(Duration::from_secs(28 * 60));
    }
}

#[tokio::test]
async fn an_organization_sees_what_it_may_use_and_what_it_uses() {
    let world = limited(Limit::AtMost(3)).await;
    world.subscribe(&["*"]).await;
    world.publish("person.updated").await;
    let expected = json!({
        "id": world.organization,
        "name": "Acme",
        "created_at": "2024-01-15T14:32:00.000Z",
        "tier": "free",
        "limits": { "subscriptions": 5, "events_per_hour": 3, "retries": 3 },
        "usage": { "subscriptions": 1, "events": 1, "resets_at": "2024-01-15T15:00:00.000Z" },
    });
    for scope in ["events:read", "events:subscribe", "events:publish", "events:admin"] {
        let token = world.token_for("acme-client", world.organization, scope).await;
        let reply = world.get(ORGANIZATION).token(&token).send().await;
        assert_eq!((reply.status, reply.body), (StatusCode::OK, expected.clone()), "{scope}");
    }
    let token = world.token_for("acme-client", world.organization, "entities:read").await;
    assert_eq!(world.get(ORGANIZATION).token(&token).send().await.status, StatusCode::FORBIDDEN);
    // What another one sees is its own. It has no tier.
    let reply = world.get(ORGANIZATION).token(&world.stranger_token).send().await;
    assert_eq!(reply.body["name"], "Other");
    assert_eq!(reply.body["tier"], json!(null));
    let nothing = json!({ "subscriptions": null, "events_per_hour": null, "retries": null });
    assert_eq!(reply.body["limits"], nothing);
    let usage = json!({ "subscriptions": 0, "events": null, "resets_at": null });
    assert_eq!(reply.body["usage"], usage);
}

#[tokio::test]
async fn a_repetition_under_a_key_is_answered_when_nothing_is_left() {
    let world = limited(Limit::AtMost(1)).await;
    let publish = || {
        let event = json!({ "type": "person.updated", "data": {} });
        world.post(EVENTS).json(&event).header("idempotency-key", "one").send()
    };
    let (first, again) = (publish().await, publish().await);
    assert_eq!((first.status, &first.text), (StatusCode::ACCEPTED, &again.text));
}

#[tokio::test]
async fn without_a_limit_there_is_nothing_to_tell() {
    let world = limited(Limit::Unlimited).await;
    assert_eq!(told(&world.get(EVENTS).send().await), [None; 4]);
}

#[tokio::test]
async fn one_subscription_too_many_is_a_conflict() {
    let world = limited(Limit::Unlimited).await;
    for _ in 0..5 {
        world.subscribe(&["*"]).await;
    }
    let body = json!({ "callback_url": "https://example.com/webhooks", "events": ["*"] });
    let reply = world.post("/api/v1/subscriptions").json(&body).send().await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    assert_eq!(reply.body["code"], "subscription_limit");
}

#[tokio::test]
async fn an_array_that_does_not_fit_is_told_how_much_would() {
    let world = limited(Limit::AtMost(3)).await;
    let event = json!({ "type": "person.updated", "data": {} });
    let reply = world.post(EVENTS).json(&event).send().await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let reply = world.post(EVENTS).json(&json!([event, event, event])).send().await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    let detail = "the organization may publish 3 events an hour, and has 2 left until \
                  2024-01-15T15:00:00.000Z";
    assert_eq!(reply.body["detail"], detail);
    let reply = world.post(EVENTS).json(&json!([event, event])).send().await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "they do fit");
}

#[tokio::test]
async fn whoever_is_turned_away_is_told_when_to_come_back_also_if_the_rest_cannot_be_read() {
    let world = limited(Limit::AtMost(0)).await;
    let event = json!({ "type": "person.updated", "data": {} });
    world.fault.set(Mode::FailUsage);
    let reply = world.post(EVENTS).json(&event).send().await;
    let expected = [None, None, None, Some("1680")];
    assert_eq!((reply.status, told(&reply)), (StatusCode::TOO_MANY_REQUESTS, expected));
}
