//! Secrets that are encrypted in the database.

use serde_json::json;

use crate::support::{Api, Behaviour, Ended, Folder, Receiver, WITH_CLIENT};

const OLD_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW_KEY: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const CREDENTIAL: &str = "Bearer the-gateways-own-token";

fn with_key(key: &str) -> [(&str, &str); 3] {
    let [client, callbacks] = WITH_CLIENT;
    [client, callbacks, ("ESL_ENCRYPTION_KEY", key)]
}

/// Whether a receiver gets an event with the signature and the header that it should have.
async fn delivers(api: &Api, receiver: &Receiver, count: usize) {
    api.publish("person.updated", json!(count)).await;
    let all = receiver.first_of(count).await;
    let last = all.last().expect("one");
    assert_eq!(last.headers["authorization"], CREDENTIAL);
    let body = std::str::from_utf8(&last.body).expect("JSON");
    let signature = last.headers["x-sapien-signature"].to_str().expect("hex");
    let secret = esl_core::Secret::new("my-secret-123").expect("a secret");
    let signer = esl_core::Signer::new(&secret, esl_core::Algorithm::Sha256);
    assert_eq!(signer.sapien(body.as_bytes()), signature);
}

async fn subscribe(api: &Api, receiver: &Receiver) -> String {
    let options = json!({ "secret": "my-secret-123", "headers": { "Authorization": CREDENTIAL } });
    api.subscribe_with(&receiver.url("/"), options).await
}

