//! One event to many subscriptions: how fast they get it, and what another organization notices when
//! they are very many.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use crate::{
    Settings,
    bystander::Bystander,
    disk, median, memory, one_to_one,
    receiver::Receiver,
    service::{ORGANIZATION, Service, all, wish},
    table,
    tally::{Tally, numbered_url},
};

pub(crate) fn measure(settings: &Settings) -> anyhow::Result<()> {
    to_a_thousand(settings)?;
    to_very_many(settings)
}

/// Many events to a thousand subscriptions each, and as many deliveries one to one, in turn.
fn to_a_thousand(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("thousand");
    std::fs::create_dir(&folder)?;
    let subscriptions = settings.subscriptions.min(THOUSAND);
    let events = (settings.round * 2 / subscriptions).max(1);
    let service_runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let service = service_runtime.block_on(Service::start(&folder))?;
    let tally = Arc::new(Tally::new(subscriptions, ROUNDS * events));
    let crowd = crowd(&tally, None);
    subscribe(&service_runtime, &service, &crowd, subscriptions)?;

    let (mut rates, mut others, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let other = one_to_one::rate(settings, &folder.join(format!("one_to_one{round}")))?;
        let began = Instant::now();
        service_runtime.block_on(async {
            for number in round * events..(round + 1) * events {
                service.publish("crowd.told", number).await?;
            }
            crowd.wait_for((round + 1) * events * subscriptions).await;
            anyhow::Ok(())
        })?;
        let rate = (events * subscriptions) as f64 / began.elapsed().as_secs_f64();
        rates.push(rate);
        others.push(other);
        ratios.push(rate / other);
    }
    stop(&service_runtime, &service);
    tally.check_all()?;
    let ratio = median(&mut ratios);
    println!(
        "fan-out: {events} events to {subscriptions} subscriptions: {:.0} deliveries/s, one to one \
         {:.0}/s; medians of {ROUNDS} rounds",
        median(&mut rates),
        median(&mut others),
    );
    table::row(
        &format!("one event to {subscriptions} subscriptions, deliveries/s, of one to one"),
        &format!("{ratio:.2} ({:.2}–{:.2})", ratios[0], ratios[ROUNDS - 1]),
        "≥ 1",
        ratio >= 1.0,
    );
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// An event to very many subscriptions with others right behind it, beside another organization.
fn to_very_many(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.folder.join("very_many");
    std::fs::create_dir(&folder)?;
    let one_to_one = one_to_one::rate(settings, &folder.join("one_to_one"))?;
    let service_runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let service = service_runtime.block_on(Service::start(&folder))?;
    let tally = Arc::new(Tally::new(settings.subscriptions, EVENTS));
    let orders = Arc::new(Mutex::new(vec![Vec::new(); SAMPLE.min(settings.subscriptions)]));
    let crowd = crowd(&tally, Some(&orders));
    subscribe(&service_runtime, &service, &crowd, settings.subscriptions)?;
    disk::settle(&folder, settings);
    let bystander = Bystander::of_another(&service_runtime, &service)?;
    thread::sleep(settings.quiet);

    memory::forget_peak();
    let began = Instant::now();
    let first_ended = service_runtime.block_on(async {
        for number in 0..EVENTS {
            service.publish("crowd.told", number).await?;
        }
        crowd.wait_for(settings.subscriptions).await;
        let first_ended = Instant::now();
        crowd.wait_for(EVENTS * settings.subscriptions).await;
        anyhow::Ok(first_ended)
    })?;
    let ended = Instant::now();
    let trips = bystander.stop()?;
    stop(&service_runtime, &service);
    tally.check_all()?;
    let orders = orders.lock().expect("nobody panics");
    anyhow::ensure!(
        orders.iter().all(|events| events.is_sorted()),
        "events have come out of order: {orders:?}"
    );

    let rate = (EVENTS * settings.subscriptions) as f64 / (ended - began).as_secs_f64();
    println!(
        "fan-out: {EVENTS} events to {} subscriptions: {rate:.0} deliveries/s ({:.2} of one to one), \
         each once, in order in {} lanes that were looked at; at most {} in all",
        settings.subscriptions,
        rate / one_to_one,
        orders.len(),
        memory::show(memory::peak()),
    );
    let phases = [("while the first goes out", first_ended), ("while the others do", ended)];
    let worst = trips.report("fan-out: another organization's", began, &phases);
    let during = format!("other organizations' p99 during one to {}", settings.subscriptions);
    table::times(&during, worst);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The receiver of all, which notes what comes, and for the first few in which order.
fn crowd(tally: &Arc<Tally>, orders: Option<&Arc<Mutex<Vec<Vec<usize>>>>>) -> Receiver {
    let (tally, orders) = (Arc::clone(tally), orders.map(Arc::clone));
    Receiver::on_a_thread(move || {
        Receiver::noting(move |head, body| {
            let (subscription, event) = tally.note(head, body);
            if let Some(orders) = orders.as_ref().filter(|_| subscription < SAMPLE) {
                orders.lock().expect("nobody panics")[subscription].push(event);
            }
        })
    })
}

/// Subscribes the crowd. What is sent to the first few goes out one by one, so that it arrives as it
/// was sent.
fn subscribe(
    runtime: &Runtime,
    service: &Service,
    crowd: &Receiver,
    count: usize,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for first in 0..SUBSCRIBERS {
        let (service, crowd) = (service.clone(), crowd.clone());
        let subscribe = async move {
            for number in (first..count).step_by(SUBSCRIBERS) {
                let mut new = wish(&numbered_url(&crowd.url, number), "crowd.*")?;
                if number < SAMPLE {
                    new.options.max_in_flight = NonZeroU32::new(1);
                }
                service.esl.subscribe(ORGANIZATION, new).await?;
            }
            anyhow::Ok(())
        };
        tasks.spawn_on(subscribe, runtime.handle());
    }
    runtime.block_on(all(tasks))
}

fn stop(runtime: &Runtime, service: &Service) {
    runtime.block_on(async {
        service.wait_until_settled().await;
        service.esl.shutdown().await;
    });
}

const THOUSAND: usize = 1_000;
const ROUNDS: usize = 3;
/// The first, and two behind it.
const EVENTS: usize = 3;
/// So many lanes are looked at for the order of what comes.
const SAMPLE: usize = 100;
const SUBSCRIBERS: usize = 256;
