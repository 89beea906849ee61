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
    Actor, Answer, CallbackPolicy, Clock, Esl, EventId, Monotonic, NewEvent, Organization,
    Outbound, Sent, SqliteStorage, SystemClock, Timestamp, Timings, Transport,
    storage::{Records, Tenancy},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
};

use crate::{
    Settings, disk, median,
    service::{ORGANIZATION, PLAN, all, publish_many, wish},
    table,
    tally::numbered,
};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("retention");
    std::fs::create_dir(&folder)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let each = settings.events / ROUNDS;
    let last: Vec<EventId> = (0..ROUNDS)
        .map(|batch| runtime.block_on(fill(&folder, batch, each)))
        .collect::<Result<_, _>>()?;

    let clock = Arc::new(ShiftedClock::behind(Duration::ZERO));
    let (esl, storage) = runtime.block_on(async {
        let storage = open(&folder, &clock)?;
        let builder = Esl::builder(storage.clone()).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        // Without a transport nothing is sent.
        let esl = builder.retention(Some(AGE)).build().await?;
        anyhow::Ok((esl, storage))
    })?;
    disk::settle(&folder, settings);
    let (mut rates, mut others, mut ratios) = (vec![], vec![], vec![]);
    let mut took = Duration::ZERO;
    for last in last {
        let find = || runtime.block_on(storage.event(ORGANIZATION, last));
        let other = publish_for(&runtime, &esl, settings.quiet)?;
        let event = find()?.expect("nothing of this batch was removed while the rate was taken");
        clock.move_on_to(event.timestamp + AGE + ROUND_EVERY);
        let began = Instant::now();
        let rate = publish_for(&runtime, &esl, settings.quiet)?;
        while find()?.is_some() {
            thread::sleep(Duration::from_millis(5));
        }
        took += began.elapsed();
        rates.push(rate);
        others.push(other);
        ratios.push(rate / other);
    }
    runtime.block_on(esl.shutdown());

    println!(
        "retention: {} old events, with a delivery each, were removed in {took:.1?}, at {:.0} rows/s",
        each * ROUNDS,
        (2 * each * ROUNDS) as f64 / took.as_secs_f64(),
    );
    let ratio = median(&mut ratios);
    println!(
        "retention: {PUBLISHERS} publishers: {:.0} events/s meanwhile, {:.0}/s otherwise, in turn; medians \
         of {ROUNDS} rounds",
        median(&mut rates),
        median(&mut others),
    );
    table::row(
        "publish rate while old events are removed, of the rate otherwise",
        &format!("{ratio:.2} ({:.2}–{:.2})", ratios[0], ratios[ROUNDS - 1]),
        "≥ 0.9",
        ratio >= 0.9,
    );
    drop((esl, storage));
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Publishes a batch of events that are nearly old, and delivers them; gives the last one. Each batch is
/// younger than the one before by more than it takes to remove that.
async fn fill(folder: &Path, batch: usize, events: usize) -> anyhow::Result<EventId> {
    let younger = APART * u32::try_from(batch + 1)?;
    let clock = Arc::new(ShiftedClock::behind(AGE - younger));
    let storage = open(folder, &clock)?;
    let accepted = Arc::new(AtomicU64::new(0));
    if batch == 0 {
        let organization =
            Organization::new(ORGANIZATION, "bench", Timestamp::EPOCH).with_plan(PLAN);
        storage.create_organization(organization, &Actor::APPLICATION).await?;
    }
    let builder = Esl::builder(storage).clock(clock).callbacks(CallbackPolicy::public());
    let esl = builder.transport(Accepting(Arc::clone(&accepted))).build().await?;
    if batch == 0 {
        let new = wish("https://example.com/webhooks", "crowd.*")?;
        esl.subscribe(ORGANIZATION, new).await?;
    }
    publish_many(&esl, "crowd.told", events - 1, 470).await?;
    let last = esl.publish(numbered(&"crowd.told".parse()?, events, 470)?).await?.id;
    while accepted.load(Ordering::Relaxed) < events as u64 || esl.unsettled() > 0 {
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

    /// Moves on in strides that are shorter than an epoch, so that it is renewed in between.
    fn move_on_to(&self, time: Timestamp) {
        while self.utc() < time {
            self.moved_on.send_modify(|moved_on| *moved_on += Duration::from_secs(20));
            thread::sleep(Duration::from_millis(30));
        }
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

/// Events are removed at this age.
const AGE: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// The engine begins to remove so often.
const ROUND_EVERY: Duration = Duration::from_secs(60);
/// How much younger each batch is.
const APART: Duration = Duration::from_secs(240);
/// So often the rate is taken without removing and while a batch is removed.
const ROUNDS: usize = 4;
const PUBLISHERS: usize = 256;
