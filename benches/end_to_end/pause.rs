//! A subscription with very many deliveries that is paused and resumed: how long the change takes, and
//! what another organization notices of it and of what follows.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use esl::{
    Esl, SqliteStorage, SubscriptionId, SubscriptionUpdate,
    storage::{Page, Subscriptions},
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Settings,
    bystander::Bystander,
    disk, filled, memory,
    receiver::Receiver,
    service::{ORGANIZATION, Service, new_storage, publish_many, wish},
    table,
    tally::{Tally, numbered_url},
};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("pause");
    std::fs::create_dir(&folder)?;
    let tally = Arc::new(Tally::new(1, settings.events));
    let receiver = {
        let tally = Arc::clone(&tally);
        Receiver::on_a_thread(|| {
            Receiver::noting(move |head, body| {
                tally.note(head, body);
            })
        })
    };
    filled::fill("pause", &folder, &receiver, settings.events)?;
    let service_runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (service, subscription) = service_runtime.block_on(async {
        let storage = SqliteStorage::open(folder.join("esl.db"))?;
        let page = Page { after: None, limit: 1 };
        let subscriptions = storage.subscriptions(ORGANIZATION, page).await?.items;
        anyhow::Ok((Service::over(storage).await?, subscriptions[0].id))
    })?;
    disk::settle(&folder, settings);
    let another = Bystander::of_another(&service_runtime, &service)?;
    thread::sleep(settings.quiet);
    let held = memory::now();
    memory::forget_peak();

    let set_active = |is_active| set_active(&service_runtime, &service, subscription, is_active);
    let (mut resumes, mut pauses) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for _ in 0..TIMES {
        resumes.push(set_active(true)?);
        thread::sleep(settings.quiet / 50);
        pauses.push(set_active(false)?);
        thread::sleep(settings.quiet / 50);
    }
    let changed = Instant::now();
    let (changed_peak, came_before) = (memory::peak(), receiver.count());
    memory::forget_peak();
    resumes.push(set_active(true)?);
    thread::sleep(settings.quiet * 3);
    let drained = Instant::now();
    let came = receiver.count() - came_before;
    let drained_peak = memory::peak();
    let trips = another.stop()?;
    service_runtime.block_on(service.esl.shutdown());
    tally.check_none_twice()?;

    report("resumed", &mut resumes);
    report("paused", &mut pauses);
    println!(
        "pause: {} deliveries held: {} in all, at most {} while that changes and {} while they go out \
         ({:.0}/s) (budget 120)",
        settings.events,
        memory::show(held),
        memory::show(changed_peak),
        memory::show(drained_peak),
        came as f64 / (drained - changed).as_secs_f64(),
    );
    let phases = [("while it is paused and resumed", changed), ("while they go out", drained)];
    let worst = trips.report("pause: another organization's", began, &phases);
    table::times("another organization's p99 around a pause with very many held", worst);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Publishes to a paused subscription.
pub(crate) async fn fill(folder: &Path, receiver: &str, events: usize) -> anyhow::Result<()> {
    // Without a transport nothing is sent.
    let esl = Esl::builder(new_storage(folder).await?).build().await?;
    let paused = wish(&numbered_url(receiver, 0), "crowd.*")?.with_active(false);
    esl.subscribe(ORGANIZATION, paused).await?;
    publish_many(&esl, "crowd.told", events, 470).await?;
    esl.shutdown().await;
    Ok(())
}

/// Pauses or resumes; gives how long that took.
fn set_active(
    runtime: &Runtime,
    service: &Service,
    subscription: SubscriptionId,
    is_active: bool,
) -> anyhow::Result<Duration> {
    let mut update = SubscriptionUpdate::default();
    update.active = Some(is_active);
    let began = Instant::now();
    runtime.block_on(service.esl.update_subscription(ORGANIZATION, subscription, update))?;
    Ok(began.elapsed())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    println!(
        "pause: {what} {} times: median {:.1?}, at most {:.1?} (budget 50 ms)",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1],
    );
}

const TIMES: usize = 25;
