//! Every call, against the real API.

use std::{num::NonZeroU32, time::Duration};

use esl_core::{EventId, Scope, Scopes, SubscriptionId};
use esl_http::client::{
    Client, ClientErrorKind, DeliveryError, DeliveryState, DisabledReason, Method, NewEvent,
    NewReplay, NewSubscription, OnExhausted, Ordering, ReceiverState, ReplayOf, ReplayState,
    Rotation, SubscriptionOptions, SubscriptionUpdate,
};
use serde_json::{Value, json};

use crate::{
    scripted::{self, Server},
    world::World,
};

/// Where nobody listens; nothing is sent to what is paused.
const NOWHERE: &str = "https://a.example/hook";

fn event(data: &Value) -> NewEvent {
    NewEvent::new("person.updated", data).unwrap()
}

async fn paused(client: &Client) -> SubscriptionId {
    let new = NewSubscription::new(NOWHERE, ["person.*"]).paused();
    client.subscribe(&new).await.unwrap().id
}

#[tokio::test]
async fn a_subscription_from_its_making_to_its_end() {
    let world = World::new().await;
    let client = &world.client;
    let mut options = SubscriptionOptions::default();
    options.description = Some("the till".to_owned());
    options.metadata = Some(json!({ "team": 7 }));
    options.headers.insert("x-api-key".to_owned(), "abc".to_owned());
    options.retry_schedule_ms = Some(vec![1000, 2000]);
    options.timeout_ms = Some(5000);
    options.max_per_second = NonZeroU32::new(10);
    options.max_in_flight = NonZeroU32::new(2);
    options.ordering = Some(Ordering::Strict);
    options.on_exhausted = Some(OnExhausted::Pause);
    let new = NewSubscription::new(NOWHERE, ["person.*", "pet.created"]).with_options(options);
    let made = client.subscribe(&new.paused()).await.unwrap();
    assert!(made.secret.as_ref().unwrap().expose().starts_with("whsec_"));
    assert_eq!((made.callback_url.as_str(), made.active), (NOWHERE, false));
    assert_eq!(made.events, ["person.*", "pet.created"]);
    assert_eq!((made.disabled_reason, made.rotation_ends_at), (None, None));

    let read = client.subscription(made.id).await.unwrap();
    let options = &read.subscription.options;
    assert!(read.subscription.secret.is_none());
    assert_eq!(options.description.as_deref(), Some("the till"));
    assert_eq!(options.metadata, Some(json!({ "team": 7 })));
    assert_eq!(options.headers["x-api-key"], "***");
    assert_eq!(options.retry_schedule_ms.as_deref(), Some(&[1000, 2000][..]));
    assert_eq!((options.timeout_ms, options.max_per_second), (Some(5000), NonZeroU32::new(10)));
    assert_eq!(options.ordering, Some(Ordering::Strict));
    assert_eq!(options.on_exhausted, Some(OnExhausted::Pause));
    assert_eq!((read.health.state, read.health.waiting), (ReceiverState::Healthy, 0));

    let mut faster = SubscriptionOptions::default();
    faster.max_per_second = NonZeroU32::new(20);
    let update = SubscriptionUpdate::default()
        .with_events(["*"])
        .with_callback_url("https://b.example/hook")
        .with_options(faster)
        .without("timeout_ms")
        .without("headers");
    let changed = client.update_subscription(made.id, &update).await.unwrap();
    assert_eq!((changed.events, changed.active), (vec!["*".to_owned()], false));
    assert_eq!(changed.callback_url, "https://b.example/hook");
    assert_eq!(changed.options.max_per_second, NonZeroU32::new(20));
    assert_eq!((changed.options.timeout_ms, changed.options.headers.len()), (None, 0));
    assert!(client.resume(made.id).await.unwrap().active);
    assert!(!client.pause(made.id).await.unwrap().active);

    let other = paused(client).await;
    let all: Vec<_> = client.subscriptions().all().await.unwrap().iter().map(|it| it.id).collect();
    assert_eq!(all, [made.id, other]);
    client.delete_subscription(made.id).await.unwrap();
    let error = client.subscription(made.id).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ClientErrorKind::NotFound, Some("not_found")));
    let error = client.delete_subscription(made.id).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::NotFound);
}

