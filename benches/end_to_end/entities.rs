//! Entity writes beside plain publishes: each is an event of the same data, by the same API, over the same
//! connections, to the same receiver.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use esl::{Entities, EntityKind, Esl, Kinds, OnDelete};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    Settings,
    load::Load,
    median,
    receiver::Receiver,
    service::{ORGANIZATION, Service, all, new_storage},
    table,
};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("entities");
    std::fs::create_dir(&folder)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let receiver = Receiver::start().await?;
        let storage = new_storage(&folder).await?;
        let service = Service::serve(Esl::builder(storage).kinds(kinds()?)).await?;
        service.subscribe(&receiver).await?;
        let persons = service.esl.entities("person")?;
        let renamed = renamed(&service, &persons, settings.connections).await?;
        let publish = service.request("POST", "/api/v1/events", PUBLISHED, b"HTTP/1.1 202");
        let create = service.request("POST", "/api/persons", PERSON, b"HTTP/1.1 201");

        let mut sent = settings.connections;
        let mut rates = [vec![], vec![], vec![]];
        let mut ratios = [vec![], vec![]];
        for _ in 0..ROUNDS {
            let began = Instant::now();
            publish.run(settings.round, settings.connections).await?;
            let published = finish(&service, &receiver, (&mut sent, settings.round), began).await;
            let began = Instant::now();
            create.run(settings.round, settings.connections).await?;
            let created = finish(&service, &receiver, (&mut sent, settings.round), began).await;
            let began = Instant::now();
            rename(&renamed, settings.round).await?;
            let updated = finish(&service, &receiver, (&mut sent, settings.round), began).await;
            for (rates, rate) in rates.iter_mut().zip([published, created, updated]) {
                rates.push(rate);
            }
            ratios[0].push(created / published);
            ratios[1].push(updated / published);
        }
        let [published, created, updated] = rates.map(|mut rates| median(&mut rates));
        println!(
            "entities: {published:.0} publishes/s, {created:.0} persons created/s, \
             {updated:.0} updated/s; medians of {ROUNDS} rounds"
        );
        for (what, mut ratios) in ["created", "updated"].into_iter().zip(ratios) {
            let ratio = median(&mut ratios);
            table::row(
                &format!("persons {what} to delivery, of the rate of plain publishes"),
                &format!("{ratio:.2} ({:.2}–{:.2})", ratios[0], ratios[ROUNDS - 1]),
                "≥ 0.6",
                ratio >= 0.6,
            );
        }
        service.esl.shutdown().await;
        anyhow::ensure!(receiver.count() == sent, "each event came once");
        Ok(())
    })
}

/// Waits until all of a round has come and is settled, and says how many a second that was.
async fn finish(
    service: &Service,
    receiver: &Receiver,
    (sent, round): (&mut usize, usize),
    began: Instant,
) -> f64 {
    *sent += round;
    receiver.wait_for(*sent).await;
    service.wait_until_settled().await;
    round as f64 / began.elapsed().as_secs_f64()
}

/// A person, and the two requests that change its name to and fro.
#[derive(Debug, Clone)]
struct Renamed {
    requests: [Load; 2],
    /// How often it was renamed.
    times: Arc<AtomicUsize>,
}

/// One for each connection.
async fn renamed(
    service: &Service,
    persons: &Entities,
    connections: usize,
) -> anyhow::Result<Vec<Renamed>> {
    let mut renamed = Vec::new();
    for _ in 0..connections {
        let person: serde_json::Value = serde_json::from_str(PERSON)?;
        let written = persons.create(ORGANIZATION, person).await?;
        let path = format!("/api/persons/{}", written.shown.entity.id());
        let requests = ["Jane Doe", "John Doe"].map(|name| {
            let body = json!({ "name": name }).to_string();
            service.request("PATCH", &path, &body, b"HTTP/1.1 200")
        });
        renamed.push(Renamed { requests, times: Arc::default() });
    }
    Ok(renamed)
}

/// Renames so often in all, each person over a connection of its own.
async fn rename(persons: &[Renamed], count: usize) -> anyhow::Result<()> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut tasks = JoinSet::new();
    for person in persons {
        let (person, left) = (person.clone(), Arc::clone(&left));
        tasks.spawn(async move {
            let mut connection = person.requests[0].connect().await?;
            let mut answer = Vec::with_capacity(4096);
            let take = |left: usize| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                // One that changed nothing would not be a write.
                let turn = person.times.fetch_add(1, Ordering::Relaxed) % 2;
                person.requests[turn].send(&mut connection, &mut answer).await?;
            }
            anyhow::Ok(())
        });
    }
    all(tasks).await
}

/// As the server has them.
fn kinds() -> anyhow::Result<Kinds> {
    let text = |default: &str| json!({ "type": ["string", "null"], "default": default });
    let person = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 200 },
            "email": { "type": ["string", "null"], "format": "email", "default": null },
            "status": { "type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$", "default": "active" }
        },
        "required": ["name"],
        "additionalProperties": false
    });
    let pet = json!({
        "type": "object",
        "properties": { "name": text("Buddy"), "type": text("dog"), "owner_id": text("") }
    });
    let person = EntityKind::new("person", "persons", person)?
        .indexed("name")
        .indexed("email")
        .indexed("status")
        .embeds("pets", "pet", "owner_id", &["id", "name", "type"]);
    let pet = EntityKind::new("pet", "pets", pet)?.refers("owner_id", "person", OnDelete::Clear);
    Ok(Kinds::new([person, pet])?)
}

const PERSON: &str = r#"{"name":"John Doe","email":"john.doe@example.com"}"#;
/// What a person that was created says.
const PUBLISHED: &str = r#"{"type":"person.created","data":{"id":"person_01J00000000000000000000000","name":"John Doe","email":"john.doe@example.com","status":"active","created_at":"2024-01-01T00:00:00.000Z","updated_at":"2024-01-15T14:32:00.000Z","pets":[]}}"#;

const ROUNDS: usize = 5;
