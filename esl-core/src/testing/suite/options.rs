//! What a subscription says of how to send, and the rotation of its secret.

use std::{num::NonZeroU32, time::Duration};

use super::{
    BY,
    world::{SECOND, WORKS, World, kind},
};
use crate::{
    CustomHeaders, OnExhausted, OptionsUpdate, RetiringSecret, Secret, SecretChange, SendOrder,
    Subscription, SubscriptionOptions, SubscriptionUpdate, Tiers, storage::StorageErrorKind,
};

pub(super) async fn options_are_read_as_they_were_written(world: World) {
    let organization = world.organization().await;
    for options in [every_option(), no_retries()] {
        let draft = Subscription { options, ..world.draft(organization, "*") };
        let created = world
            .storage
            .create_subscription(draft.clone(), &Tiers::default(), BY)
            .await
            .expect(WORKS);
        assert_eq!(created, Subscription { lane: created.lane, ..draft });
        let read = world.storage.subscription(organization, created.id).await.expect(WORKS);
        assert_eq!(read.as_ref(), Some(&created));
        let worker = world.worker_of(&[]).await;
        assert_eq!(world.take(&worker, &[created.lane]).await[0].subscription, created);
        world.storage.resign(&worker).await.expect(WORKS);
    }
}

pub(super) async fn an_update_changes_the_options_that_it_names(world: World) {
    let organization = world.organization().await;
    let draft = Subscription { options: every_option(), ..world.draft(organization, "*") };
    let created =
        world.storage.create_subscription(draft, &Tiers::default(), BY).await.expect(WORKS);
    let set = async |options| {
        let update = SubscriptionUpdate { options, ..SubscriptionUpdate::default() };
        let updated = world.storage.update_subscription(organization, created.id, update, BY).await;
        let updated = updated.expect(WORKS);
        let read = world.storage.subscription(organization, created.id).await.expect(WORKS);
        assert_eq!(read.as_ref(), Some(&updated));
        updated.options
    };
    assert_eq!(set(OptionsUpdate::default()).await, every_option());
    let some = OptionsUpdate {
        description: Some(Some("other".into())),
        timeout: Some(None),
        order: Some(SendOrder::Parallel),
        ..OptionsUpdate::default()
    };
    let mut expected = every_option();
    expected.description = Some("other".into());
    expected.timeout = None;
    expected.order = SendOrder::Parallel;
    assert_eq!(set(some).await, expected);
    let none = OptionsUpdate {
        description: Some(None),
        metadata: Some(None),
        headers: Some(CustomHeaders::default()),
        retry_schedule: Some(None),
        max_per_second: Some(None),
        max_in_flight: Some(None),
        on_exhausted: Some(OnExhausted::Skip),
        ..OptionsUpdate::default()
    };
    assert_eq!(set(none).await, SubscriptionOptions::default());
}

pub(super) async fn a_rotation_keeps_the_old_secret_for_its_grace(world: World) {
    let organization = world.organization().await;
    let created = world.subscription(organization).await;
    let change = async |secret| {
        let update = SubscriptionUpdate { secret: Some(secret), ..SubscriptionUpdate::default() };
        world.storage.update_subscription(organization, created.id, update, BY).await
    };
    let rotate = |text: &str, grace| SecretChange::Rotate { to: secret(text), grace };
    let rotated = change(rotate("second", SECOND * 60)).await.expect(WORKS);
    assert_eq!(rotated.secret, secret("second"));
    let retiring =
        RetiringSecret { secret: created.secret.clone(), until: world.now() + SECOND * 60 };
    assert_eq!(rotated.retiring, Some(retiring));

    // A third secret has to wait for the end of the grace, or for its being ended.
    let again = change(rotate("third", SECOND)).await;
    assert_eq!(kind(again), StorageErrorKind::Conflict);
    let finished = change(SecretChange::Finish).await.expect(WORKS);
    assert_eq!((finished.secret, finished.retiring), (secret("second"), None));
    assert_eq!(change(SecretChange::Finish).await.expect(WORKS).retiring, None);

    change(rotate("third", Duration::MAX)).await.expect(WORKS);
    world.clock.advance(SecretChange::GRACE_MAX);
    let at_once = change(rotate("fourth", Duration::ZERO)).await.expect(WORKS);
    assert_eq!((at_once.secret, at_once.retiring), (secret("fourth"), None));
    let read = world.storage.subscription(organization, created.id).await.expect(WORKS);
    assert_eq!(read.expect("it is there").secret, secret("fourth"));
}

pub(super) async fn a_sweep_forgets_secrets_whose_grace_is_over(world: World) {
    let organization = world.organization().await;
    let created = world.subscription(organization).await;
    let to = secret("second");
    let update = SubscriptionUpdate {
        secret: Some(SecretChange::Rotate { to, grace: SECOND * 10 }),
        ..SubscriptionUpdate::default()
    };
    world.storage.update_subscription(organization, created.id, update, BY).await.expect(WORKS);
    let worker = world.worker_of(&[]).await;
    for is_kept in [true, false] {
        world.storage.sweep(&worker, 100).await.expect(WORKS);
        let read = world.storage.subscription(organization, created.id).await.expect(WORKS);
        assert_eq!(read.expect("it is there").retiring.is_some(), is_kept);
        world.clock.advance(SECOND * 10);
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("a secret")
}

fn every_option() -> SubscriptionOptions {
    let headers = [("X-Api-Key", "k: 1"), ("x-b", "\"b\"")];
    SubscriptionOptions::default()
        .with_description("what it is for\nin two lines")
        .with_metadata(r#"{"team":7, "b": [1.50]}"#.parse().expect("an object"))
        .with_headers(CustomHeaders::new(headers).expect("headers"))
        .with_retry_schedule([5, 300_000, 3_600_000].map(Duration::from_millis).to_vec())
        .with_timeout(Duration::from_millis(1500))
        .with_max_per_second(NonZeroU32::MAX)
        .with_max_in_flight(NonZeroU32::MIN)
        .with_order(SendOrder::Strict)
        .with_on_exhausted(OnExhausted::Pause)
}

/// An empty schedule is not the same as none.
fn no_retries() -> SubscriptionOptions {
    SubscriptionOptions::default().with_retry_schedule(Vec::new())
}
