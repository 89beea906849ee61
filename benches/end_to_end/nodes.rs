//! Throughput on PostgreSQL: publish to delivery on one node and on several, with and without RabbitMQ, and the
//! relay in turn.
//!
//! The nodes are engines of this process, each with its own handle and API. Publishers are spread over all of
//! them, whoever has the lanes.

use std::{fmt, time::Instant};

use esl::{Esl, OrganizationId};
use esl_amqp::{Broker, BrokerLink};
use tokio::{runtime::Builder, task::JoinSet};

use crate::{
    Settings, cpu,
    load::Load,
    median,
    postgres::{Observer, Postgres, Written},
    rabbitmq::RabbitMq,
    receiver::Receiver,
    relay,
    service::{Service, all, prepare},
    table,
};

pub(crate) fn one(settings: &Settings) -> anyhow::Result<()> {
    compare(settings, Setup { nodes: 1, has_broker: false })
}

pub(crate) fn three(settings: &Settings) -> anyhow::Result<()> {
    compare(settings, Setup { nodes: 3, has_broker: false })
}

pub(crate) fn one_with_broker(settings: &Settings) -> anyhow::Result<()> {
    compare(settings, Setup { nodes: 1, has_broker: true })
}

pub(crate) fn three_with_broker(settings: &Settings) -> anyhow::Result<()> {
    compare(settings, Setup { nodes: 3, has_broker: true })
}

#[derive(Debug, Clone, Copy)]
struct Setup {
    nodes: usize,
    /// Hints go over RabbitMQ, too, and every event goes to its exchange.
    has_broker: bool,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let storage = if self.has_broker { "Postgres and RabbitMQ" } else { "Postgres" };
        let nodes = if self.nodes == 1 { "one node" } else { "three nodes" };
        write!(f, "{storage}, {nodes}")
    }
}

fn compare(settings: &Settings, setup: Setup) -> anyhow::Result<()> {
    let Some(postgres) = Postgres::find(&settings.folder)? else {
        table::figure(&setup.to_string(), "no PostgreSQL here");
        return Ok(());
    };
    let broker = setup.has_broker.then(|| RabbitMq::find(&settings.folder)).transpose()?.flatten();
    if setup.has_broker && broker.is_none() {
        table::figure(&setup.to_string(), "no RabbitMQ here");
        return Ok(());
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let to_relay = Receiver::start().await?;
        let relay = relay::start(&to_relay).await?;
        let nodes = Nodes::start(setup, &postgres, broker.as_ref()).await?;
        let mut courses = vec![nodes.course("one organization", &[HOT])];
        if setup.nodes > 1 {
            courses.push(nodes.course(&format!("{} organizations", MANY.len()), &MANY));
        }

        let round = settings.round / 5;
        let rounds = (settings.events / settings.round).clamp(1, ROUNDS);
        let mut relayed = Course::new("the relay", vec![relay]);
        for number in 0..=rounds {
            // The first one brings connections, plans and lanes, and does not count.
            let is_counted = number > 0;
            relayed
                .run(round, settings, is_counted, &postgres, async || {
                    to_relay.wait_for((number + 1) * round).await;
                    Ok(())
                })
                .await?;
            for course in &mut courses {
                let written = nodes.observer.written().await?;
                let expected = nodes.receiver.count() + round;
                let settled = async || nodes.wait_until_settled(expected).await;
                course.run(round, settings, is_counted, &postgres, settled).await?;
                course.add(written, nodes.observer.written().await?, is_counted);
            }
        }
        for course in &courses {
            course.report(setup, &relayed, rounds * round, settings);
        }
        nodes.end(&postgres).await
    })
}

/// Engines over one database.
struct Nodes {
    services: Vec<Service>,
    links: Vec<BrokerLink>,
    receiver: Receiver,
    observer: Observer,
    has_broker: bool,
}

impl Nodes {
    async fn start(
        setup: Setup,
        postgres: &Postgres,
        broker: Option<&RabbitMq>,
    ) -> anyhow::Result<Self> {
        let (mut services, mut links) = (Vec::new(), Vec::new());
        for number in 0..setup.nodes {
            let storage = postgres.open().await?;
            if number == 0 {
                for organization in [HOT].iter().chain(&MANY) {
                    prepare(&storage, *organization).await?;
                }
            }
            let wake = storage.wake();
            let Some(broker) = broker else {
                services.push(Service::serve(Esl::builder(storage).wake(wake)).await?);
                continue;
            };
            let mut joined = Broker::new(broker.url.parse()?);
            let builder = Esl::builder(storage).wake((wake, joined.wake()));
            let service = Service::serve(builder).await?;
            let link = joined.events(service.esl.clone()).start();
            link.until(|state| state.connected_since.is_some()).await;
            services.push(service);
            links.push(link);
        }
        let receiver = Receiver::start().await?;
        for organization in [HOT].iter().chain(&MANY) {
            services[0].subscribe_as(*organization, &receiver, "person.*").await?;
        }
        let observer = postgres.observe().await?;
        Ok(Self { services, links, receiver, observer, has_broker: setup.has_broker })
    }

