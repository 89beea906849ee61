//! A network and its receivers, and what the oracle says of each send.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use esl_core::{
    Answer, AttemptError, DeliveryId, Failure, Monotonic, Outbound, Sent, Timings, Transport,
    storage::EPOCH,
};

use crate::{
    ledger::{Ledger, SendSeen},
    world::World,
};

/// One engine's way out.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) world: Arc<World>,
    pub(crate) node: usize,
}

/// What becomes of a send.
enum Fate {
    Answered(u16, Option<String>),
    Failed(AttemptError),
    /// The receiver takes it, and its answer does not come through.
    AnswerLost(AttemptError),
}

#[async_trait]
impl Transport for Network {
    async fn send(&self, outbound: Outbound) -> Sent {
        let world = &*self.world;
        let start = world.now();
        let under_way = UnderWay { network: self, index: self.begin(&outbound) };
        let (fate, latency) = self.fate(&outbound);
        let latency = latency.min(outbound.timeout);
        world.sleep(latency / 2).await;
        tokio::task::yield_now().await;
        let fate =
            if latency == outbound.timeout { Fate::Failed(AttemptError::Timeout) } else { fate };
        let is_taken = match &fate {
            Fate::Answered(status, _) => (200..300).contains(status),
            Fate::AnswerLost(_) => true,
            Fate::Failed(_) => false,
        };
        if is_taken {
            under_way.taken();
        }
        world.sleep(latency - latency / 2).await;
        let result = match fate {
            Fate::Answered(status, retry_after) => {
                Ok(Answer { status, retry_after, excerpt: bytes::Bytes::new() })
            }
            Fate::Failed(error) | Fate::AnswerLost(error) => {
                Err(Failure { error, detail: "simulated".to_owned() })
            }
        };
        under_way.over(&result);
        let total = world.now() - start;
        Sent { result, timings: Timings { total, ..Timings::default() } }
    }
}

impl Network {
    fn fate(&self, outbound: &Outbound) -> (Fate, Duration) {
        let world = &*self.world;
        let receiver = outbound.url.as_str().rsplit('/').next().unwrap();
        let faults = &world.faults.receivers[receiver.parse::<usize>().unwrap()];
        let millis_max = if world.is_healed() { 20 } else { faults.millis_max };
        let mut latency = Duration::from_millis(world.dice.between(0, millis_max));
        let fate = if world.strikes("network: 5xx", faults.server_error) {
            Fate::Answered(500, None)
        } else if world.strikes("network: 429 or 503 with Retry-After", faults.retry_after) {
            let seconds = world.dice.pick(&["0", "1", "7", "90"]);
            Fate::Answered(*world.dice.pick(&[429, 503]), Some((*seconds).to_owned()))
        } else if world.strikes("network: 410", faults.gone) {
            Fate::Answered(410, None)
        } else if world.strikes("network: refused", faults.refused) {
            Fate::Failed(AttemptError::Connect)
        } else if world.strikes("network: reset", faults.reset) {
            Fate::Failed(AttemptError::Reset)
        } else if world.strikes("network: timeout", faults.timeout) {
            latency = outbound.timeout;
            Fate::Failed(AttemptError::Timeout)
        } else if !outbound.fresh && world.strikes("network: stale connection", faults.stale) {
            Fate::Failed(AttemptError::StaleConnection)
        } else if world.strikes("network: unsent", faults.unsent) {
            Fate::Failed(AttemptError::Unsent)
        } else if world.strikes("network: answer lost", faults.answer_lost) {
            let errors = [AttemptError::Reset, AttemptError::StaleConnection];
            Fate::AnswerLost(if outbound.fresh { errors[0] } else { *world.dice.pick(&errors) })
        } else {
            Fate::Answered(*world.dice.pick(&[200, 200, 202, 204]), None)
        };
        (fate, latency)
    }

    /// Notes a send that begins, and what is wrong with it.
    fn begin(&self, outbound: &Outbound) -> usize {
        let header = |name: &str| {
            let found = outbound.headers.iter().find(|(header, _)| **header == *name);
            found.map_or("", |(_, value)| value)
        };
        let id: DeliveryId = header("x-sapien-delivery").parse().unwrap();
        let attempt: u32 = header("x-sapien-attempt").parse().unwrap();
        let world = &*self.world;
        world.count("sends");
        let now = world.now();
        world.note(format_args!(
            "node {} sends {}/{} attempt {attempt}",
            self.node,
            id.lane().get(),
            id.seq().get()
        ));
        let (index, problems) = {
            let mut ledger = world.ledger();
            let epoch = ledger.nodes.get(&self.node).and_then(|node| node.epoch).map(|it| it.0);
            let generation = ledger.deliveries.get(&(id.lane(), id.seq())).map(|it| it.generation);
            let send = SendSeen {
                node: self.node,
                epoch: epoch.unwrap_or_default(),
                lane: id.lane(),
                seq: id.seq(),
                attempt,
                generation: generation.unwrap_or_default(),
                is_under_way: true,
                is_taken: false,
                is_accepted: false,
                is_settled: false,
            };
            let problems = problems(&mut ledger, &send, outbound, header("webhook-id"), now);
            let index = ledger.sends.len();
            if let Some(lane) = ledger.lanes.get_mut(&send.lane) {
                lane.in_flight.push(index);
            }
            if let Some(owed) = ledger.deliveries.get_mut(&(send.lane, send.seq)) {
                owed.sends.push(index);
            }
            ledger.sends.push(send);
            (index, problems)
        };
        for problem in problems {
            world.violation(format_args!(
                "node {} sends {id} {}/{}: {problem}",
                self.node,
                id.lane().get(),
                id.seq().get()
            ));
        }
        index
    }
}

