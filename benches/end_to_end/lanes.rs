//! A start with deliveries waiting in very many lanes: when the first goes out, how fast the rest do,
//! and in how much memory.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use esl::{
    Actor, Esl, SqliteStorage, Subscription, SubscriptionUpdate,
    storage::{Page, Records, Subscriptions},
};
use tokio::{runtime::Builder, task::JoinSet};

use crate::{
    Settings, filled, memory, one_to_one,
    receiver::Receiver,
    service::{ORGANIZATION, Service, all, new_storage, publish_many, wish},
    table,
    tally::{Tally, numbered_url},
};

/// Very many lanes with a few deliveries each.
pub(crate) fn measure_many(settings: &Settings) -> anyhow::Result<()> {
    let lanes = (settings.events / EACH).max(1);
    measure(settings, ("lanes", lanes), lanes, EACH)
}

/// One lane with all of them.
pub(crate) fn measure_one(settings: &Settings) -> anyhow::Result<()> {
    measure(settings, ("lane", settings.events), 1, settings.events)
}

/// `filled` says how the database is filled, and with how many.
fn measure(
    settings: &Settings,
    (part, filled): (&str, usize),
    lanes: usize,
    each: usize,
) -> anyhow::Result<()> {
    let folder = settings.folder.join(part);
    std::fs::create_dir(&folder)?;
    let tally = Arc::new(Tally::new(lanes, each));
    let first = Arc::new(OnceLock::new());
    let receiver = {
        let (tally, first) = (Arc::clone(&tally), Arc::clone(&first));
        Receiver::on_a_thread(|| {
            Receiver::noting(move |head, body| {
                first.get_or_init(Instant::now);
                tally.note(head, body);
            })
        })
    };
    filled::fill(part, &folder, &receiver, filled)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    memory::forget_peak();

    let began = Instant::now();
    let service = runtime.block_on(async {
        let service = Service::over(SqliteStorage::open(folder.join("esl.db"))?).await?;
        receiver.wait_for(lanes * each).await;
        anyhow::Ok(service)
    })?;
    let ended = Instant::now();
    let peak = memory::peak();
    runtime.block_on(async {
        service.wait_until_settled().await;
        service.esl.shutdown().await;
    });
    tally.check_all()?;
    let one_to_one = one_to_one::rate(settings, &folder.join("one_to_one"))?;

    let first = *first.get().expect("all have come");
    let rate = (lanes * each) as f64 / (ended - first).as_secs_f64();
    println!("lanes: {each} deliveries in each of {lanes} lanes: {rate:.0}/s");
    let (first, drain) = (first - began, rate / one_to_one);
    let places = if lanes == 1 { "one lane".to_owned() } else { format!("{lanes} lanes") };
    let waiting = format!("{} waiting in {places}", lanes * each);
    let is_soon = first <= Duration::from_secs(1);
    table::row(
        &format!("start with {waiting}: first delivery"),
        &format!("{first:.0?}"),
        "≤ 1 s",
        is_soon,
    );
    let drained = format!("start with {waiting}: drain rate, of one to one");
    table::row(&drained, &format!("{drain:.2}"), "≥ 0.8", drain >= 0.8);
    let is_small = peak.is_some_and(|peak| peak <= BUDGET_MIB);
    let budget = format!("≤ {BUDGET_MIB} MiB");
    table::row(&format!("memory with {waiting}"), &memory::show(peak), &budget, is_small);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// As [`fill`], with a few in each of so many lanes.
pub(crate) async fn fill_many(folder: &Path, receiver: &str, lanes: usize) -> anyhow::Result<()> {
    fill(folder, receiver, lanes, EACH).await
}

/// As [`fill`], with so many in one lane.
pub(crate) async fn fill_one(folder: &Path, receiver: &str, each: usize) -> anyhow::Result<()> {
    fill(folder, receiver, 1, each).await
}

/// Publishes to paused subscriptions, and resumes them while no engine runs.
async fn fill(folder: &Path, receiver: &str, lanes: usize, each: usize) -> anyhow::Result<()> {
    let storage = new_storage(folder).await?;
    let esl = Esl::builder(storage.clone()).build().await?;
    let mut tasks = JoinSet::new();
    for first in 0..AT_ONCE {
        let (esl, receiver) = (esl.clone(), receiver.to_owned());
        tasks.spawn(async move {
            for number in (first..lanes).step_by(AT_ONCE) {
                let paused = wish(&numbered_url(&receiver, number), "crowd.*")?.with_active(false);
                esl.subscribe(ORGANIZATION, paused).await?;
            }
            anyhow::Ok(())
        });
    }
    all(tasks).await?;
    let page = Page { after: None, limit: lanes };
    let subscriptions = storage.subscriptions(ORGANIZATION, page).await?.items;
    publish_many(&esl, "crowd.told", each, 470).await?;
    // Lanes get what is fanned out in their order.
    let last = subscriptions.last().expect("there are some");
    while lanes > 1 && count(&storage, last).await? < each {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    esl.shutdown().await;
    drop(esl);

    let mut tasks = JoinSet::new();
    for first in 0..AT_ONCE {
        let storage = storage.clone();
        let ids: Vec<_> =
            subscriptions.iter().skip(first).step_by(AT_ONCE).map(|one| one.id).collect();
        tasks.spawn(async move {
            for id in ids {
                let mut update = SubscriptionUpdate::default();
                update.active = Some(true);
                storage.update_subscription(ORGANIZATION, id, update, &Actor::APPLICATION).await?;
            }
            anyhow::Ok(())
        });
    }
    all(tasks).await
}

/// How many deliveries a subscription has.
async fn count(storage: &SqliteStorage, subscription: &Subscription) -> anyhow::Result<usize> {
    let page = Page { after: None, limit: EACH };
    let deliveries = storage.deliveries(ORGANIZATION, subscription.id, None, page).await?;
    Ok(deliveries.map_or(0, |page| page.items.len()))
}

/// Deliveries in each lane.
const EACH: usize = 100;
const AT_ONCE: usize = 256;
const BUDGET_MIB: u64 = 120;