#[tokio::test]
async fn a_start_and_every_command_need_the_key() {
    let folder = Folder::new();
    let old = with_key(OLD_KEY);
    let server = folder.start(&old).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    subscribe(&Api::new(&server.base).await, &receiver).await;
    server.stop().await;

    let wrong = with_key(NEW_KEY);
    for (variables, said) in [
        (&WITH_CLIENT[..], "and ESL_ENCRYPTION_KEY is not set: the key with the id "),
        (&wrong, "and ESL_ENCRYPTION_KEY does not have it: the key with the id "),
    ] {
        for command in
            [&["serve"][..], &["check"], &["org", "list"], &["client", "list", "--org", "shop"]]
        {
            let ended = folder.run(command, variables).await;
            assert_eq!(ended.code, Some(1), "{command:?}: {ended:?}");
            let output = format!("{}{}", ended.stdout, ended.stderr);
            assert!(output.contains(said), "{command:?}: {output}");
            assert!(!output.contains(OLD_KEY) && !output.contains(NEW_KEY), "{output}");
        }
    }
    let server = folder.start(&old).await;
    let checked = folder.run(&["check"], &old).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("secrets are encrypted with the key"), "{checked:?}");
    delivers(&Api::new(&server.base).await, &receiver, 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_backup_needs_no_key() {
    let folder = Folder::new();
    folder.start(&with_key(OLD_KEY)).await.stop().await;
    let backup = folder.run(&["backup", "copy.db"], &[]).await;
    assert_eq!(backup.code, Some(0), "{backup:?}");
}

#[tokio::test]
async fn with_a_key_no_secret_is_stored_in_plain_text() {
    let folder = Folder::new();
    let server = folder.start(&with_key(OLD_KEY)).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let api = Api::new(&server.base).await;
    subscribe(&api, &receiver).await;
    delivers(&api, &receiver, 1).await;
    for secret in ["my-secret-123", CREDENTIAL] {
        assert!(!folder.holds(secret.as_bytes()).await, "{secret}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_value_that_is_no_key_stops_the_start_and_is_not_shown() {
    let folder = Folder::new();
    let one_short = &OLD_KEY[4..];
    for wrong in ["hunter2", one_short, &format!("{NEW_KEY},{one_short}")] {
        for command in ["serve", "check"] {
            let ended = folder.run(&[command], &[("ESL_ENCRYPTION_KEY", wrong)]).await;
            assert_eq!(ended.code, Some(2), "{ended:?}");
            let expected = "ESL_ENCRYPTION_KEY is `(hidden)`: expected keys of 32 random bytes";
            assert!(ended.stderr.contains(expected), "{}", ended.stderr);
            assert!(ended.stderr.contains("openssl rand -base64 32"), "{}", ended.stderr);
            assert!(!ended.stderr.contains(wrong), "{}", ended.stderr);
        }
    }
    assert!(!folder.database().exists());
}

#[tokio::test]
async fn secrets_are_re_encrypted_beside_a_running_server() {
    let folder = Folder::new();
    let reencrypt = async |variables: &[(&str, &str)]| {
        folder.run(&["secrets", "reencrypt", "--json"], variables).await
    };
    let is_there = async |secret: &str| folder.holds(secret.as_bytes()).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let server = folder.start(&WITH_CLIENT).await;
    subscribe(&Api::new(&server.base).await, &receiver).await;
    assert!(is_there("my-secret-123").await && is_there(CREDENTIAL).await);

    // The server has to be able to read what is written.
    let old = with_key(OLD_KEY);
    let keyless = reencrypt(&WITH_CLIENT).await;
    assert_eq!(keyless.code, Some(1), "{keyless:?}");
    assert!(keyless.stderr.contains("ESL_ENCRYPTION_KEY is not set"), "{keyless:?}");
    let refused = reencrypt(&old).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("restart it with this ESL_ENCRYPTION_KEY"), "{refused:?}");
    server.stop().await;

    let server = folder.start(&old).await;
    let api = Api::new(&server.base).await;
    delivers(&api, &receiver, 1).await;
    assert!(is_there("my-secret-123").await, "what is plain is read as it is");
    let counted = async |said: &str| {
        let checked = folder.run(&["check"], &old).await;
        assert!(checked.stdout.contains(said), "{checked:?}");
    };
    counted("2 secrets are in plain text or encrypted with another key than the key ").await;
    let said = json_of(&reencrypt(&old).await);
    assert_eq!((&said["subscriptions"], &said["damaged"]), (&json!(1), &json!(0)));
    assert!(!is_there("my-secret-123").await && !is_there(CREDENTIAL).await);
    counted("secrets are encrypted with the key ").await;
    delivers(&api, &receiver, 2).await;
    server.stop().await;

    // The key is changed; the server, which has both from here on, is asked at each step.
    let both = format!("{NEW_KEY},{OLD_KEY}");
    let both = with_key(&both);
    let server = folder.start(&both).await;
    let api = Api::new(&server.base).await;
    delivers(&api, &receiver, 3).await;
    let said = json_of(&reencrypt(&both).await);
    assert_eq!((&said["subscriptions"], &said["link_keys"]), (&json!(1), &json!(1)));
    assert_eq!(said["keys_unused"].as_array().map(Vec::len), Some(1), "{said}");
    assert_eq!(said["keys_in_use"].as_array().map(Vec::len), Some(1), "{said}");
    delivers(&api, &receiver, 4).await;
    let again = folder.run(&["secrets", "reencrypt"], &both).await;
    let text = "used by nothing any more; take it out of ESL_ENCRYPTION_KEY";
    assert!(again.stdout.contains(text), "{again:?}");
    server.stop().await;

    let new = with_key(NEW_KEY);
    let server = folder.start(&new).await;
    delivers(&Api::new(&server.base).await, &receiver, 5).await;
    server.stop().await;
    let plain = folder.run(&["secrets", "reencrypt", "--plain"], &new).await;
    assert!(plain.stdout.contains("unset ESL_ENCRYPTION_KEY"), "{plain:?}");
    let server = folder.start(&WITH_CLIENT).await;
    delivers(&Api::new(&server.base).await, &receiver, 6).await;
    server.stop().await;
}

fn json_of(ended: &Ended) -> serde_json::Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}
