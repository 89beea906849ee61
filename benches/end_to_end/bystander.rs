//! A publisher at a steady pace beside something heavy, and how long its events take meanwhile.
//!
//! It has a thread of its own, and so have the receivers, so that what is measured is how long ESL lets
//! them wait and not how long they wait for each other.

use std::{
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
    load::Load,
    percentile,
    receiver::Receiver,
    service::{BYSTANDER, Service},
};

/// Publishes 100 times a second.
#[derive(Debug)]
pub(crate) struct Bystander {
    is_over: watch::Sender<bool>,
    trips: oneshot::Receiver<Trips>,
}

impl Bystander {
    /// For another organization, which has a receiver of its own.
    pub(crate) fn of_another(service_runtime: &Runtime, service: &Service) -> anyhow::Result<Self> {
        let (tell, arrivals) = mpsc::unbounded_channel();
        let receiver = Receiver::on_a_thread(|| Receiver::telling(tell));
        service_runtime.block_on(service.subscribe_as(BYSTANDER, &receiver, "person.*"))?;
        Ok(Self::start(service.load_as(BYSTANDER), arrivals))
    }

    /// Sends this load; somebody tells when each event has arrived.
    pub(crate) fn start(load: Load, arrivals: mpsc::UnboundedReceiver<Instant>) -> Self {
        let (is_over, over) = watch::channel(false);
        let (done, trips) = oneshot::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            drop(done.send(runtime.block_on(publish_until(over, &load, arrivals))));
        });
        Self { is_over, trips }
    }

    /// Stops, and waits for what has not arrived yet.
    pub(crate) fn stop(self) -> anyhow::Result<Trips> {
        self.is_over.send_replace(true);
        Ok(self.trips.blocking_recv()?)
    }
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

/// When events began and how long they took to arrive.
#[derive(Debug)]
pub(crate) struct Trips(Vec<(Instant, Duration)>);

impl Trips {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Says how long they took before `began`, and in each of the phases that follow: what it is
    /// called, and when it ended. Gives the worst ratio of the p99.
    pub(crate) fn report(&self, whose: &str, began: Instant, phases: &[(&str, Instant)]) -> f64 {
        let before = self.within(None, began);
        let (mut from, mut worst) = (began, 0.0_f64);
        for (phase, until) in phases {
            let during = self.within(Some(from), *until);
            for percent in [50, 99] {
                let (before, during) = (percentile(&before, percent), percentile(&during, percent));
                let ratio = during.as_secs_f64() / before.as_secs_f64();
                println!(
                    "{whose} p{percent}: {before:.1?}, {phase}: {during:.1?} (ratio {ratio:.1})"
                );
                if percent == 99 {
                    worst = worst.max(ratio);
                }
            }
            from = *until;
        }
        worst
    }

    /// How long those took that began then, sorted.
    fn within(&self, from: Option<Instant>, until: Instant) -> Vec<Duration> {
        let is_within = |at: Instant| from.is_none_or(|from| at >= from) && at < until;
        let mut times: Vec<_> =
            self.0.iter().filter(|(at, _)| is_within(*at)).map(|(_, took)| *took).collect();
        times.sort_unstable();
        times
    }
}
