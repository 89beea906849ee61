//! The parts of an event's way, one by one: `cargo bench --bench parts`

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use esl::{
    Actor, Algorithm, CallbackPolicy, CallbackUrl, Esl, EventId, EventPattern, EventType, LaneId,
    MemoryStorage, NewEvent, NewSubscription, Organization, OrganizationId, Secret, Signer,
    SqliteStorage, Timestamp, Verifier, seal,
    storage::{Commit, Publish, RouteVersion, Routed, Tenancy, Unit},
};

const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([7; 16]);
const NOW: Timestamp = Timestamp::from_millis(1_705_329_120_000);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn event() -> NewEvent {
    let data = serde_json::json!({ "id": "person_1", "text": "x".repeat(450) });
    NewEvent::new(ORGANIZATION, "person.updated".parse().expect("a type"), &data).expect("JSON")
}

fn id(number: u64) -> EventId {
    let mut bytes = [1; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    EventId::from_bytes(bytes)
}

fn sealing(c: &mut Criterion) {
    let event = event();
    c.bench_function("seal", |b| b.iter(|| seal(black_box(&event), id(1), NOW)));
}

fn signing(c: &mut Criterion) {
    let secret = Secret::new("your-webhook-secret-for-signature-verification").expect("a secret");
    let signer = Signer::new(&secret, Algorithm::Sha256);
    let body = seal(&event(), id(1), NOW).body;
    let name = id(1).to_string();
    c.bench_function("sign, both schemes", |b| {
        b.iter(|| (signer.sapien(&body), signer.standard(&name, NOW.as_seconds(), &body)));
    });
    let signature = signer.standard(&name, NOW.as_seconds(), &body);
    let seconds = NOW.as_seconds().to_string();
    let headers = |header: &str| match header {
        "webhook-id" => Some(&*name),
        "webhook-timestamp" => Some(&*seconds),
        "webhook-signature" => Some(&*signature),
        _ => None,
    };
    let verifier = Verifier::standard([secret]);
    c.bench_function("verify", |b| {
        b.iter(|| verifier.verify(headers, &body, NOW).expect("genuine"));
    });
}

fn matching(c: &mut Criterion) {
    let patterns: Vec<EventPattern> =
        ["pet.*", "person.created", "*", "availability.profile.*", "person.updated"]
            .map(|text| text.parse().expect(text))
            .into();
    let event_type: EventType = "person.updated".parse().expect("a type");
    c.bench_function("match five patterns", |b| {
        b.iter(|| patterns.iter().filter(|one| one.matches(black_box(&event_type))).count());
    });
}

/// A publish into memory, in an organization where ten thousand others subscribed to other things.
fn routing(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let esl = runtime.block_on(async {
        let storage = MemoryStorage::new();
        let organization = Organization::new(ORGANIZATION, "acme", NOW);
        storage
            .create_organization(organization, &Actor::APPLICATION)
            .await
            .expect("a new organization");
        let esl = Esl::builder(storage).build().await.expect("an engine");
        let url = "https://example.com/webhooks";
        let url = CallbackUrl::parse(url, &CallbackPolicy::public()).expect("a URL");
        for number in 0..10_000 {
            let pattern = format!("kind{number}.*").parse().expect("a pattern");
            let new = NewSubscription::new(url.clone(), vec![pattern]);
            esl.subscribe(ORGANIZATION, new).await.expect("subscribed");
        }
        esl
    });
    c.bench_function("route among 10 000, in memory", |b| {
        b.iter(|| runtime.block_on(esl.publish(event())).expect("published"));
    });
}

/// Groups of 256 events, each to one lane.
fn committing(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = SqliteStorage::open(folder.path().join("bench.db")).expect("a database");
    commit_on(c, &runtime, "commit 256, sqlite", &sqlite);
    commit_on(c, &runtime, "commit 256, memory", &MemoryStorage::new());
}

fn commit_on(
    c: &mut Criterion,
    runtime: &tokio::runtime::Runtime,
    name: &str,
    storage: &(impl Commit + Tenancy),
) {
    let organization = Organization::new(ORGANIZATION, "acme", NOW);
    runtime
        .block_on(storage.create_organization(organization, &Actor::APPLICATION))
        .expect("a new organization");
    let event = event();
    let lanes: Arc<[LaneId]> = [LaneId::new(1)].into();
    let mut number = 0;
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(256)).sample_size(50);
    group.bench_function("", |b| {
        b.iter(|| {
            let units = (0..256).map(|_| {
                number += 1;
                let event = Arc::new(seal(&event, id(number), NOW));
                Unit::publish(Publish {
                    organization: ORGANIZATION,
                    route_version: RouteVersion::default(),
                    events: vec![Routed::new(event, Arc::clone(&lanes))],
                    idempotency: None,
                    metering: None,
                })
            });
            let results = runtime.block_on(storage.commit(units.collect())).expect("committed");
            assert!(results.iter().all(Result::is_ok));
        });
    });
    group.finish();
}

criterion_group!(benches, sealing, signing, matching, routing, committing);
criterion_main!(benches);
