//! The rate of a healthy receiver, alone and with 100 beside it that never answer.

use std::{path::Path, time::Instant};

use tokio::runtime::Builder;

use crate::{Settings, median, receiver::Receiver, service::Service, table};

/// Two services in turn, one of them with hung receivers. Those keep being tried throughout, time out,
/// and open their circuits, while the healthy one of the same organization gets events as fast as they
/// are published.
pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut alone = Side::start(&settings.folder.join("alone"), 0).await?;
        let mut beside = Side::start(&settings.folder.join("beside"), HUNG).await?;
        let events = settings.round / 2;
        let (mut rates, mut others, mut ratios) = (vec![], vec![], vec![]);
        for _ in 0..(settings.events / settings.round).clamp(1, ROUNDS_MAX) {
            let other = alone.rate(settings, events).await?;
            let rate = beside.rate(settings, events).await?;
            rates.push(rate);
            others.push(other);
            ratios.push(rate / other);
        }
        for side in [alone, beside] {
            side.service.esl.shutdown().await;
        }
        let (ratio, last) = (median(&mut ratios), ratios.len() - 1);
        println!(
            "isolation: {:.0} events/s beside {HUNG} hung receivers, {:.0}/s alone",
            median(&mut rates),
            median(&mut others),
        );
        table::row(
            &format!("a healthy receiver's rate beside {HUNG} hung ones, of its rate alone"),
            &format!("{ratio:.2} ({:.2}–{:.2})", ratios[0], ratios[last]),
            "≥ 0.95",
            ratio >= 0.95,
        );
        Ok(())
    })
}

/// A service, and the receiver that is well.
struct Side {
    service: Service,
    healthy: Receiver,
    sent: usize,
}

impl Side {
    /// With so many receivers that never answer, which have events of their own in flight.
    async fn start(folder: &Path, hung: usize) -> anyhow::Result<Self> {
        std::fs::create_dir(folder)?;
        let service = Service::start(folder).await?;
        let healthy = Receiver::start().await?;
        service.subscribe(&healthy).await?;
        for _ in 0..hung {
            service.subscribe_to(&Receiver::hung().await?, "hung.up").await?;
        }
        for number in 0..hung.min(1) * 8 {
            service.publish("hung.up", number).await?;
        }
        Ok(Self { service, healthy, sent: 0 })
    }

    /// Deliveries per second at the healthy receiver.
    async fn rate(&mut self, settings: &Settings, events: usize) -> anyhow::Result<f64> {
        self.sent += events;
        let start = Instant::now();
        self.service.load().run(events, settings.connections).await?;
        self.healthy.wait_for(self.sent).await;
        Ok(events as f64 / start.elapsed().as_secs_f64())
    }
}

const HUNG: usize = 100;
const ROUNDS_MAX: usize = 15;
