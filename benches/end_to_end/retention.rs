//! Publishing while very many old events are removed.

use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use esl::{
    Answer, CallbackPolicy, Clock, Esl, EventId, Monotonic, NewEvent, Organization, Outbound, Sent,
    SqliteStorage, SystemClock, Timestamp, Timings, Transport,
    storage::{Records, Tenancy},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
};

use crate::{
    Settings, disk, median,
    service::{ORGANIZATION, all, publish_many, wish},
    tally::numbered,
};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("retention");
    std::fs::create_dir(&folder)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let last = runtime.block_on(fill(&folder, settings.events))?;

    let clock = Arc::new(ShiftedClock::behind(Duration::ZERO));
    let (esl, storage) = runtime.block_on(async {
        let storage = open(&folder, &clock)?;
        let builder = Esl::builder(storage.clone()).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        // Without a transport nothing is sent.
        let esl = builder.retention(Some(AGE / 2)).build().await?;
        anyhow::Ok((esl, storage))
    })?;
    let is_there = || {
        let event = storage.event(ORGANIZATION, last);
        anyhow::Ok(runtime.block_on(event)?.is_some())
    };
    let slots = || -> anyhow::Result<[f64; SLOTS]> {
        let mut rates = [0.0; SLOTS];
        for rate in &mut rates {
            *rate = publish_for(&runtime, &esl, settings.quiet)?;
        }
        Ok(rates)
    };

    disk::settle(&folder, settings);
    let mut before = slots()?;
    // A round begins a minute after the start. The strides are shorter than an epoch, so that it is
    // renewed in between.
    for _ in 0..3 {
        clock.move_on(Duration::from_secs(20));
        thread::sleep(Duration::from_millis(100));
    }
    let began = Instant::now();
    let mut during = slots()?;
    let was_under_way = is_there()?;
    while is_there()? {
        thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed();
    let mut after = slots()?;
    runtime.block_on(esl.shutdown());

    println!(
        "retention: {} old events, with a delivery each, are gone after {took:.1?}{}",
        settings.events,
        if was_under_way { "" } else { ", before the load had ended" }
    );
    let [before, during, after] = [&mut before, &mut during, &mut after].map(|rates| median(rates));
    println!(
        "retention: {PUBLISHERS} publishers: {before:.0} events/s before, {during:.0}/s meanwhile, \
         {after:.0}/s after; ratio {:.2} (budget 0.9)",
        during / before
    );
    drop((esl, storage));
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Publishes events that are old, and delivers them; gives the last one.
async fn fill(folder: &Path, events: usize) -> anyhow::Result<EventId> {
    let clock = Arc::new(ShiftedClock::behind(AGE));
    let storage = open(folder, &clock)?;
    let organization =
        Organization { id: ORGANIZATION, name: "bench".into(), created_at: Timestamp::EPOCH };
    storage.create_organization(organization).await?;
    let accepted = Arc::new(AtomicU64::new(0));
    let builder = Esl::builder(storage).clock(clock).callbacks(CallbackPolicy::public());
    let esl = builder.transport(Accepting(Arc::clone(&accepted))).build().await?;
    let new = wish("https://example.com/webhooks", "crowd.*")?;
    esl.subscribe(ORGANIZATION, new).await?;
    publish_many(&esl, "crowd.told", events, 470).await?;
    let last = esl.publish(numbered(&"crowd.told".parse()?, events, 470)?).await?.id;
    while accepted.load(Ordering::Relaxed) <= events as u64 || esl.unsettled() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    esl.shutdown().await;
    Ok(last)
}

fn open(folder: &Path, clock: &Arc<ShiftedClock>) -> anyhow::Result<SqliteStorage> {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Ok(SqliteStorage::options().clock(clock).open(folder.join("esl.db"))?)
}

/// The rate at which events are published for so long, by as many as can.
fn publish_for(runtime: &Runtime, esl: &Esl, time: Duration) -> anyhow::Result<f64> {
    let event = Arc::new(numbered(&"crowd.told".parse()?, 0, 470)?);
    let is_over = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let (esl, event) = (esl.clone(), Arc::clone(&event));
        let (is_over, count) = (Arc::clone(&is_over), Arc::clone(&count));
        let publish = async move {
            while !is_over.load(Ordering::Relaxed) {
                esl.publish(NewEvent::clone(&event)).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        };
        publishers.spawn_on(publish, runtime.handle());
    }
    thread::sleep(time);
    is_over.store(true, Ordering::Relaxed);
    runtime.block_on(all(publishers))?;
    Ok(count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

/// The machine's clocks, but in the past, and moved on by hand beside.
#[derive(Debug)]
struct ShiftedClock {
    system: SystemClock,
    behind: Duration,
    moved_on: watch::Sender<Duration>,
}

impl ShiftedClock {
    fn behind(behind: Duration) -> Self {
        let moved_on = watch::Sender::new(Duration::ZERO);
        Self { system: SystemClock::new(), behind, moved_on }
    }

    fn move_on(&self, by: Duration) {
        self.moved_on.send_modify(|moved_on| *moved_on += by);
    }
}

impl Clock for ShiftedClock {
    fn utc(&self) -> Timestamp {
        self.system.utc() - self.behind + *self.moved_on.borrow()
    }

    fn monotonic(&self) -> Monotonic {
        self.system.monotonic() + *self.moved_on.borrow()
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (system, mut moved_on) = (self.system.clone(), self.moved_on.subscribe());
        Box::pin(async move {
            loop {
                let deadline = deadline.saturating_sub(*moved_on.borrow_and_update());
                tokio::select! {
                    () = system.sleep_until(deadline) => return,
                    Ok(()) = moved_on.changed() => {}
                }
            }
        })
    }
}

/// Accepts everything, and is asked within the process.
#[derive(Debug)]
struct Accepting(Arc<AtomicU64>);

impl Transport for Accepting {
    fn send<'a, 'b>(&'a self, _: Outbound) -> Pin<Box<dyn Future<Output = Sent> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async {
            self.0.fetch_add(1, Ordering::Relaxed);
            let answer = Answer { status: 200, retry_after: None, excerpt: bytes::Bytes::new() };
            Sent { result: Ok(answer), timings: Timings::default() }
        })
    }
}

/// How old the events are.
const AGE: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// Slots in which the rate is taken, before, during and after.
const SLOTS: usize = 2;
const PUBLISHERS: usize = 256;
