//! The rate of a healthy receiver, alone and with 100 beside it that never answer.

use std::time::Instant;

use crate::{Settings, median, receiver::Receiver, service::Service};

const HUNG: usize = 100;
const ROUNDS: usize = 5;

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut ratios = vec![];
        for round in 0..ROUNDS {
            let alone = rate(settings, 0, &format!("alone{round}")).await?;
            let beside = rate(settings, HUNG, &format!("beside{round}")).await?;
            ratios.push(beside / alone);
        }
        println!(
            "isolation: healthy receiver beside {HUNG} hung ones: {:.2} of its rate alone \
             (budget 0.95); median of {ROUNDS}",
            median(&mut ratios)
        );
        Ok(())
    })
}

/// Deliveries per second at the healthy receiver. The hung ones take events of their own, so that
/// the two runs publish the same to it.
async fn rate(settings: &Settings, hung: usize, name: &str) -> anyhow::Result<f64> {
    let folder = settings.folder.join(name);
    std::fs::create_dir(&folder)?;
    let service = Service::start(&folder).await?;
    let healthy = Receiver::start().await?;
    service.subscribe(&healthy).await?;
    for _ in 0..hung {
        service.subscribe_to(&Receiver::hung().await?, "hung.up").await?;
    }
    for number in 0..hung.min(1) * 8 {
        service.publish("hung.up", number).await?;
    }
    let before = healthy.count();
    let events = settings.round / ROUNDS;
    let start = Instant::now();
    service.load().run(events, settings.connections).await?;
    healthy.wait_for(before + events).await;
    let rate = events as f64 / start.elapsed().as_secs_f64();
    service.esl.shutdown().await;
    Ok(rate)
}
