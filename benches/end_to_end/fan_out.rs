//! One event to very many subscriptions: how fast they get it, and what another organization notices.
//!
//! Receivers and the other organization's publisher have threads of their own, so that what is
//! measured is how long ESL lets them wait and not how long they wait for each other.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::interval,
};

use crate::{
    Settings,
    load::Load,
    percentile,
    receiver::Receiver,
    service::{BYSTANDER, ORGANIZATION, Service},
};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("fan_out");
    std::fs::create_dir(&folder)?;
    let service_runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let service = service_runtime.block_on(Service::start(&folder))?;
    let crowd = on_a_thread(Receiver::start);
    let one_to_one = service_runtime.block_on(one_to_one(settings, &folder))?;

    service_runtime.block_on(subscribe(&service, &crowd, settings.subscriptions))?;
    let (is_over, bystander) = bystander(&service_runtime, &service)?;
    thread::sleep(settings.quiet);

    let began = Instant::now();
    service_runtime.block_on(async {
        for number in 0..2 {
            service.publish("crowd.told", number).await?;
        }
        crowd.wait_for(2 * settings.subscriptions).await;
        anyhow::Ok(())
    })?;
    let took = began.elapsed();
    is_over.send_replace(true);
    let [before, during] = bystander.blocking_recv()?.split(began, began + took);
    service_runtime.block_on(async {
        service.wait_until_settled().await;
        service.esl.shutdown().await;
    });

    let rate = 2.0 * settings.subscriptions as f64 / took.as_secs_f64();
    println!(
        "fan-out: 2 events to {} subscriptions, {rate:.0} deliveries/s ({:.2} of one to one, \
         budget 1), {}",
        settings.subscriptions,
        rate / one_to_one,
        resident()
    );
    for percent in [50, 99] {
        let (before, during) = (percentile(&before, percent), percentile(&during, percent));
        println!(
            "fan-out: another organization's p{percent}: {before:.1?}, meanwhile {during:.1?} \
             (ratio {:.1}, budget 3 for p99)",
            during.as_secs_f64() / before.as_secs_f64()
        );
    }
    Ok(())
}

/// Deliveries a second where each event has one subscription, published from within.
async fn one_to_one(settings: &Settings, folder: &Path) -> anyhow::Result<f64> {
    let folder = folder.join("one_to_one");
    std::fs::create_dir(&folder)?;
    let service = Service::start(&folder).await?;
    let receiver = on_a_thread(Receiver::start);
    service.subscribe(&receiver).await?;
    let events = settings.round / 2;
    let began = Instant::now();
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let service = service.clone();
        publishers.spawn(async move {
            for number in (publisher..events).step_by(PUBLISHERS) {
                service.publish("person.updated", number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = publishers.join_next().await {
        done??;
    }
    receiver.wait_for(events).await;
    let rate = events as f64 / began.elapsed().as_secs_f64();
    service.esl.shutdown().await;
    Ok(rate)
}

async fn subscribe(service: &Service, crowd: &Receiver, count: usize) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for first in 0..PUBLISHERS {
        let (service, crowd) = (service.clone(), crowd.clone());
        tasks.spawn(async move {
            for _ in (first..count).step_by(PUBLISHERS) {
                service.subscribe_as(ORGANIZATION, &crowd, "crowd.*").await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// When the other organization's events began and arrived.
struct Trips(Vec<(Instant, Duration)>);

impl Trips {
    /// How long those before and those between took, sorted.
    fn split(self, from: Instant, until: Instant) -> [Vec<Duration>; 2] {
        let within = |begin: Option<Instant>, end: Instant| {
            let is_within = |at: Instant| begin.is_none_or(|begin| at >= begin) && at < end;
            let mut times: Vec<_> =
                self.0.iter().filter(|(at, _)| is_within(*at)).map(|(_, took)| *took).collect();
            times.sort_unstable();
            times
        };
        [within(None, from), within(Some(from), until)]
    }
}

/// Publishes 100 times a second for the other organization until told that it is over.
fn bystander(
    service_runtime: &Runtime,
    service: &Service,
) -> anyhow::Result<(watch::Sender<bool>, oneshot::Receiver<Trips>)> {
    let (tell, arrivals) = mpsc::unbounded_channel();
    let receiver = on_a_thread(|| Receiver::telling(tell));
    service_runtime.block_on(service.subscribe_as(BYSTANDER, &receiver, "person.*"))?;
    let load = service.load_as(BYSTANDER);
    let (is_over, over) = watch::channel(false);
    let (done, trips) = oneshot::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        drop(done.send(runtime.block_on(publish_until(over, &load, arrivals))));
    });
    Ok((is_over, trips))
}

async fn publish_until(
    over: watch::Receiver<bool>,
    load: &Load,
    mut arrivals: mpsc::UnboundedReceiver<Instant>,
) -> Trips {
    let mut begun = Vec::new();
    let mut idle = Vec::new();
    let mut publishing = JoinSet::<anyhow::Result<TcpStream>>::new();
    // Those that a slow moment has called for are closed by the server when they are not used.
    let is_fresh = |since: &Instant| since.elapsed() < Duration::from_secs(2);
    let mut interval = interval(Duration::from_millis(10));
    while !*over.borrow() {
        interval.tick().await;
        begun.push(Instant::now());
        while let Some(connection) = publishing.try_join_next() {
            idle.push((
                connection.expect("nobody panics").expect("the service runs"),
                Instant::now(),
            ));
        }
        idle.retain(|(_, since)| is_fresh(since));
        let (load, connection) = (load.clone(), idle.pop());
        publishing.spawn(async move {
            let mut connection = match connection {
                Some((connection, _)) => connection,
                None => load.connect().await?,
            };
            load.send(&mut connection, &mut Vec::new()).await?;
            Ok(connection)
        });
    }
    // They overtake each other by less than what matters here.
    let mut trips = Vec::with_capacity(begun.len());
    for begun in begun {
        let arrived = arrivals.recv().await.expect("the receiver lives");
        trips.push((begun, arrived.saturating_duration_since(begun)));
    }
    Trips(trips)
}

/// A receiver on a thread of its own.
fn on_a_thread<F>(start: impl FnOnce() -> F + Send + 'static) -> Receiver
where
    F: Future<Output = anyhow::Result<Receiver>>,
{
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            tell.send(start().await.expect("a receiver")).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("it starts")
}

/// The memory of this process, receivers and publishers included.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<u64> = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or("memory unknown".to_owned(), |kib| format!("at most {} MiB in all", kib / 1024))
}

const PUBLISHERS: usize = 256;
