//! What others are compared with: deliveries a second where each event has one subscription.

use std::{path::Path, time::Instant};

use tokio::{runtime::Builder, task::JoinSet};

use crate::{
    Settings, median,
    receiver::Receiver,
    service::{Service, all},
};

/// Published from within, on a service of its own in that folder; the median of some rounds.
pub(crate) fn rate(settings: &Settings, folder: &Path) -> anyhow::Result<f64> {
    std::fs::create_dir(folder)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let service = Service::start(folder).await?;
        let receiver = Receiver::on_a_thread(Receiver::start);
        service.subscribe(&receiver).await?;
        let events = settings.round / 2;
        let mut rates = Vec::new();
        for round in 1..=ROUNDS {
            let began = Instant::now();
            publish(&service, events).await?;
            receiver.wait_for(round * events).await;
            rates.push(events as f64 / began.elapsed().as_secs_f64());
        }
        service.esl.shutdown().await;
        Ok(median(&mut rates))
    })
}

async fn publish(service: &Service, events: usize) -> anyhow::Result<()> {
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
    all(publishers).await
}

const ROUNDS: usize = 3;
const PUBLISHERS: usize = 256;
