//! What an organization may use, under a crowd and SIGKILL: neither one too many nor one too few.

use std::{collections::HashSet, time::Duration};

use esl_core::{Clock, SystemClock, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Api, CLIENT, Folder, Server, WITH_CLIENT, random};

/// What the tier Free allows in an hour.
const EVENTS: usize = 1000;
const SUBSCRIPTIONS: usize = 5;
/// So many publish at once.
const CROWD: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_publishes_exactly_as_many_events_as_it_may_although_the_server_is_killed() {
    let kill_after = random().usize(1..EVENTS);
    let (folder, server) = free().await;
    let api = Api::new(&server.base).await;
    within_an_hour(&api).await;

    let mut publishers = crowd(&api, publish);
    let mut acknowledged = HashSet::new();
    while acknowledged.len() < kill_after {
        let Some(answer) = publishers.join_next().await else { break };
        match answer.expect("no publisher panics") {
            Answer::Accepted(id) => {
                acknowledged.insert(id);
            }
            Answer::Later => {}
            Answer::Refused | Answer::Lost => continue,
        }
        publishers.spawn(publish(api.clone()));
    }
    server.kill().await;
    acknowledged.extend(accepted(publishers.join_all().await));
    println!("killed after {kill_after}, {} acknowledged", acknowledged.len());

    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let mut publishers = crowd(&api, publish);
    while let Some(answer) = publishers.join_next().await {
        match answer.expect("no publisher panics") {
            Answer::Accepted(id) => {
                acknowledged.insert(id);
                publishers.spawn(publish(api.clone()));
            }
            Answer::Refused => {}
            Answer::Later => {
                publishers.spawn(publish(api.clone()));
            }
            Answer::Lost => panic!("nobody kills this server"),
        }
    }
    let published = ids(&api, "person.updated").await;
    assert_eq!(published.len(), EVENTS);
    assert!(acknowledged.is_subset(&published), "what was acknowledged is there");
    for notice in ["system.rate_limit.warning", "system.rate_limit.exceeded"] {
        assert_eq!(ids(&api, notice).await.len(), 1, "{notice}");
    }
    let (_, organization) = api.get("/api/v1/organization").await;
    assert_eq!(organization["usage"]["events"], EVENTS, "{organization}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_makes_exactly_as_many_subscriptions_as_it_may() {
    let (_folder, server) = free().await;
    let api = Api::new(&server.base).await;
    let made: HashSet<_> = accepted(crowd(&api, subscribe).join_all().await).collect();
    let subscriptions: HashSet<_> = api
        .all("/api/v1/subscriptions")
        .await
        .iter()
        .map(|subscription| subscription["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(subscriptions.len(), SUBSCRIPTIONS);
    assert!(made.is_subset(&subscriptions), "what was acknowledged is there");
    let (_, organization) = api.get("/api/v1/organization").await;
    assert_eq!(organization["usage"]["subscriptions"], SUBSCRIPTIONS, "{organization}");
    server.stop().await;
}

#[tokio::test]
async fn a_plan_given_beside_a_running_server_holds_there_and_is_shown_by_both() {
    let folder = Folder::new();
    let server = folder
        .start(&[WITH_CLIENT[0], ("RATE_LIMIT_EVENTS_HOUR", "7"), ("ESL_RETRY_ATTEMPTS", "2")])
        .await;
    let api = Api::new(&server.base).await;
    let standard = json!({ "subscriptions": 25, "events_per_hour": 7, "retries": 2 });
    let (_, organization) = api.get("/api/v1/organization").await;
    assert_eq!((&organization["tier"], &organization["limits"]), (&json!("standard"), &standard));

    let set = ["org", "set", CLIENT, "--tier", "enterprise", "--events-per-hour", "2"];
    let set = folder.json(&set).await;
    let limits = json!({ "subscriptions": null, "events_per_hour": 2, "retries": 10 });
    assert_eq!(set["limits"], limits);
    let shown = folder.json(&["org", "show", CLIENT]).await;
    assert_eq!(shown, set);
    let seen = api.until("/api/v1/organization", |seen| seen["limits"] == limits).await;
    assert_eq!((&seen["id"], &seen["tier"]), (&set["id"], &json!("enterprise")));
    let usage = json!({ "subscriptions": 0, "events": 0, "resets_at": seen["usage"]["resets_at"] });
    assert_eq!(seen["usage"], usage);

    let back = folder.json(&["org", "set", CLIENT, "--events-per-hour", "tier"]).await;
    assert_eq!(back["limits"]["events_per_hour"], 100_000);
    let wrong = folder.run(&["org", "set", CLIENT, "--tier", "none", "--retries", "1"], &[]).await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    let none = folder.json(&["org", "set", CLIENT, "--tier", "none"]).await;
    assert_eq!((&none["tier"], &none["limits"]["retries"]), (&json!(null), &json!(null)));
    let text = folder.run(&["org", "show", CLIENT], &[]).await;
    assert!(text.stdout.contains("tier           none"), "{text:?}");
    server.stop().await;
}

/// A server whose organization is of the tier Free.
async fn free() -> (Folder, Server) {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    folder.json(&["org", "set", CLIENT, "--tier", "free"]).await;
    let api = Api::new(&server.base).await;
    api.until("/api/v1/organization", |organization| organization["tier"] == "free").await;
    (folder, server)
}

/// The server goes by the machine's clock: shortly before an hour ends there is nothing for it but to
/// wait until it says that the next has begun.
async fn within_an_hour(api: &Api) {
    const ENOUGH: Duration = Duration::from_secs(120);
    let has_enough = |organization: &Value| {
        let end = organization["usage"]["resets_at"].as_str().expect("a time");
        let end: Timestamp = end.parse().expect("a time");
        end.since(SystemClock::new().utc()) >= ENOUGH
    };
    api.until("/api/v1/organization", has_enough).await;
}

enum Answer {
    Accepted(String),
    Refused,
    /// The server has too much to do: it may have been done or not.
    Later,
    /// The server is gone.
    Lost,
}

fn crowd<F: Future<Output = Answer> + Send + 'static>(
    api: &Api,
    one: impl Fn(Api) -> F,
) -> JoinSet<Answer> {
    (0..CROWD).map(|_| one(api.clone())).collect()
}

async fn publish(api: Api) -> Answer {
    let event = json!({ "type": "person.updated", "data": {} });
    ask(api, "/api/v1/events", &event, (202, 429)).await
}

async fn subscribe(api: Api) -> Answer {
    let body = json!({ "callback_url": "http://127.0.0.1:9/", "events": ["*"] });
    loop {
        match ask(api.clone(), "/api/v1/subscriptions", &body, (201, 409)).await {
            Answer::Later => {}
            answer => return answer,
        }
    }
}

async fn ask(api: Api, path: &str, body: &Value, (accepted, refused): (u16, u16)) -> Answer {
    let Ok((status, answer)) = api.post(path, body).await else { return Answer::Lost };
    match status {
        _ if status == accepted => {
            Answer::Accepted(answer["id"].as_str().expect("an id").to_owned())
        }
        _ if status == refused => Answer::Refused,
        503 => Answer::Later,
        _ => panic!("{status}: {answer}"),
    }
}

fn accepted(answers: Vec<Answer>) -> impl Iterator<Item = String> {
    answers.into_iter().filter_map(|answer| match answer {
        Answer::Accepted(id) => Some(id),
        Answer::Refused | Answer::Later | Answer::Lost => None,
    })
}

/// The ids of all events of a type.
async fn ids(api: &Api, event_type: &str) -> HashSet<String> {
    let (mut ids, mut cursor) = (HashSet::new(), String::new());
    loop {
        let path = format!("/api/v1/events?type={event_type}&limit=100{cursor}");
        let (status, page) = api.get(&path).await;
        assert_eq!(status, 200, "{page}");
        let events = page["data"].as_array().expect("a list");
        ids.extend(events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { return ids };
        cursor = format!("&cursor={next}");
    }
}
