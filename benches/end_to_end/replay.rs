//! A replay of many events to a new subscription: whether it keeps its pace, and what others notice,
//! who publish to the same subscription or in another organization.

use std::{
    num::NonZeroU32,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use esl::{NewReplay, Replay, ReplayOf, ReplayState};
use tokio::{runtime::Builder, sync::mpsc};

use crate::{
    Settings,
    bystander::Bystander,
    disk,
    receiver::Receiver,
    service::{ORGANIZATION, Service, publish_many, wish},
    table,
    tally::{Tally, numbered_url},
};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("replay");
    std::fs::create_dir(&folder)?;
    let service_runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let service = service_runtime.block_on(Service::start(&folder))?;
    service_runtime.block_on(publish_many(&service.esl, STORED, settings.round, 470))?;

    let tally = Arc::new(Tally::new(1, settings.round));
    let (tell, arrivals) = mpsc::unbounded_channel();
    let receiver = receiver(&tally, tell);
    let mut new = wish(&numbered_url(&receiver.url, 0), STORED)?;
    new.events.push("person.*".parse()?);
    let subscription = service_runtime.block_on(service.esl.subscribe(ORGANIZATION, new))?.id;
    disk::settle(&folder, settings);
    let live = Bystander::start(service.load(), arrivals);
    let another = Bystander::of_another(&service_runtime, &service)?;
    thread::sleep(settings.quiet);

    let began = Instant::now();
    let replay = service_runtime.block_on(async {
        let new = NewReplay::new(ReplayOf::Missing).with_max_per_second(PER_SECOND);
        let replay = service.esl.replay(ORGANIZATION, subscription, new).await?;
        done(&service, replay).await
    })?;
    let opened = began.elapsed();
    service_runtime.block_on(tally.wait_for_all());
    let ended = Instant::now();
    let (live, another) = (live.stop()?, another.stop()?);
    service_runtime.block_on(async {
        service.wait_until_settled().await;
        service.esl.shutdown().await;
    });
    tally.check_all()?;
    let (count, live_count) = (receiver.count(), live.count());
    anyhow::ensure!(replay.opened == settings.round as u64, "not all were opened: {replay:?}");
    anyhow::ensure!(count == settings.round + live_count, "live events came more than once");

    println!(
        "replay: {} events at {PER_SECOND}/s: opened at {:.0}/s, all there after {:.1?}, each once",
        settings.round,
        settings.round as f64 / opened.as_secs_f64(),
        ended - began,
    );
    let phases = [("meanwhile", ended)];
    let worst = live.report("replay: the same subscription's live events'", began, &phases);
    table::times("p99 of live events to a subscription during its replay", worst);
    let worst = another.report("replay: another organization's", began, &phases);
    table::times("another organization's p99 during a replay", worst);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Notes what is replayed, and tells when live events come.
fn receiver(tally: &Arc<Tally>, tell: mpsc::UnboundedSender<Instant>) -> Receiver {
    let tally = Arc::clone(tally);
    Receiver::on_a_thread(move || {
        Receiver::noting(move |head, body| {
            if head.headers.get("x-sapien-event").is_some_and(|name| name == STORED) {
                tally.note(head, body);
            } else {
                let _nobody_listens = tell.send(Instant::now());
            }
        })
    })
}

async fn done(service: &Service, mut replay: Replay) -> anyhow::Result<Replay> {
    while replay.state == ReplayState::Running {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let read = service.esl.storage().replay(ORGANIZATION, replay.id).await?;
        replay = read.expect("it was made");
    }
    Ok(replay)
}

/// What is published before there is a subscription.
const STORED: &str = "crowd.told";
const PER_SECOND: NonZeroU32 = NonZeroU32::new(5_000).expect("it is not zero");
