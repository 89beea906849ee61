//! Publishing where very many old events are stored, and where there are none, in turn.

use std::{path::Path, sync::Arc, time::Instant};

use esl::{Esl, NewEvent};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use crate::{
    Settings, disk, median,
    service::{ORGANIZATION, all, new_storage, publish_many, wish},
    table,
    tally::numbered,
};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let [old, new] = ["old", "new"].map(|name| settings.folder.join(name));
    let old_one = runtime.block_on(open(&old))?;
    runtime.block_on(publish_many(&old_one, "crowd.told", settings.history, 470))?;
    let new_one = runtime.block_on(open(&new))?;
    disk::settle(&old, settings);
    let (mut ratios, mut rates, mut others) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let other = publish(&runtime, &new_one, settings.round)?;
        let rate = publish(&runtime, &old_one, settings.round)?;
        rates.push(rate);
        others.push(other);
        ratios.push(rate / other);
    }
    for esl in [old_one, new_one] {
        runtime.block_on(esl.shutdown());
    }
    let ratio = median(&mut ratios);
    println!(
        "history: {:.0} events/s beside {} old ones, {:.0}/s without; medians of {ROUNDS} rounds",
        median(&mut rates),
        settings.history,
        median(&mut others),
    );
    table::row(
        &format!(
            "publish rate with {} old events stored, of an empty database's",
            settings.history
        ),
        &format!("{ratio:.2} ({:.2}–{:.2})", ratios[0], ratios[ROUNDS - 1]),
        "≥ 0.9",
        ratio >= 0.9,
    );
    Ok(())
}

/// An engine that sends nothing, with a subscription that everything matches.
async fn open(folder: &Path) -> anyhow::Result<Esl> {
    std::fs::create_dir(folder)?;
    let esl = Esl::builder(new_storage(folder).await?).build().await?;
    esl.subscribe(ORGANIZATION, wish("http://127.0.0.1:9/", "crowd.*")?.with_active(false)).await?;
    Ok(esl)
}

/// Events per second of many publishers.
fn publish(runtime: &Runtime, esl: &Esl, events: usize) -> anyhow::Result<f64> {
    let event: Arc<NewEvent> = Arc::new(numbered(&"crowd.told".parse()?, 0, 470)?);
    let began = Instant::now();
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let (esl, event) = (esl.clone(), Arc::clone(&event));
        let publish = async move {
            for _ in 0..(events / PUBLISHERS).max(1) {
                esl.publish((*event).clone()).await?;
            }
            anyhow::Ok(())
        };
        publishers.spawn_on(publish, runtime.handle());
    }
    runtime.block_on(all(publishers))?;
    Ok(events as f64 / began.elapsed().as_secs_f64())
}

const ROUNDS: usize = 7;
const PUBLISHERS: usize = 256;
