//! One world from its beginning to its end, from one seed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use esl_core::{Clock as _, InProcessWake, Monotonic, Role};

use crate::{bug::Bug, dice::Dice, node::Node, oracle, script::Script, world::World};

/// What came of a seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) hash: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) text: String,
}

pub(crate) fn simulate(seed: u64, bug: Option<Bug>, keeps_text: bool) -> Outcome {
    let dice = Dice::new(seed);
    let world = Arc::new(World::new(&dice, bug, keeps_text));
    let mut simulation = Simulation::new(&world, &dice);
    simulation.live();
    simulation.come_to_rest();
    oracle::judge(&world, &simulation.numbers());
    drop(simulation);
    let mut counts = world.counts();
    let (violations, duplicates) = {
        let mut ledger = world.ledger();
        (std::mem::take(&mut ledger.violations), ledger.duplicates)
    };
    counts.insert("duplicates", duplicates);
    let mut trace = world.trace();
    Outcome { seed, hash: trace.hash(), violations, counts, text: trace.take_text() }
}

/// In time without faults, everything that is owed has gone out by then.
const REST_MAX: Duration = Duration::from_secs(90 * 60);
/// The clock is not set forward by more in all: an idempotency key is good for a day.
const AHEAD_MAX: Duration = Duration::from_secs(15 * 60 * 60);

struct Simulation {
    world: Arc<World>,
    dice: Dice,
    script: Script,
    /// How the engines hear hints of each other; in some worlds none ever comes.
    wake: Option<InProcessWake>,
    slots: Vec<Slot>,
    /// What the engines in each of the slots do.
    roles: Vec<Role>,
    nodes_started: usize,
    ahead: Duration,
}

/// A place for an engine; one that has gone is followed by another after a while.
enum Slot {
    Node(Node),
    EmptyUntil(Monotonic),
}

impl Simulation {
    fn new(world: &Arc<World>, dice: &Dice) -> Self {
        let script = Script::new(world, dice.fork());
        script.populate();
        let slots: Vec<Slot> = (0..dice.between(1, 3))
            .map(|index| match index {
                0 => Slot::EmptyUntil(Duration::ZERO),
                _ => Slot::EmptyUntil(Duration::from_secs(*dice.pick(&[0, 0, 0, 20, 60]))),
            })
            .collect();
        // One of them works at least.
        let roles = (0..slots.len())
            .map(|index| if index > 0 && dice.permille(250) { Role::Api } else { Role::All })
            .collect();
        Self {
            world: Arc::clone(world),
            dice: dice.fork(),
            script,
            wake: dice.permille(700).then(InProcessWake::new),
            slots,
            roles,
            nodes_started: 0,
            ahead: Duration::ZERO,
        }
    }

    fn live(&mut self) {
        self.fill_slots();
        self.pass(Duration::from_millis(10));
        if let Some(index) = self.running() {
            let Slot::Node(node) = &mut self.slots[index] else { return };
            let esl = node.esl().unwrap();
            self.script.begin(node, &esl);
        }
        for _ in 0..self.dice.between(20, 80) {
            self.fill_slots();
            self.go_wrong();
            if let Some(index) = self.running() {
                let Slot::Node(node) = &mut self.slots[index] else { continue };
                let esl = node.esl().unwrap();
                self.script.act(node, esl);
            }
            self.mingle();
        }
    }

    /// All faults end, and everything gets the time that it needs.
    fn come_to_rest(&mut self) {
        self.world.heal();
        self.world.note(format_args!("all faults end"));
        for slot in &mut self.slots {
            match slot {
                Slot::Node(node) => node.stalled_until = None,
                Slot::EmptyUntil(until) => *until = Duration::ZERO,
            }
        }
        let until = self.world.now() + REST_MAX;
        // Once more after a while, for what should not come any more.
        for wait in [Duration::ZERO, Duration::from_secs(40)] {
            self.pass(wait);
            let mut step = Duration::from_millis(100);
            self.fill_slots();
            while !oracle::is_at_rest(&self.world) && self.world.now() < until {
                self.pass(step);
                self.fill_slots();
                step = (step * 2).min(Duration::from_secs(10));
            }
        }
        if self.world.now() >= until {
            self.note_engines();
        }
    }

    /// Notes what the engines have in memory, for whoever looks for why nothing moves.
    fn note_engines(&self) {
        for slot in &self.slots {
            if let Slot::Node(node) = slot {
                self.world.note(format_args!("node {}: {:#?}", node.number, node.esl()));
            }
        }
    }

    /// The engines that are there.
    fn numbers(&self) -> Vec<usize> {
        let nodes = self.slots.iter().filter_map(|slot| match slot {
            Slot::Node(node) if !node.is_ending() => Some(node.number),
            Slot::Node(_) | Slot::EmptyUntil(_) => None,
        });
        nodes.collect()
    }

    /// One of the engines that can be called.
    fn running(&self) -> Option<usize> {
        let is_running = |slot: &Slot| match slot {
            Slot::Node(node) => node.esl().is_some(),
            Slot::EmptyUntil(_) => false,
        };
        let running: Vec<_> =
            (0..self.slots.len()).filter(|index| is_running(&self.slots[*index])).collect();
        (!running.is_empty()).then(|| *self.dice.pick(&running))
    }