/// What is wrong with a send that begins.
fn problems(
    ledger: &mut Ledger,
    send: &SendSeen,
    outbound: &Outbound,
    event: &str,
    now: Monotonic,
) -> Vec<String> {
    let mut problems = Vec::new();
    let Some(owed) = ledger.deliveries.get(&(send.lane, send.seq)) else {
        return vec!["it is not owed".to_owned()];
    };
    let lane = &ledger.lanes[&send.lane];
    let tenant = &ledger.organizations[&lane.organization];
    if owed.event.to_string() != event {
        problems.push(format!("it is {event}, not {}", owed.event));
    }
    let address = format!("/t{}/", tenant.index);
    if !outbound.url.as_str().contains(&address) {
        problems.push("it goes to another organization".to_owned());
    }
    let body = String::from_utf8_lossy(&outbound.body);
    let is_of_another =
        body.contains("\"tenant\":") && !body.contains(&format!("\"tenant\":{},", tenant.index));
    if is_of_another {
        problems.push("it is another organization's".to_owned());
    }
    // An engine whose epoch has lapsed may not know of it yet; what it does is explained by that. At the
    // very beginning of an epoch, sends of the one before may still come to run.
    let since = ledger.nodes.get(&send.node).and_then(|node| node.epoch).map(|(_, since)| since);
    if !ledger.runs(send.epoch, now) || since == Some(now) {
        return problems;
    }
    let renewed_at = ledger.epochs[&send.epoch].renewed_at;
    let lagged = ledger.nodes[&send.node].lagged_at == Some(now);
    if now + outbound.timeout > renewed_at + EPOCH && !lagged {
        problems.push("it may end after the epoch".to_owned());
    }
    let under_way = || lane.in_flight.iter().map(|index| &ledger.sends[*index]);
    let beside = under_way().filter(|other| other.epoch == send.epoch).count();
    if beside as u64 >= u64::from(lane.in_flight_max) {
        problems.push(format!("{beside} of {} are under way", lane.in_flight_max));
    }
    if under_way().any(|other| other.epoch != send.epoch && ledger.runs(other.epoch, now)) {
        problems.push("the lane has two owners".to_owned());
    }
    if lane.is_strict() && !lane.is_deleted {
        let before =
            ledger.deliveries.range((send.lane, esl_core::Seq::ZERO)..(send.lane, send.seq));
        let mut open = before.filter(|(_, owed)| owed.is_open && owed.generation == 0);
        if let Some(((_, seq), _)) = open.next()
            && send.generation == 0
        {
            problems.push(format!("{} comes before it", seq.get()));
        }
    }
    let mut is_duplicate = false;
    for other in owed.sends.iter().map(|index| &ledger.sends[*index]) {
        if other.generation != send.generation {
            continue;
        }
        is_duplicate |= other.is_taken;
        if other.is_under_way && ledger.runs(other.epoch, now) {
            problems.push("it is under way already".to_owned());
        } else if other.is_accepted && (other.is_settled || ledger.runs(other.epoch, now)) {
            problems.push(format!("it was taken before: {other:?}"));
        }
    }
    ledger.duplicates += u64::from(is_duplicate);
    problems
}

/// A send under way; ends with it, however that ends.
struct UnderWay<'a> {
    network: &'a Network,
    index: usize,
}

impl UnderWay<'_> {
    fn taken(&self) {
        let world = &*self.network.world;
        let mut ledger = world.ledger();
        let send = &mut ledger.sends[self.index];
        send.is_taken = true;
        let (lane, seq, generation, epoch) = (send.lane, send.seq, send.generation, send.epoch);
        let is_first = generation == 0;
        let runs = ledger.runs(epoch, world.now());
        let Some(receiver) = ledger.lanes.get_mut(&lane).filter(|_| is_first && runs) else {
            return;
        };
        let is_late = receiver.is_strict() && seq < receiver.accepted_to;
        let accepted_to = receiver.accepted_to;
        receiver.accepted_to = accepted_to.max(seq);
        let was_taken = ledger.deliveries.get(&(lane, seq)).is_some_and(|owed| {
            owed.sends.iter().any(|index| *index != self.index && ledger.sends[*index].is_taken)
        });
        drop(ledger);
        if is_late && !was_taken {
            world.violation(format_args!(
                "lane {} is strict, and takes {} after {}",
                lane.get(),
                seq.get(),
                accepted_to.get()
            ));
        }
    }

    fn over(&self, result: &Result<Answer, Failure>) {
        let world = &*self.network.world;
        let status = result.as_ref().map_err(|failure| failure.error).map(|answer| answer.status);
        let mut ledger = world.ledger();
        let send = &mut ledger.sends[self.index];
        send.is_accepted = matches!(status, Ok(200..300));
        let (lane, seq) = (send.lane.get(), send.seq.get());
        drop(ledger);
        world.note(format_args!("node {} sent {lane}/{seq}: {status:?}", self.network.node));
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut ledger = self.network.world.ledger();
        let send = &mut ledger.sends[self.index];
        send.is_under_way = false;
        let lane = send.lane;
        if let Some(lane) = ledger.lanes.get_mut(&lane) {
            lane.in_flight.retain(|index| *index != self.index);
        }
    }
}
