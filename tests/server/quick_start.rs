//! SPEC.md's quick start and what follows it, by curl, with the documented bodies.

use esl_core::{Algorithm, Secret, Verifier};

use crate::support::{Behaviour, CLIENT, Folder, Receiver, SECRET, Server, WITH_CLIENT, curl};

async fn token(server: &Server) -> String {
    let form = format!("grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}");
    let answer = curl(&["-X", "POST", &server.url("/oauth/token"), "-d", &form]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let tokens = answer.json();
    assert!(tokens["refresh_token"].is_string(), "{tokens}");
    format!("Authorization: Bearer {}", tokens["access_token"].as_str().expect("a token"))
}

const JSON: &str = "Content-Type: application/json";

#[tokio::test]
async fn the_quick_start_works_as_documented() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;

    let health = curl(&[&server.url("/health")]).await;
    assert_eq!(health.status, 200);
    let mut body = health.body;
    if std::env::var_os("ESL_TEST_BROKER_URL").is_some() {
        // That of a broker is said, too.
        let (documented, broker) = body.split_once(r#","broker":"#).expect("it is the last");
        assert!([r#""away"}"#, r#""connected"}"#].contains(&broker), "{body}");
        body = format!("{documented}}}");
    }
    assert_eq!(body, r#"{"status":"healthy","version":"1.0.0"}"#);

    let token = token(&server).await;
    let body = r#"{
    "callback_url": "https://your-app.com/webhooks/sapien",
    "events": ["person.created"],
    "secret": "my-secret-123"
  }"#;
    let url = server.url("/api/v1/subscriptions");
    let created = curl(&["-X", "POST", &url, "-H", &token, "-H", JSON, "-d", body]).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(created.json()["id"].as_str().expect("an id").starts_with("sub_"), "{created:?}");
    assert!(!created.body.contains("my-secret-123"), "{created:?}");
    server.stop().await;
}

#[tokio::test]
async fn subscriptions_are_listed_updated_paused_and_deleted_with_the_documented_bodies() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let token = token(&server).await;
    let body = r#"{
    "callback_url": "https://your-app.com/webhooks/sapien",
    "events": ["person.created", "person.updated", "availability.changed"],
    "secret": "your-webhook-secret-for-signature-verification",
    "active": true
  }"#;
    let all = server.url("/api/v1/subscriptions");
    let created = curl(&["-X", "POST", &all, "-H", &token, "-H", JSON, "-d", body]).await.json();
    let id = created["id"].as_str().expect("an id");
    let one = format!("{all}/{id}");

    let listed = curl(&[&all, "-H", &token]).await;
    assert_eq!((listed.status, &listed.json()["data"][0]["id"]), (200, &created["id"]));

    let body =
        r#"{"events": ["person.created", "person.updated", "person.deleted"], "active": true}"#;
    let updated = curl(&["-X", "PATCH", &one, "-H", &token, "-H", JSON, "-d", body]).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    assert_eq!(updated.json()["events"][2], "person.deleted");

    let body = r#"{"active": false}"#;
    let paused = curl(&["-X", "PATCH", &one, "-H", &token, "-H", JSON, "-d", body]).await;
    assert_eq!((paused.status, &paused.json()["active"]), (200, &false.into()));

    let deleted = curl(&["-X", "DELETE", &one, "-H", &token]).await;
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_eq!(curl(&[&one, "-H", &token]).await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn a_published_person_updated_arrives_signed() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let token = token(&server).await;
    let body = format!(
        r#"{{"callback_url":"{}","events":["person.updated"],"secret":"my-secret-123"}}"#,
        receiver.url("/webhooks/sapien")
    );
    let url = server.url("/api/v1/subscriptions");
    let created = curl(&["-X", "POST", &url, "-H", &token, "-H", JSON, "-d", &body]).await;
    assert_eq!(created.status, 201, "{created:?}");

    let body = r#"{"type":"person.updated","data":{"id":"person_01H8XYZ","name":"John Doe"},
        "changes":{"name":{"old":"John Smith","new":"John Doe"}}}"#;
    let url = server.url("/api/v1/events");
    let published = curl(&["-X", "POST", &url, "-H", &token, "-H", JSON, "-d", body]).await;
    assert_eq!(published.status, 202, "{published:?}");
    assert_eq!(published.json()["deliveries"], 1);

    let request = receiver.first().await;
    assert_eq!(request.path, "/webhooks/sapien");
    let event = request.event();
    assert_eq!(event["id"], published.json()["id"]);
    assert_eq!(event["type"], "person.updated");
    assert_eq!(event["data"]["name"], "John Doe");
    assert_eq!(event["changes"]["name"]["old"], "John Smith");
    assert_eq!(request.header("x-sapien-event"), Some("person.updated"));

    let secret = || Secret::new("my-secret-123").expect("a secret");
    for verifier in
        [Verifier::sapien([secret()], Algorithm::Sha256), Verifier::standard([secret()])]
    {
        let header = |name: &str| request.header(name);
        verifier.verify_now(header, &request.body).expect("it is signed");
        let mut altered = request.body.to_vec();
        altered[0] ^= 1;
        verifier.verify_now(header, &altered).expect_err("one byte is another");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_private_callback_is_refused_and_the_refusal_names_the_way_out() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT[..1]).await;
    let token = token(&server).await;
    let url = server.url("/api/v1/subscriptions");
    for callback in ["http://127.0.0.1:9000/webhooks", "https://127.0.0.1/", "https://localhost/"] {
        let body = format!(r#"{{"callback_url":"{callback}","events":["person.created"]}}"#);
        let refused = curl(&["-X", "POST", &url, "-H", &token, "-H", JSON, "-d", &body]).await;
        assert_eq!(refused.status, 422, "{refused:?}");
        assert!(refused.body.contains("ESL_ALLOW_PRIVATE_CALLBACKS=true"), "{refused:?}");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/callback_url", "{refused:?}");
    }
    server.stop().await;
}
