//! What was erased is nowhere in the files, wherever SQLite had it before.

use std::{collections::BTreeSet, fs, sync::Arc};

use esl_core::{
    Actor, Attempt, AttemptError, LaneId, OrganizationId, Seq, Tiers, Timings,
    storage::{
        Commit, Lanes, Outcome, Publish, Removal, RouteVersion, Routed, Settle, Settlement,
        Subscriptions, Tenure, Unit, Worker,
    },
    testing::ManualClock,
};

use esl_sqlite::SqliteStorage;

use crate::{NOON, World, subscription, worker_id};

const ROUNDS: u64 = 40;
const EVENTS: u64 = 50;
const ERASED: u64 = 3;
/// What each event says again and again begins so, and its number follows.
const MARK: &[u8] = b"~#~";
const DIGITS: usize = 8;

/// A database whose pages are split, merged and packed anew all the time.
struct Churn {
    world: World,
    organizations: Vec<OrganizationId>,
    lanes: Vec<LaneId>,
    worker: Worker,
    draws: u64,
    published: Vec<(OrganizationId, u64)>,
}

#[tokio::test]
async fn nothing_of_an_erased_event_is_left_wherever_it_was_moved() {
    let mut churn = Churn::new().await;
    let mut erased = BTreeSet::new();
    for round in 0..ROUNDS {
        churn.publish(round * EVENTS..(round + 1) * EVENTS).await;
        let mut doomed = Vec::new();
        for _ in 0..ERASED {
            let index = churn.draw(churn.published.len() as u64);
            doomed.push(churn.published.swap_remove(usize::try_from(index).unwrap()));
        }
        let storage = churn.world.storage.clone();
        let ids: Vec<_> = doomed
            .iter()
            .map(|(organization, number)| (*organization, crate::event_id(*number)))
            .collect();
        // With others that publish in between.
        let erasing = tokio::spawn(async move {
            for (organization, id) in ids {
                storage.erase_event(organization, id).await.unwrap();
            }
        });
        let more = 1_000_000 + round * EVENTS;
        churn.publish(more..more + EVENTS).await;
        erasing.await.unwrap();
        erased.extend(doomed.into_iter().map(|(_, number)| number));
        if round % 10 == 9 {
            let left: Vec<_> = churn.marks().intersection(&erased).copied().collect();
            assert!(left.is_empty(), "round {round}: {left:?}");
        }
    }
    // What was not erased is found that way.
    let found = churn.marks();
    assert!(churn.published.iter().all(|(_, number)| found.contains(number)));
    let verdict: String =
        churn.world.connection().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

impl Churn {
    async fn new() -> Self {
        let mut world = World::new().await;
        // The worker's epoch lasts as long as the test.
        let clock = Arc::new(ManualClock::new(NOON));
        world.storage = SqliteStorage::options().clock(clock).open(world.path()).unwrap();
        let mut organizations = Vec::new();
        for number in 2..12 {
            organizations.push(world.beside(number).await);
        }
        let mut lanes = Vec::new();
        for number in 2..27 {
            let subscription = subscription(world.organization, number);
            lanes.push(
                world
                    .storage
                    .create_subscription(subscription, &Tiers::default(), &Actor::APPLICATION)
                    .await
                    .unwrap()
                    .lane,
            );
        }
        let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
        world.storage.take(&worker, &lanes).await.unwrap();
        Self { world, organizations, lanes, worker, draws: 0, published: Vec::new() }
    }

    /// A number below `end`: the same ones at each run.
    fn draw(&mut self, end: u64) -> u64 {
        self.draws = self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.draws >> 33) % end
    }

    fn says(&mut self, number: u64) -> Vec<u8> {
        let mark = mark(number);
        let most = [3, 10, 30, 100, 300, 1_000][usize::try_from(self.draw(6)).unwrap()];
        mark.repeat(1 + usize::try_from(self.draw(most)).unwrap())
    }

    /// Half of the events come through the intake.
    async fn publish(&mut self, numbers: std::ops::Range<u64>) {
        let mut units = Vec::new();
        for number in numbers.clone() {
            let index = self.draw(3 * self.organizations.len() as u64 / 2);
            let other = self.organizations.get(usize::try_from(index).unwrap()).copied();
            let organization = other.unwrap_or(self.world.organization);
            let event = crate::event(organization, number, self.says(number).into());
            let intake = if self.draw(2) == 0 {
                self.world.storage.enqueue(vec![event.clone()]).await.unwrap();
                Some(self.world.storage.intake(None, 99, &[]).await.unwrap().pop().unwrap().0)
            } else {
                None
            };
            let (version, lanes) = match other {
                Some(_) => (0, [].into()),
                None => (self.lanes.len() as u64 + 1, self.lanes.clone().into()),
            };
            let publish = Publish {
                organization,
                route_version: RouteVersion(version),
                events: vec![Routed { intake, ..Routed::new(event, lanes) }],
                idempotency: None,
                metering: None,
            };
            units.push(Unit::publish(publish));
            self.published.push((organization, number));
        }
        let committed = self.world.storage.commit(units).await.unwrap();
        let mut settlements = Vec::new();
        for (number, committed) in numbers.zip(committed) {
            let accepted = committed.unwrap().events[0];
            if accepted.deliveries > 0 {
                settlements.extend(self.failures(accepted.seq, number));
            }
        }
        let (lanes, switch_offs) = (Vec::new(), Vec::new());
        let settle = Settle { worker: self.worker, settlements, lanes, switch_offs };
        self.world.storage.commit(vec![Unit::settle(settle)]).await.unwrap().remove(0).unwrap();
    }

    /// Some receivers say what they were told.
    fn failures(&mut self, seq: Seq, number: u64) -> Vec<Settlement> {
        let mut settlements = Vec::new();
        for lane in self.lanes.clone() {
            if self.draw(4) > 0 {
                continue;
            }
            let detail = mark(number).repeat(1 + usize::try_from(self.draw(90)).unwrap());
            let attempt = Attempt {
                number: 1,
                started_at: NOON,
                status: Some(500),
                error: Some(AttemptError::Status),
                detail: Some(String::from_utf8(detail).unwrap()),
                probe: false,
                charged: true,
                timings: Timings::default(),
            };
            settlements.push(Settlement {
                lane,
                seq,
                outcome: Outcome::RetryAt(NOON),
                attempts: 1,
                charged: 1,
                at: NOON,
                status: Some(500),
                error: Some(AttemptError::Status),
                log: vec![attempt],
            });
        }
        settlements
    }

    /// The numbers whose marks are in the files.
    fn marks(&self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        for file in fs::read_dir(self.world.folder.path()).unwrap() {
            let file = fs::read(file.unwrap().path()).unwrap();
            for place in file.windows(MARK.len() + DIGITS).filter(|place| place.starts_with(MARK)) {
                if let Ok(Ok(number)) = str::from_utf8(&place[MARK.len()..]).map(str::parse) {
                    found.insert(number);
                }
            }
        }
        found
    }
}

fn mark(number: u64) -> Vec<u8> {
    [MARK, format!("{number:0DIGITS$}").as_bytes()].concat()
}