    /// Publishers for these organizations at all nodes.
    fn course(&self, name: &str, organizations: &[OrganizationId]) -> Course {
        let loads = organizations.iter().flat_map(|organization| {
            self.services.iter().map(|service| service.load_as(*organization))
        });
        Course::new(name, loads.collect())
    }

    /// Waits until so many have come, and all is done.
    async fn wait_until_settled(&self, expected: usize) -> anyhow::Result<()> {
        self.receiver.wait_for(expected).await;
        for service in &self.services {
            service.wait_until_settled().await;
        }
        if self.has_broker {
            self.observer.wait_until_out().await?;
        }
        Ok(())
    }

    async fn end(self, postgres: &Postgres) -> anyhow::Result<()> {
        for link in &self.links {
            link.shutdown().await;
        }
        for service in &self.services {
            service.esl.shutdown().await;
        }
        if postgres.used().is_none() {
            self.observer.clear().await?;
        }
        Ok(())
    }
}

/// What is measured in turn with others, and what came out.
struct Course {
    name: String,
    loads: Vec<Load>,
    rates: Vec<f64>,
    /// Microseconds of the processors for each event, here and in the database.
    costs: Vec<f64>,
    database_costs: Vec<f64>,
    bytes: i64,
    syncs: Option<i64>,
}

impl Course {
    fn new(name: &str, loads: Vec<Load>) -> Self {
        Self {
            name: name.to_owned(),
            loads,
            rates: Vec::new(),
            costs: Vec::new(),
            database_costs: Vec::new(),
            bytes: 0,
            syncs: Some(0),
        }
    }

    /// Publishes a round, and waits until it is done.
    async fn run(
        &mut self,
        events: usize,
        settings: &Settings,
        is_counted: bool,
        postgres: &Postgres,
        done: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (used, database_used) = (cpu::used(), postgres.used());
        let start = Instant::now();
        let mut publishers = JoinSet::new();
        let shares = self.loads.len();
        for (place, load) in self.loads.iter().enumerate() {
            let load = load.clone();
            let (events, connections) =
                (share(events, shares, place), share(settings.connections, shares, place).max(1));
            publishers.spawn(async move { load.run(events, connections).await });
        }
        all(publishers).await?;
        done().await?;
        if is_counted {
            self.rates.push(events as f64 / start.elapsed().as_secs_f64());
            self.costs.push(cpu::each(used, events));
            self.database_costs.push(cpu::between(database_used, postgres.used(), events));
        }
        Ok(())
    }

    fn add(&mut self, before: Written, after: Written, is_counted: bool) {
        if is_counted {
            self.bytes += after.bytes - before.bytes;
            let syncs = after.syncs.zip(before.syncs).map(|(after, before)| after - before);
            self.syncs = self.syncs.zip(syncs).map(|(sum, syncs)| sum + syncs);
        }
    }

    fn report(&self, setup: Setup, relayed: &Self, events: usize, settings: &Settings) {
        let middle = |values: &[f64]| median(&mut values.to_vec());
        let mut ratios: Vec<_> =
            self.rates.iter().zip(&relayed.rates).map(|(rate, relay)| rate / relay).collect();
        let ratio = median(&mut ratios);
        let each_sync = self.syncs.map(|syncs| events as f64 / syncs.max(1) as f64);
        println!(
            "{setup}, {}: {events} events over {} connections: {:.0}/s, {:.0} µs of the processors \
             each and {} µs in the database, {:.0} bytes of WAL, {} events a sync; the relay \
             {:.0}/s and {:.0} µs; medians of {} rounds",
            self.name,
            settings.connections,
            middle(&self.rates),
            middle(&self.costs),
            shown(Some(middle(&self.database_costs))),
            self.bytes as f64 / events as f64,
            shown(each_sync),
            middle(&relayed.rates),
            middle(&relayed.costs),
            ratios.len(),
        );
        table::figure(
            &format!("{setup}, {}: publish to delivery, of the relay's rate", self.name),
            &format!("{ratio:.3} ({:.3}–{:.3})", ratios[0], ratios[ratios.len() - 1]),
        );
    }
}

/// A figure that is not known of every server.
fn shown(figure: Option<f64>) -> String {
    let known = figure.filter(|figure| !figure.is_nan());
    known.map_or_else(|| "an unknown number of".to_owned(), |figure| format!("{figure:.0}"))
}

/// How many of so many one of several gets.
fn share(all: usize, shares: usize, place: usize) -> usize {
    all / shares + usize::from(place < all % shares)
}

/// Of whom everything is, or one among others.
const HOT: OrganizationId = OrganizationId::from_bytes([20; 16]);
const MANY: [OrganizationId; 12] = {
    let mut many = [HOT; 12];
    let (mut index, mut number) = (0, 21);
    while index < many.len() {
        many[index] = OrganizationId::from_bytes([number; 16]);
        index += 1;
        number += 1;
    }
    many
};

/// At most.
const ROUNDS: usize = 8;
