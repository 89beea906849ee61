//! Durable publishing in the process, with nothing sent: 256 publishers, and one alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use esl::{
    Actor, CallbackPolicy, CallbackUrl, Esl, NewEvent, NewSubscription, Organization,
    SqliteStorage, Timestamp, storage::Tenancy,
};

use crate::{
    Settings, cpu, disk, percentile,
    service::{ORGANIZATION, PLAN},
    table,
};

const PUBLISHERS: usize = 256;

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = settings.folder.join("embedded");
    std::fs::create_dir(&folder)?;
    runtime.block_on(async {
        let policy = CallbackPolicy::public();
        let storage = SqliteStorage::open(folder.join("esl.db"))?;
        let organization =
            Organization::new(ORGANIZATION, "bench", Timestamp::EPOCH).with_plan(PLAN);
        storage.create_organization(organization, &Actor::APPLICATION).await?;
        // Without a transport nothing is sent.
        let esl = Esl::builder(storage).build().await?;
        let url = CallbackUrl::parse("https://example.com/webhooks", &policy)?;
        esl.subscribe(ORGANIZATION, NewSubscription::new(url, vec!["*".parse()?])).await?;
        let data = serde_json::json!({ "id": "person_1", "text": "x".repeat(470) });
        let event = Arc::new(NewEvent::new(ORGANIZATION, "person.updated".parse()?, &data)?);

        let (start, used) = (Instant::now(), cpu::used());
        let each = settings.events / PUBLISHERS;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..PUBLISHERS {
            tasks.spawn(publish(esl.clone(), Arc::clone(&event), each));
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        let rate = (each * PUBLISHERS) as f64 / start.elapsed().as_secs_f64();
        let cost = cpu::each(used, each * PUBLISHERS);
        println!("embedded: {rate:.0} events/s, {cost:.1} µs of the processors each");
        table::row(
            &format!("in-process durable publish, {PUBLISHERS} publishers"),
            &format!("{rate:.0}/s"),
            "≥ 100 000/s",
            rate >= 100_000.0,
        );

        let fsync = percentile(&disk::fsyncs(&folder, 500, Duration::ZERO)?, 50);
        let start = Instant::now();
        publish(esl.clone(), event, settings.paced).await?;
        let alone = settings.paced as f64 / start.elapsed().as_secs_f64();
        let fsyncs = 1.0 / fsync.as_secs_f64();
        println!("embedded: one publisher: {alone:.0} events/s, {fsyncs:.0} fsyncs/s");
        table::row(
            "one publisher alone, of the disk's fsyncs",
            &format!("{:.2}", alone / fsyncs),
            "≥ 0.7",
            alone / fsyncs >= 0.7,
        );
        esl.shutdown().await;
        Ok(())
    })
}

async fn publish(esl: Esl, event: Arc<NewEvent>, count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        esl.publish((*event).clone()).await?;
    }
    Ok(())
}
