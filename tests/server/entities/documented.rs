//! Each documented event comes of its documented trigger, to a webhook, and is as it is documented.

use std::{collections::HashMap, fs, time::Duration};

use esl_core::{Algorithm, CATALOGUE, Clock, Secret, SystemClock, Verifier};
use hyper::Method;
use serde_json::{Value, json};

use super::shape::shape;
use crate::support::{Api, Behaviour, Folder, Received, Receiver, WITH_CLIENT};

/// What triggers an event. Words in braces stand for the id of what an earlier one has made.
struct Trigger {
    event_type: &'static str,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    comes: Comes,
}

/// When an event comes of its trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// With the request.
    AtOnce,
    /// With one of many requests.
    Sometime,
    /// When the clock says so.
    ByTheClock,
}

/// One for each event of the catalogue, in the order in which they are tried.
const TRIGGERS: [Trigger; 17] = [
    on(
        "person.created",
        ("POST", "/api/persons"),
        r#"{"name": "John Smith", "email": "john.doe@example.com"}"#,
    ),
    on(
        "pet.created",
        ("POST", "/api/pets"),
        r#"{"name": "Buddy", "type": "cat", "owner_id": "{person}"}"#,
    ),
    on(
        "toy.created",
        ("POST", "/api/toys"),
        r#"{"name": "Ball", "type": "rubber", "pet_id": "{pet}"}"#,
    ),
    on(
        "pet.updated",
        ("PUT", "/api/pets/{pet}"),
        r#"{"name": "Buddy", "type": "dog", "owner_id": "{person}"}"#,
    ),
    on("person.updated", ("PATCH", "/api/persons/{person}"), r#"{"name": "John Doe"}"#),
    on("toy.updated", ("PATCH", "/api/toys/{toy}"), r#"{"type": "felt"}"#),
    on("toy.deleted", ("DELETE", "/api/toys/{toy}"), ""),
    on("pet.deleted", ("DELETE", "/api/pets/{pet}"), ""),
    on("person.deleted", ("DELETE", "/api/persons/{person}"), ""),
    on(
        "availability.profile.created",
        ("POST", "/api/availability/profiles"),
        r#"{"name": "Lunch", "status": "away", "reason": "At lunch", "duration_seconds": 1800}"#,
    ),
    on(
        "availability.profile.updated",
        ("PATCH", "/api/availability/profiles/{availability.profile}"),
        r#"{"duration_seconds": 3600}"#,
    ),
    on(
        "availability.profile.deleted",
        ("DELETE", "/api/availability/profiles/{availability.profile}"),
        "",
    ),
    on(
        "availability.changed",
        ("PUT", "/api/availability/users/user_1"),
        r#"{"status": "busy", "reason": "In a meeting", "effective_until": "2100-01-15T18:00:00Z"}"#,
    ),
    Trigger {
        comes: Comes::ByTheClock,
        ..on(
            "availability.schedule.triggered",
            ("POST", "/api/availability/schedules"),
            r#"{"user_id": "user_2", "cron": "* * * * *", "time_zone": "Europe/Berlin",
                "status": "away", "reason": "At lunch", "duration_seconds": 3600}"#,
        )
    },
    on(
        "system.maintenance.scheduled",
        ("POST", "/api/admin/maintenance"),
        r#"{"starts_at": "2100-01-01T00:00:00Z", "ends_at": "2100-01-01T01:00:00Z",
            "message": "The disks are exchanged."}"#,
    ),
    Trigger {
        comes: Comes::Sometime,
        ..on("system.rate_limit.warning", ("POST", "/api/toys"), r#"{"name": "Ball"}"#)
    },
    Trigger {
        comes: Comes::Sometime,
        ..on("system.rate_limit.exceeded", ("POST", "/api/toys"), r#"{"name": "Ball"}"#)
    },
];

const fn on(
    event_type: &'static str,
    (method, path): (&'static str, &'static str),
    body: &'static str,
) -> Trigger {
    Trigger { event_type, method, path, body, comes: Comes::AtOnce }
}

#[test]
fn there_is_a_trigger_for_each_event_of_the_catalogue() {
    let mut tried = TRIGGERS.map(|trigger| trigger.event_type);
    let mut documented: Vec<_> = CATALOGUE.iter().map(|entry| entry.event_type).collect();
    tried.sort_unstable();
    documented.sort_unstable();
    assert_eq!(&tried[..], documented);
}

/// One run of a server for all of it: a schedule fires within a minute, and that is waited for once.
#[tokio::test]
async fn each_documented_event_comes_of_its_trigger_signed_and_as_it_is_documented() {
    let folder = Folder::new();
    let few = [&WITH_CLIENT[..], &[("RATE_LIMIT_EVENTS_HOUR", "40")]].concat();
    let server = folder.start(&few).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&receiver.url("/webhooks/sapien"), &["*"]).await;

    begin(&api).await;
    let mut ids = HashMap::new();
    for trigger in &TRIGGERS {
        trigger.pull(&api, &mut ids).await;
    }
    // What comes by the clock, for a schedule or a time that has passed, comes in the user's name.
    let mut waiting = vec!["user_1", "user_2", "user_3"];
    let all_changed = |request: &Received| {
        let event = request.event();
        let (user, by) = (&event["data"]["user_id"], &event["metadata"]["triggered_by"]);
        if event["type"] == "availability.changed" && event["metadata"]["source"] == "schedule" {
            assert_eq!(by, user);
            waiting.retain(|waiting| user != waiting);
        }
        waiting.is_empty()
    };
    receiver.until("what changes by the clock", all_changed).await;
    let mut missing = api.all("/api/v1/events").await;
    let all_came = |request: &Received| {
        let event = request.event();
        missing.retain(|one| one["id"] != event["id"]);
        missing.is_empty()
    };
    receiver.until("all that was published", all_came).await;

    let sent: Vec<Value> = receiver.so_far().iter().map(verified).collect();
    for Trigger { event_type, .. } in TRIGGERS {
        assert!(sent.iter().any(|event| event["type"] == event_type), "{event_type} did not come");
    }
    let sent: Vec<String> = sent.iter().map(shape_of_event).collect();
    for example in examples() {
        let example = shape_of_event(&example);
        let sent = sent.join("\n");
        assert!(sent.lines().any(|sent| sent == example), "{example}\nis not one of\n{sent}");
    }
    server.stop().await;
}

/// What is told by the clock, beside the triggers: a user who was available before a schedule that takes all from a
/// profile, and one whose status goes back.
async fn begin(api: &Api) {
    let put = async |user: &str, status: Value| {
        let (code, answer) = api.put(&format!("/api/availability/users/{user}"), &status).await;
        assert_eq!(code, 201, "{answer}");
    };
    let meeting = json!({
        "name": "Meeting",
        "status": "busy",
        "reason": "In meeting",
        "duration_seconds": 3600,
    });
    let profile = api.create("/api/availability/profiles", &meeting).await;
    let schedule = json!({
        "user_id": "user_1",
        "cron": "* * * * *",
        "time_zone": "UTC",
        "profile_id": profile,
    });
    api.create("/api/availability/schedules", &schedule).await;
    put("user_1", json!({ "status": "available" })).await;
    let soon = SystemClock::new().utc() + Duration::from_secs(2);
    put("user_3", json!({ "status": "busy", "effective_until": soon })).await;
}

impl Trigger {
    async fn pull(&self, api: &Api, ids: &mut HashMap<String, String>) {
        let with_ids = |text: &str| {
            let replace = |text: String, (name, id): (&String, &String)| {
                text.replace(&format!("{{{name}}}"), id)
            };
            ids.iter().fold(text.to_owned(), replace)
        };
        let (path, body) = (with_ids(self.path), with_ids(self.body));
        let body: Option<Value> =
            (!body.is_empty()).then(|| serde_json::from_str(&body).expect("JSON"));
        let method: Method = self.method.parse().expect("a method");
        loop {
            let answer = api.ask(method.clone(), &path, &[], body.as_ref()).await;
            let (head, answer) = answer.expect("the server runs");
            // A schedule that fires may be what reaches a limit.
            let may_fail = self.comes == Comes::Sometime && head.status == 429;
            assert!(head.status.is_success() || may_fail, "{}: {answer}", self.event_type);
            let (_, list) = api.get(&format!("/api/v1/events?type={}", self.event_type)).await;
            let newest = &list["data"][0]["envelope"];
            match self.comes {
                Comes::AtOnce => {
                    let request = head.headers["x-request-id"].to_str().expect("an id");
                    assert_eq!(newest["metadata"]["correlation_id"], request, "{list}");
                    if let Some(name) = self.event_type.strip_suffix(".created") {
                        let id = answer["id"].as_str().expect("an id").to_owned();
                        ids.insert(name.to_owned(), id);
                    }
                    return;
                }
                Comes::Sometime if newest.is_null() => {}
                Comes::Sometime | Comes::ByTheClock => return,
            }
        }
    }
}

/// The event of a request that is signed, in the documented envelope.
fn verified(request: &Received) -> Value {
    let secret = Secret::new("my-secret-123").expect("a secret");
    let verifier = Verifier::sapien([secret], Algorithm::Sha256);
    verifier.verify_now(|name| request.header(name), &request.body).expect("it is signed");
    let event = request.event();
    assert_eq!(request.header("x-sapien-event"), event["type"].as_str());
    let mut envelope: Value = serde_json::from_str(ENVELOPE).expect("JSON");
    assert_eq!(event["version"], envelope["version"]);
    let mut bare = event.clone();
    bare["data"] = json!({});
    // Updates have one member more, where SPEC.md's example of a person has it.
    let names: Vec<_> = event.as_object().expect("an object").keys().collect();
    if let Some(changes) = bare.as_object_mut().expect("an object").shift_remove("changes") {
        assert_eq!(names[5..], ["data", "changes", "metadata"], "{event}");
        let changes = changes.as_object().expect("an object");
        let is_change =
            |change: &Value| change.as_object().is_some_and(|it| it.keys().eq(["old", "new"]));
        assert!(!changes.is_empty() && changes.values().all(is_change), "{event}");
    }
    if event["metadata"]["source"] != "api" {
        // Then it is another id than that of a request, and of somebody else than a client.
        for name in ["correlation_id", "triggered_by"] {
            assert!(event["metadata"][name].is_string(), "{event}");
            envelope["metadata"][name] = event["metadata"][name].clone();
        }
    }
    assert_eq!(shape(&bare), shape(&envelope));
    event
}

/// The shape of an event, of that type and source.
fn shape_of_event(event: &Value) -> String {
    let (event_type, source) = (&event["type"], &event["metadata"]["source"]);
    format!("{event_type} from {source}: {}", shape(event))
}

/// The examples of SPEC.md, and of the documents on events.
fn examples() -> Vec<Value> {
    let mut examples: Vec<Value> = [PERSON_UPDATED, AVAILABILITY_CHANGED]
        .map(|example| serde_json::from_str(example).expect("JSON"))
        .to_vec();
    for page in fs::read_dir("../docs/events").expect("the documents are there") {
        let page = page.expect("it can be read").path();
        let text = fs::read_to_string(&page).expect("it can be read");
        for example in text.split("<!-- event: ").skip(1) {
            let (name, rest) = example.split_once(" -->\n```json\n").expect("an example of it");
            let (example, _) = rest.split_once("```").expect("its end");
            let example: Value = serde_json::from_str(example).expect("JSON");
            assert_eq!(example["type"], name, "{}", page.display());
            examples.push(example);
        }
    }
    examples
}

/// "Standard Event Envelope" in SPEC.md.
const ENVELOPE: &str = r#"{
  "id": "evt_01HM6QTXJ0XKGH8V6V5J3W2Q9R",
  "type": "person.updated",
  "version": "1.0",
  "timestamp": "2024-01-15T14:32:00.000Z",
  "organization_id": "org_01HM6QS9B4R3M8Z0Y1X2W5V6T7",
  "data": {},
  "metadata": {
    "correlation_id": "req_01HM6QTXJ0A1B2C3D4E5F6G7H8",
    "triggered_by": "shop",
    "source": "api"
  }
}"#;

