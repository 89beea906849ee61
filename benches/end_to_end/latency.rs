//! Latency: from the beginning of a publish to its arrival at the receiver, 100 a second.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::{
    Settings, disk,
    load::{Load, paced},
    percentile,
    receiver::Receiver,
    relay,
    service::Service,
    table,
};

pub(crate) fn compare(settings: &Settings) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = settings.folder.join("latency");
    std::fs::create_dir(&folder)?;
    runtime.block_on(async {
        let (tell, mut relayed) = mpsc::unbounded_channel();
        let relay = relay::start(&Receiver::telling(tell).await?).await?;
        let (tell, mut delivered) = mpsc::unbounded_channel();
        let service = Service::start(&folder).await?;
        service.subscribe(&Receiver::telling(tell).await?).await?;
        // The first event of each opens connections and takes the lane.
        times(&relay, &mut relayed, 10).await?;
        times(&service.load(), &mut delivered, 10).await?;

        let fsyncs = disk::fsyncs(&folder, 500, PACE)?;
        let relay_times = times(&relay, &mut relayed, settings.paced).await?;
        let esl_times = times(&service.load(), &mut delivered, settings.paced).await?;
        for (percent, count) in [(50, 2), (99, 3)] {
            let [esl, relay, fsync] =
                [&esl_times, &relay_times, &fsyncs].map(|times| percentile(times, percent));
            let budget = relay + fsync * count;
            table::row(
                &format!("publish to receipt at 100 events/s, p{percent}"),
                &format!("{esl:.2?} (relay {relay:.2?}, fsync {fsync:.2?})"),
                &format!("≤ relay + {count} fsyncs = {budget:.2?}"),
                esl <= budget,
            );
        }
        service.esl.shutdown().await;
        Ok(())
    })
}

async fn times(
    load: &Load,
    arrivals: &mut mpsc::UnboundedReceiver<Instant>,
    count: usize,
) -> anyhow::Result<Vec<Duration>> {
    let begun = paced(load, count, PACE).await?;
    let mut times = Vec::with_capacity(count);
    for begun in begun {
        let arrived = arrivals.recv().await.expect("the receiver lives");
        times.push(arrived.saturating_duration_since(begun));
    }
    times.sort_unstable();
    Ok(times)
}

const PACE: Duration = Duration::from_millis(10);