#[tokio::test]
async fn a_secret_is_rotated_and_the_rotation_finished() {
    let world = World::new().await;
    let client = &world.client;
    let id = paused(client).await;
    let rotation = Rotation::default().with_grace(Duration::from_secs(3600));
    let rotated = client.rotate_secret(id, &rotation).await.unwrap();
    assert!(rotated.secret.is_some() && rotated.rotation_ends_at.is_some());
    let error = client.rotate_secret(id, &rotation).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ClientErrorKind::Conflict, Some("conflict")));
    let finished = client.finish_rotation(id).await.unwrap();
    assert_eq!(finished.rotation_ends_at, None);
    // Twice is like once, or it could not be tried again.
    client.finish_rotation(id).await.unwrap();
    let own = esl_core::Secret::new("a secret of one's own").unwrap();
    let rotated = client.rotate_secret(id, &Rotation::default().with_secret(own)).await.unwrap();
    assert!(rotated.secret.is_none() && rotated.rotation_ends_at.is_some());
}

#[tokio::test]
async fn events_are_published_once_and_read_as_they_were_written() {
    let world = World::new().await;
    let (client, organization) = (&world.client, world.organization);
    let id = EventId::from_bytes([7; 16]);
    let own = event(&json!({ "name": "John Doe" }))
        .with_id(id)
        .with_changes(&json!({ "name": { "old": "John Smith", "new": "John Doe" } }))
        .unwrap()
        .with_metadata(&json!({ "source": "till" }))
        .unwrap();
    let published = client.publish(&own).await.unwrap();
    assert_eq!((published.id, published.seq.get(), published.deliveries), (id, 1, 0));
    assert_eq!(client.publish(&own).await.unwrap(), published);
    let other = event(&json!({ "name": "Jane" })).with_id(id);
    assert_eq!(client.publish(&other).await.unwrap_err().code(), Some("event_conflict"));

    let pair = [event(&json!(1)), NewEvent::new("pet.created", &json!(2)).unwrap()];
    let both = client.publish_all(&pair).await.unwrap();
    assert_eq!(both.iter().map(|it| it.seq.get()).collect::<Vec<_>>(), [2, 3]);
    let once = client.publish_once("key-1", &pair).await.unwrap();
    assert_eq!(client.publish_once("key-1", &pair).await.unwrap(), once);
    let error = client.publish_once("key-1", &pair[..1]).await.unwrap_err();
    assert_eq!(error.code(), Some("idempotency_conflict"));

    let read = client.event(id).await.unwrap();
    assert_eq!(
        (read.event_type.as_str(), read.seq.get(), read.deliveries),
        ("person.updated", 1, 0)
    );
    let envelope = read.read().unwrap();
    assert_eq!((envelope.id, envelope.organization_id), (id, organization));
    assert_eq!(envelope.data.unwrap().get(), r#"{"name":"John Doe"}"#);
    assert_eq!(envelope.metadata.source.as_deref(), Some("till"));
    assert!(read.changes.is_none() && read.erased_at.is_none());

    let seqs = async |list: esl_http::client::List<esl_http::client::StoredEvent>| {
        let all = list.all().await.unwrap();
        all.into_iter().map(|event| event.seq.get()).collect::<Vec<_>>()
    };
    assert_eq!(seqs(client.events()).await, [5, 4, 3, 2, 1]);
    assert_eq!(seqs(client.events().of_type("pet.created")).await, [5, 3]);
    let types = client.event_types().await.unwrap();
    assert!(types.iter().any(|entry| entry.event_type.as_str() == "system.ping"));
    assert!(types.iter().any(|entry| entry.event_type.as_str() == "author.created"));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_its_place() {
    let world = World::new().await;
    let client = &world.client;
    let new = NewSubscription::new(NOWHERE, ["person.*", "No Pattern"]);
    let error = client.subscribe(&new).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ClientErrorKind::Invalid, Some(422)));
    assert_eq!(error.errors()[0].pointer.as_deref(), Some("/events/1"));
    assert!(error.request_id().unwrap().starts_with("req_"));
    let error = client.events().of_type("No Type").page(None).await.unwrap_err();
    assert_eq!(error.errors()[0].parameter.as_deref(), Some("type"));
}

