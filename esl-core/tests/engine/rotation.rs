//! What receivers can verify while a secret is rotated.

use std::time::Duration;

use esl_core::{
    Algorithm, Secret, SecretChange, SubscriptionUpdate, Timestamp, Verifier, testing::Sighting,
};

use crate::world::{ORGANIZATION, World, run};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

/// Which of the two schemes a receiver with these secrets finds in order.
fn verifies(sent: &Sighting, secrets: &[&str], now: Timestamp) -> (bool, bool) {
    let secrets: Vec<Secret> = secrets.iter().map(|text| secret(text)).collect();
    let (header, body) = (|name: &str| sent.header(name), &sent.outbound.body);
    let standard = Verifier::standard(secrets.clone()).verify(header, body, now);
    let sapien = Verifier::sapien(secrets, Algorithm::Sha256).verify(header, body, now);
    (standard.is_ok(), sapien.is_ok())
}

async fn send(world: &World, number: u64) -> Sighting {
    let count = world.transport.sightings().len();
    world.publish("person.updated", number).await;
    world.until(|| async { (world.transport.sightings().len() > count).then_some(()) }).await;
    world.transport.sightings().pop().unwrap()
}

#[test]
fn during_the_grace_receivers_with_either_secret_verify() {
    run(|world| async move {
        let created = world.subscribe("a", "*").await;
        let old = created.secret.expose();
        let sent = send(&world, 0).await;
        assert_eq!(sent.header("x-sapien-signature-next"), None);

        let rotated =
            world.esl.rotate_secret(ORGANIZATION, created.id, Some(secret("new-one")), DAY);
        assert_eq!(rotated.await.unwrap().secret, secret("new-one"));
        let sent = send(&world, 1).await;
        let now = world.esl.now();
        // The documented header goes on with the old secret, and the new one stands beside it.
        assert_eq!(verifies(&sent, &[old], now), (true, true));
        assert_eq!(verifies(&sent, &["new-one", old], now), (true, true));
        assert_eq!(verifies(&sent, &["new-one"], now), (true, true));
        assert_eq!(verifies(&sent, &["another"], now), (false, false));

        world.clock.advance(DAY);
        let sent = send(&world, 2).await;
        let now = world.esl.now();
        assert_eq!(sent.header("x-sapien-signature-next"), None);
        assert_eq!(verifies(&sent, &["new-one"], now), (true, true));
        assert_eq!(verifies(&sent, &[old], now), (false, false));
    });
}

#[test]
fn a_finished_rotation_signs_with_the_new_secret_alone() {
    run(|world| async move {
        let created = world.subscribe("a", "*").await;
        let old = created.secret.expose();
        let rotated = world.esl.rotate_secret(ORGANIZATION, created.id, None, DAY).await.unwrap();
        let new = rotated.secret.expose();
        assert!(new.starts_with("whsec_") && new != old);
        let mut update = SubscriptionUpdate::default();
        update.secret = Some(SecretChange::Finish);
        world.esl.update_subscription(ORGANIZATION, created.id, update).await.unwrap();
        let sent = send(&world, 1).await;
        let now = world.esl.now();
        assert_eq!(verifies(&sent, &[new], now), (true, true));
        assert_eq!(verifies(&sent, &[old], now), (false, false));
    });
}
