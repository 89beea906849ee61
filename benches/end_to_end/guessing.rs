//! Wrong secrets of clients at full speed, and what others' calls take meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Builder, task::JoinSet, time::interval};

use crate::{Settings, load::Load, percentile, service::Service, table};

/// So many guess at once.
const GUESSERS: usize = 32;

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for (who, addresses) in [("one address", 1), ("100 000 addresses", 100_000)] {
        let folder = settings.folder.join(format!("guessing-{addresses}"));
        std::fs::create_dir(&folder)?;
        let service = runtime.block_on(Service::start(&folder))?;
        let alone = calls(&service, settings.quiet)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let guessers = guess(&service, addresses, Arc::clone(&is_over));
        let began = Instant::now();
        let meanwhile = calls(&service, settings.quiet * 12)?;
        is_over.store(true, Ordering::Relaxed);
        let guesses = guessers.join().expect("nobody panics")?;
        let rate = guesses as f64 / began.elapsed().as_secs_f64();
        println!("guessing from {who}: {rate:.0} wrong secrets/s for {:.0?}", began.elapsed());
        for percent in [50, 99] {
            let (alone, meanwhile) = (percentile(&alone, percent), percentile(&meanwhile, percent));
            let ratio = meanwhile.as_secs_f64() / alone.as_secs_f64();
            println!(
                "other calls p{percent}: {alone:.0?} alone, {meanwhile:.0?} meanwhile ({ratio:.1} ×)"
            );
            if percent == 99 {
                table::times(&format!("others' p99 during guesses from {who}"), ratio);
            }
        }
        runtime.block_on(service.esl.shutdown());
    }
    Ok(())
}

/// How long calls take that read and publish in turn, 200 a second in all, sorted. They have a thread of
/// their own.
fn calls(service: &Service, lasting: Duration) -> anyhow::Result<Vec<Duration>> {
    let loads = [service.load(), service.reading()];
    let measuring = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for load in loads {
                tasks.spawn(paced(load, lasting));
            }
            let mut times = Vec::new();
            while let Some(some) = tasks.join_next().await {
                times.extend(some??);
            }
            times.sort_unstable();
            Ok(times)
        })
    });
    measuring.join().expect("nobody panics")
}

async fn paced(load: Load, lasting: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut connection = load.connect().await?;
    let (mut answer, mut times) = (Vec::with_capacity(4096), Vec::new());
    let mut interval = interval(Duration::from_millis(10));
    let began = Instant::now();
    while began.elapsed() < lasting {
        interval.tick().await;
        let sent = Instant::now();
        load.send(&mut connection, &mut answer).await?;
        times.push(sent.elapsed());
    }
    Ok(times)
}

/// Guesses until it is over, and says how often.
fn guess(
    service: &Service,
    addresses: usize,
    is_over: Arc<AtomicBool>,
) -> thread::JoinHandle<anyhow::Result<usize>> {
    let service = service.clone();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let next = Arc::new(AtomicUsize::new(0));
            let mut tasks = JoinSet::new();
            for _ in 0..GUESSERS {
                let (service, next) = (service.clone(), Arc::clone(&next));
                let is_over = Arc::clone(&is_over);
                tasks.spawn(async move {
                    let mut connection = service.guess(0).connect().await?;
                    let mut answer = Vec::with_capacity(4096);
                    while !is_over.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let guess = service.guess(number % addresses);
                        guess.send(&mut connection, &mut answer).await?;
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            Ok(next.load(Ordering::Relaxed))
        })
    })
}
