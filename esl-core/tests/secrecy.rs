//! No `Debug` shows a secret: what is shown ends in logs.

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use esl_core::{
    Algorithm, CallbackUrl, Client, CustomHeaders, Digest, EncryptionKey, Keyring, LinkKey,
    NewSubscription, OrganizationId, Outbound, Scopes, Secret, SecretChange, Signer, Subscription,
    SubscriptionId, SubscriptionOptions, SubscriptionUpdate, Timestamp, Verifier,
    storage::{LaneState, Taken},
};

const SECRET: &str = "signs-with-this";
const NEXT: &str = "signs-with-this-from-now-on";
const CREDENTIAL: &str = "Bearer of-a-gateway";
const KEY: [u8; 32] = *b"thirty-two bytes that are a key!";

#[test]
fn no_debug_shows_a_secret() {
    let secret = || Secret::new(SECRET).unwrap();
    let headers = CustomHeaders::new([("authorization", CREDENTIAL)]).unwrap();
    let options = SubscriptionOptions::default().with_headers(headers.clone());
    let url = CallbackUrl::from_stored("https://receiver.example/");
    let new = NewSubscription::new(url.clone(), vec!["*".parse().unwrap()])
        .with_secret(secret())
        .with_options(options.clone());
    let organization = OrganizationId::from_bytes([1; 16]);
    let id = SubscriptionId::from_bytes([2; 16]);
    let now = Timestamp::EPOCH;
    let mut update = SubscriptionUpdate::default();
    let to = Secret::new(NEXT).unwrap();
    update.secret = Some(SecretChange::Rotate { to, grace: Duration::from_secs(60) });
    update.options.headers = Some(headers.clone());
    let subscription = Subscription::new(id, organization, new.clone(), secret(), now);
    let subscription = subscription.with_update(update.clone(), now).unwrap();
    let outbound = Outbound {
        url,
        headers: vec![("authorization".into(), CREDENTIAL.into())],
        body: Bytes::new(),
        timeout: Duration::ZERO,
        fresh: false,
    };
    let client = Client {
        id: "shop".into(),
        organization,
        secret: Digest::of(SECRET.as_bytes()),
        scopes: Scopes::all(),
        created_at: now,
    };
    let taken =
        Taken { subscription: subscription.clone(), state: LaneState::default(), plan: None };
    let all: [&dyn Debug; 15] = [
        &secret(),
        &headers,
        &options,
        &new,
        &update,
        &subscription,
        &taken,
        &outbound,
        &client,
        &Signer::new(&secret(), Algorithm::Sha256),
        &Verifier::standard([secret()]),
        &Verifier::sapien([secret()], Algorithm::Sha256),
        &EncryptionKey::from_bytes(&KEY),
        &Keyring::new([EncryptionKey::from_bytes(&KEY)]).unwrap(),
        &LinkKey::from_bytes(KEY),
    ];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for value in all {
        for shown in [format!("{value:?}"), format!("{value:#?}")] {
            for secret in [SECRET.as_bytes(), NEXT.as_bytes(), CREDENTIAL.as_bytes(), &KEY] {
                let text = String::from_utf8(secret.to_vec()).unwrap();
                let bytes = format!("{secret:?}");
                let is_shown = [&*text, bytes.trim_matches(['[', ']']), &*hex(secret)]
                    .iter()
                    .any(|spelling| shown.contains(spelling));
                assert!(!is_shown, "{shown}");
            }
        }
    }
}