/// "Person Entity Payload" in SPEC.md.
const PERSON_UPDATED: &str = r#"{
  "id": "evt_01HM6QTXJ0XKGH8V6V5J3W2Q9R",
  "type": "person.updated",
  "version": "1.0",
  "timestamp": "2024-01-15T14:32:00.000Z",
  "organization_id": "org_01HM6QS9B4R3M8Z0Y1X2W5V6T7",
  "data": {
    "id": "person_01HK153X00W3Y5A7C9E1G3J5M7",
    "name": "John Doe",
    "email": "john.doe@example.com",
    "status": "active",
    "created_at": "2024-01-01T00:00:00.000Z",
    "updated_at": "2024-01-15T14:32:00.000Z",
    "pets": [
      {
        "id": "pet_01HK153X00P2R4T6W8Y0A2C4E6",
        "name": "Buddy",
        "type": "dog"
      }
    ]
  },
  "changes": {
    "name": {
      "old": "John Smith",
      "new": "John Doe"
    }
  },
  "metadata": {
    "correlation_id": "req_01HM6QTXJ0A1B2C3D4E5F6G7H8",
    "triggered_by": "shop",
    "source": "api"
  }
}"#;

/// "Availability Changed Payload" in SPEC.md.
const AVAILABILITY_CHANGED: &str = r#"{
  "id": "evt_01HM6RJMR07C2N5V8X1Z4Q6T9W",
  "type": "availability.changed",
  "version": "1.0",
  "timestamp": "2024-01-15T14:32:00.000Z",
  "organization_id": "org_01HM6QS9B4R3M8Z0Y1X2W5V6T7",
  "data": {
    "user_id": "user_1",
    "previous_status": "available",
    "current_status": "busy",
    "profile_id": "profile_01HKM4SPM0V2X4Z6A8C0E2G4J6",
    "effective_until": "2024-01-15T18:00:00.000Z",
    "reason": "In meeting"
  },
  "metadata": {
    "correlation_id": "req_01HM6CEF2PA1B2C3D4E5F6G7H8",
    "triggered_by": "user_1",
    "source": "schedule"
  }
}"#;