    fn fill_slots(&mut self) {
        for index in 0..self.slots.len() {
            match &self.slots[index] {
                Slot::Node(node) if node.is_over() => self.end(index),
                Slot::Node(_) => {}
                Slot::EmptyUntil(until) if *until <= self.world.now() => {
                    self.nodes_started += 1;
                    let (number, dice) = (self.nodes_started, self.dice.fork());
                    let wake =
                        self.wake.as_ref().map_or_else(InProcessWake::new, InProcessWake::join);
                    let role = self.roles[index];
                    let node = Node::start(&self.world, number, dice, (role, wake));
                    self.slots[index] = Slot::Node(node);
                }
                Slot::EmptyUntil(_) => {}
            }
        }
    }

    /// Ends an engine, whatever it is doing; another one follows.
    fn end(&mut self, index: usize) {
        let wait = *self.dice.pick(&[0, 1, 10, 45]);
        let until = self.world.now() + Duration::from_secs(wait);
        let slot = std::mem::replace(&mut self.slots[index], Slot::EmptyUntil(until));
        if let Slot::Node(node) = slot {
            self.world.note(format_args!("node {} is gone", node.number));
            let number = node.number;
            drop(node);
            self.world.ledger().node_ended(number);
        }
    }

    fn go_wrong(&mut self) {
        let world = Arc::clone(&self.world);
        let index = self.dice.index(self.slots.len());
        if world.strikes("node: killed", world.faults.kill) {
            if let Slot::Node(node) = &mut self.slots[index] {
                node.run(self.dice.below(60));
                self.end(index);
            }
        } else if world.strikes("node: stalled", world.faults.stall) {
            if let Slot::Node(node) = &mut self.slots[index] {
                let millis = self.dice.between(100, 90_000);
                node.stalled_until = Some(world.now() + Duration::from_millis(millis));
                world.note(format_args!("node {} stalls", node.number));
            }
        } else if world.strikes("node: shut down", world.faults.shutdown) {
            if let Slot::Node(node) = &mut self.slots[index]
                && let Some(esl) = node.esl()
            {
                world.note(format_args!("node {} shuts down", node.number));
                node.shut_down(esl);
            }
        } else if world.strikes("clock: set", world.faults.clock_jump) {
            self.set_clock();
        }
    }

    fn set_clock(&mut self) {
        let by = Duration::from_millis(self.dice.between(1, 3 * 60 * 60 * 1000));
        let now = self.world.clock.utc();
        let is_forward = self.dice.permille(500) && self.ahead + by <= AHEAD_MAX;
        if is_forward {
            self.ahead += by;
        }
        self.world.clock.set_utc(if is_forward { now + by } else { now - by });
        self.world.note(format_args!("clock set by {by:?}, forward: {is_forward}"));
        self.world.ledger().clock_jumped();
    }

    /// Lets the engines run, some of them not to the end of what they have to do, and perhaps some
    /// time pass.
    fn mingle(&mut self) {
        for _ in 0..self.dice.below(5) {
            let index = self.dice.index(self.slots.len());
            let now = self.world.now();
            let Slot::Node(node) = &mut self.slots[index] else { continue };
            if node.stalled_until.is_some_and(|until| until > now) {
                continue;
            }
            if self.dice.permille(500) {
                node.run(self.dice.between(1, 40));
            } else {
                node.run_until_idle();
            }
        }
        match self.dice.below(10) {
            0..4 => {}
            4 => self.advance(Duration::from_millis(self.dice.between(1, 200))),
            5..8 => self.pass(Duration::from_millis(self.dice.between(1, 1000))),
            8 => self.pass(Duration::from_millis(self.dice.between(1000, 10_000))),
            _ if self.dice.permille(300) => {
                self.pass(Duration::from_secs(self.dice.between(10, 120)))
            }
            _ => {}
        }
    }

    /// Lets time pass, and the engines do what they have to do in it.
    fn pass(&mut self, duration: Duration) {
        let until = self.world.now() + duration;
        loop {
            for _ in 0..2 {
                self.run_all();
            }
            let now = self.world.now();
            let next =
                self.world.clock.next_deadline().map_or(until, |next| next.clamp(now, until));
            if next == now && now == until {
                return;
            }
            self.advance(next - now);
        }
    }

    fn run_all(&mut self) {
        let now = self.world.now();
        for slot in &mut self.slots {
            let Slot::Node(node) = slot else { continue };
            if node.stalled_until.is_none_or(|until| until <= now) {
                node.stalled_until = None;
                node.run_until_idle();
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        self.world.advance(by);
        let now = self.world.now();
        let mut ledger = self.world.ledger();
        for slot in &mut self.slots {
            let Slot::Node(node) = slot else { continue };
            if node.is_behind || node.stalled_until.is_some() {
                node.is_behind = true;
                ledger.nodes.entry(node.number).or_default().lagged_at = Some(now);
            }
        }
    }
}