#[tokio::test]
async fn data_that_is_too_large_to_go_inline_is_read_from_its_blob() {
    let world = World::new().await;
    let client = &world.client;
    let data = json!("x".repeat(4096));
    let published = client.publish(&event(&data)).await.unwrap();
    let envelope = client.event(published.id).await.unwrap().read().unwrap();
    assert_eq!(envelope.data_ref.unwrap().size_bytes, 4098);
    assert_eq!(client.blob(published.id).await.unwrap(), data.to_string());
    let inline = client.publish(&event(&json!(1))).await.unwrap();
    assert_eq!(client.blob(inline.id).await.unwrap_err().kind(), ClientErrorKind::NotFound);
}

/// Waits until the first delivery to a subscription is in a state.
async fn until(client: &Client, id: SubscriptionId, state: DeliveryState) -> esl_core::DeliveryId {
    let wait = async {
        loop {
            let all = client.deliveries(id).in_state(state).all().await.unwrap();
            if let Some(delivery) = all.first() {
                return delivery.id;
            }
            // Of a state that a client can only ask for nobody tells.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), wait).await.unwrap()
}

#[tokio::test]
async fn a_delivery_that_failed_is_sent_again() {
    let world = World::new().await;
    let client = &world.client;
    let receiver = Server::start(|_, number| match number {
        1 => scripted::json(500, &json!("not today")),
        _ => scripted::json(200, &json!(null)),
    })
    .await;
    let mut options = SubscriptionOptions::default();
    options.retry_schedule_ms = Some(Vec::new());
    options.on_exhausted = Some(OnExhausted::Pause);
    let new = NewSubscription::new(receiver.base() + "/hook", ["person.*"]).with_options(options);
    let id = client.subscribe(&new).await.unwrap().id;
    let published = client.publish(&event(&json!(1))).await.unwrap();
    assert_eq!(published.deliveries, 1);
    let exhausted = until(client, id, DeliveryState::Exhausted).await;

    let read = client.delivery(exhausted).await.unwrap();
    assert_eq!((read.delivery.event_id, read.delivery.subscription_id), (published.id, id));
    assert_eq!(read.delivery.last_error, Some(DeliveryError::Status));
    assert_eq!(read.delivery.last_status, Some(500));
    let [attempt] = &read.attempts_log[..] else { panic!("{read:?}") };
    assert_eq!((attempt.number, attempt.status, attempt.charged), (1, Some(500), true));
    assert_eq!(attempt.detail.as_deref(), Some("\"not today\""));
    assert!(attempt.timings.total_ms.is_some());
    let off = client.subscription(id).await.unwrap();
    assert_eq!(off.subscription.disabled_reason, Some(DisabledReason::Exhausted));
    assert_eq!(off.health.state, ReceiverState::Failing);

    assert_eq!(client.redeliver(exhausted).await.unwrap().state, DeliveryState::Held);
    client.resume(id).await.unwrap();
    assert_eq!(until(client, id, DeliveryState::Delivered).await, exhausted);
    let error = client.redeliver(exhausted).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Conflict);

    let ping = client.ping(id).await.unwrap();
    assert_eq!(client.delivery(ping.delivery_id).await.unwrap().delivery.event_id, ping.id);
}

#[tokio::test]
async fn a_replay_is_counted_begun_read_and_cancelled() {
    let world = World::new().await;
    let client = &world.client;
    for number in 0..3 {
        client.publish(&event(&json!(number))).await.unwrap();
    }
    let id = paused(client).await;
    let missing = NewReplay::of([ReplayOf::Missing]).from_seq(esl_core::Seq::new(2));
    assert_eq!(client.count_replay(id, &missing).await.unwrap(), 2);
    assert_eq!(client.count_replay(id, &NewReplay::default()).await.unwrap(), 0);
    let replay = client.replay(id, &missing).await.unwrap();
    assert_eq!((replay.subscription_id, replay.state), (id, ReplayState::Running));
    assert_eq!(
        (replay.of, replay.from_seq.get(), replay.to_seq.get()),
        (vec![ReplayOf::Missing], 2, 3)
    );
    assert_eq!(client.replay(id, &missing).await.unwrap_err().kind(), ClientErrorKind::Conflict);
    assert_eq!(client.replay_status(replay.id).await.unwrap().id, replay.id);
    assert_eq!(client.cancel_replay(replay.id).await.unwrap().state, ReplayState::Cancelled);
    assert_eq!(client.cancel_replay(replay.id).await.unwrap().state, ReplayState::Cancelled);
    let all = client.replays(id).all().await.unwrap();
    assert_eq!(all.iter().map(|it| it.id).collect::<Vec<_>>(), [replay.id]);
}

#[tokio::test]
async fn entities_are_made_read_changed_and_deleted() {
    let world = World::new().await;
    let client = &world.client;
    let mary = json!({ "name": "Mary" });
    let made: Value = client.request(Method::POST, "/api/authors", Some(&mary)).await.unwrap();
    let path = format!("/api/authors/{}", made["id"].as_str().unwrap());
    let answer = client.call(Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.json::<Value>().unwrap(), made);
    let version = answer.header("etag").unwrap();

    let patch = client.call(Method::PATCH, &path).header("if-match", version);
    let patch = patch.header("content-type", "application/merge-patch+json");
    let changed = patch.json(&json!({ "name": "Mary Shelley" })).send().await.unwrap();
    assert_eq!(changed.json::<Value>().unwrap()["name"], "Mary Shelley");
    let stale = client.call(Method::PUT, &path).header("if-match", version).json(&mary).send();
    assert_eq!(stale.await.unwrap_err().code(), Some("precondition_failed"));
    let replaced: Value = client.request(Method::PUT, &path, Some(&mary)).await.unwrap();
    assert_eq!(replaced["name"], "Mary");

    let found =
        client.list::<Value>("/api/authors").with("name", "Mary").with("sort", "-updated_at");
    assert_eq!(found.all().await.unwrap(), [replaced]);
    let nothing: Value = client.request(Method::DELETE, &path, None).await.unwrap();
    assert_eq!(nothing, Value::Null);
    let gone = client.request::<Value>(Method::GET, &path, None).await.unwrap_err();
    assert_eq!(gone.kind(), ClientErrorKind::NotFound);
}

#[tokio::test]
async fn who_asks_and_how_the_service_is() {
    let world = World::new().await;
    let organization = world.client.organization().await.unwrap();
    assert_eq!((organization.id, organization.name.as_str()), (world.organization, "Acme"));
    assert_eq!(organization.usage.subscriptions, 0);
    let anybody = Client::builder(&world.base).build().unwrap();
    assert!(anybody.health().await.unwrap().is_healthy());
    let readiness = anybody.readiness().await.unwrap();
    assert!(readiness.is_ready());
    assert_eq!((readiness.database.as_str(), readiness.role.as_str()), ("connected", "all"));
}

#[tokio::test]
async fn a_client_with_narrower_scopes_is_refused_the_rest() {
    let world = World::new().await;
    let scopes: Scopes = [Scope::Read].into_iter().collect();
    let reader = Client::builder(&world.base).with_credentials(&world.id, &world.secret);
    let reader = reader.with_scopes(scopes).build().unwrap();
    reader.events().all().await.unwrap();
    let error = reader.publish(&event(&json!(1))).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ClientErrorKind::Forbidden, Some("insufficient_scope"))
    );

    let wrong = Client::builder(&world.base).with_credentials(&world.id, "wrong").build().unwrap();
    let error = wrong.organization().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ClientErrorKind::Unauthorized, Some("invalid_client"))
    );
}
