//! Whether a database has what was acknowledged, nothing by halves, and goes on from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
    sync::LazyLock,
};

use esl_core::{
    Clock, EventId, LaneId, OrganizationId, Seq, SubscriptionId, SystemClock, WorkerId,
    storage::{
        Accepted, Commit, Lanes, Outcome, Publish, RouteVersion, Routed, Settle, Subscriptions,
        Tenancy, Tenure, Unit,
    },
};
use esl_sqlite::rusqlite::{Connection, Row};
use fastrand::Rng;

use crate::{
    ledger::Book,
    life::{Life, settlement, ulid},
};

/// What was found beyond what was acknowledged.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) acknowledged: usize,
    pub(crate) unacknowledged: usize,
}

impl AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unacknowledged += other.unacknowledged;
    }
}

/// Checks all that a storage holds which was just opened, and brings the ledger to what is there.
pub(crate) async fn check(life: &Life, random: &mut Rng) -> Found {
    let rows = Rows::read(&Connection::open(&life.path).unwrap());
    rows.check_each_other();
    let mut book = std::mem::take(&mut *life.ledger.book());
    let found = rows.check_against(&book);
    for (digest, is_acknowledged) in &book.tokens {
        let token = life.storage.token(digest).await.unwrap();
        assert!(token.is_some() || !is_acknowledged, "an acknowledged token is lost");
    }
    check_idempotency(life, &book).await;
    rows.reconcile(&mut book);
    *life.ledger.book() = book;
    go_on(life, &rows, random).await;
    found
}

/// A repetition gets the first answer.
async fn check_idempotency(life: &Life, book: &Book) {
    let keyed = book.events.values();
    let keyed = keyed.filter_map(|told| Some((told, told.accepted?, told.idempotency.clone()?)));
    for (told, accepted, idempotency) in keyed {
        let publish = Publish {
            organization: told.event.organization,
            // Not the one there is: an answer that is known is given whatever has changed.
            route_version: RouteVersion(u64::MAX >> 1),
            events: vec![Routed::new(told.event.clone(), [].into())],
            idempotency: Some(idempotency),
            metering: None,
        };
        let answer = life.storage.commit(vec![Unit::publish(publish)]).await.unwrap().remove(0);
        let answer = answer.expect("the key is known");
        let same = answer.events.iter().find(|event| event.id == accepted.id);
        assert_eq!(same.map(|event| event.seq), Some(accepted.seq));
    }
}

/// What is owed is handed out and can be settled, and the next event has the next seq.
async fn go_on(life: &Life, rows: &Rows, random: &mut Rng) {
    let (worker, _) =
        life.storage.enlist(WorkerId::from_ulid(ulid(random)), Tenure::default()).await.unwrap();
    let gone = rows.gone();
    for (organization, row) in &rows.organizations {
        let claimed = life.claim(worker, *organization).await.unwrap();
        let live = life.storage.routes(*organization).await.unwrap().unwrap().lanes;
        let live: BTreeSet<_> = live.into_iter().map(|(lane, _)| lane).collect();
        let owed = rows.open.iter().filter(|(lane, seq, is_due)| {
            *is_due && live.contains(lane) && !gone.erased.contains(&(row.key, seq.get()))
        });
        let owed: BTreeSet<_> = owed.map(|(lane, seq, _)| (*lane, *seq)).collect();
        assert_eq!(claimed.iter().copied().collect::<BTreeSet<_>>(), owed);
        if let Some((lane, seq)) = claimed.first() {
            let settlements = vec![settlement(*lane, *seq, false)];
            let settle = Settle { worker, settlements, lanes: Vec::new(), switch_offs: Vec::new() };
            let settled = life.storage.commit(vec![Unit::settle(settle)]).await.unwrap().remove(0);
            settled.unwrap();
            life.ledger.book().settled.insert((*lane, *seq), (Outcome::Delivered, true));
        }
        let before: BTreeSet<_> = life.ledger.book().events.keys().copied().collect();
        life.publish(*organization, random).await.unwrap();
        let book = life.ledger.book();
        let new = book.events.iter().filter(|(id, _)| !before.contains(id));
        let seqs: BTreeSet<_> = new.map(|(_, told)| told.accepted.unwrap().seq.get()).collect();
        assert_eq!(seqs.first(), Some(&(row.last_seq + 1)), "the next seq");
    }
    life.storage.resign(&worker).await.unwrap();
}

/// All there is, as SQL sees it.
struct Rows {
    organizations: BTreeMap<OrganizationId, OrganizationRow>,
    subscriptions: BTreeMap<SubscriptionId, SubscriptionRow>,
    events: BTreeMap<EventId, EventRow>,
    /// And whether it is due.
    open: BTreeSet<(LaneId, Seq, bool)>,
    /// And whether it was delivered.
    closed: BTreeSet<(LaneId, Seq, bool)>,
    /// Whom the audit trail tells of.
    audited: BTreeMap<String, Vec<String>>,
    people: BTreeSet<EventId>,
    intake: BTreeSet<EventId>,
}

struct OrganizationRow {
    key: i64,
    last_seq: u64,
    used: u64,
    used_hour: i64,
    /// Up to where retention has removed what was old.
    removed_to: u64,
}

struct SubscriptionRow {
    lane: LaneId,
    organization: i64,
    is_deleted: bool,
}

struct EventRow {
    organization: i64,
    seq: u64,
    body: Vec<u8>,
    deliveries: u32,
    is_erased: bool,
}

impl Rows {
    fn read(connection: &Connection) -> Self {
        let verdict: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        let foreign = all(connection, "PRAGMA foreign_key_check", |_| ());
        assert!(foreign.is_empty());
        let lane = |row: &Row<'_>, index| LaneId::new(number(row, index));
        let has_people = "SELECT 1 FROM sqlite_schema WHERE name = 'people'";
        let has_people = !all(connection, has_people, |_| ()).is_empty();
        let people = if has_people { "SELECT event FROM people" } else { "SELECT 1 WHERE 0" };
        let event = |row: &Row<'_>| EventId::from_bytes(row.get(0).unwrap());
        let mut audited: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (subject, action) in
            all(connection, "SELECT subject, action FROM esl_audit ORDER BY number", |row| {
                (row.get(0).unwrap(), row.get(1).unwrap())
            })
        {
            audited.entry(subject).or_default().push(action);
        }
        let sql = "SELECT id, key, last_seq, used_events, used_hour, removed_to
            FROM esl_organizations";
        let organizations = all(connection, sql, |row| {
            let id = OrganizationId::from_bytes(row.get(0).unwrap());
            let organization = OrganizationRow {
                key: row.get(1).unwrap(),
                last_seq: number(row, 2),
                used: number(row, 3),
                used_hour: row.get(4).unwrap(),
                removed_to: number(row, 5),
            };
            (id, organization)
        });
        let sql = "SELECT id, lane, organization, deleted_at IS NOT NULL FROM esl_subscriptions";
        let subscriptions = all(connection, sql, |row| {
            let (organization, is_deleted) = (row.get(2).unwrap(), row.get(3).unwrap());
            let subscription = SubscriptionRow { lane: lane(row, 1), organization, is_deleted };
            (SubscriptionId::from_bytes(row.get(0).unwrap()), subscription)
        });
        let sql = "SELECT id, key >> 40, key & ((1 << 40) - 1), body, deliveries,
                erased_at IS NOT NULL FROM esl_events";
        let events = all(connection, sql, |row| {
            let event = EventRow {
                organization: row.get(1).unwrap(),
                seq: number(row, 2),
                body: row.get(3).unwrap(),
                deliveries: row.get(4).unwrap(),
                is_erased: row.get(5).unwrap(),
            };
            (EventId::from_bytes(row.get(0).unwrap()), event)
        });
        let delivery =
            |row: &Row<'_>| (lane(row, 0), Seq::new(number(row, 1)), row.get(2).unwrap());
        let open = all(connection, "SELECT lane, seq, due_at = 0 FROM esl_open", delivery);
        let closed = all(connection, "SELECT lane, seq, state = 0 FROM esl_closed", delivery);
        Self {
            organizations: organizations.into_iter().collect(),
            subscriptions: subscriptions.into_iter().collect(),
            events: events.into_iter().collect(),
            open: open.into_iter().collect(),
            closed: closed.into_iter().collect(),
            audited,
            people: all(connection, people, event).into_iter().collect(),
            intake: all(connection, "SELECT event_id FROM esl_intake", event).into_iter().collect(),
        }
    }

    /// Nothing is there by halves.
    fn check_each_other(&self) {
        assert_eq!(self.people, self.intake, "the application's row and its event");
        for (id, row) in &self.organizations {
            let events = self.events.values().filter(|event| event.organization == row.key);
            let seqs: BTreeSet<_> = events.map(|event| event.seq).collect();
            let kept = row.removed_to + 1..=row.last_seq;
            assert!(kept.clone().all(|seq| seqs.contains(&seq)), "{id}: a gap");
            assert!(seqs.last().is_none_or(|last| *last <= row.last_seq), "{id}: too far");
            // Of the hour only in which it published last.
            let is_exact = row.used_hour == *FIRST_HOUR;
            assert!(row.used <= row.last_seq, "{id}: {} of {}", row.used, row.last_seq);
            assert!(row.used == row.last_seq || !is_exact, "{id}: {} used", row.used);
            self.assert_audited(&id.to_string(), "organization.created");
        }
        for (id, row) in &self.subscriptions {
            self.assert_audited(&id.to_string(), "subscription.created");
            if row.is_deleted {
                self.assert_audited(&id.to_string(), "subscription.deleted");
            }
        }
        let created =
            |action: &str| self.audited.values().flatten().filter(|taken| *taken == action).count();
        assert_eq!(created("organization.created"), self.organizations.len());
        assert_eq!(created("subscription.created"), self.subscriptions.len());
        let open = self.open.iter().map(|(lane, seq, _)| (*lane, *seq));
        let closed = self.closed.iter().map(|(lane, seq, _)| (*lane, *seq));
        let closed: BTreeSet<_> = closed.collect();
        let mut counts: BTreeMap<(i64, u64), u32> = BTreeMap::new();
        let lanes = self.lanes();
        for (lane, seq) in open.clone().chain(closed.iter().copied()) {
            *counts.entry((lanes[&lane], seq.get())).or_default() += 1;
        }
        assert!(open.clone().all(|delivery| !closed.contains(&delivery)), "open and closed");
        for row in self.organizations.values() {
            let events = self.events.values().filter(|event| event.organization == row.key);
            for event in events.filter(|event| event.seq > row.removed_to) {
                let owed = counts.remove(&(row.key, event.seq)).unwrap_or(0);
                assert_eq!(owed, event.deliveries, "{} of {}", event.seq, row.key);
            }
            counts.retain(|(key, seq), _| *key != row.key || *seq > row.removed_to);
        }
        assert_eq!(counts, BTreeMap::new(), "deliveries of no event");
    }

    fn assert_audited(&self, subject: &str, action: &str) {
        let trail = self.audited.get(subject);
        assert!(trail.is_some_and(|trail| trail.iter().any(|it| it == action)), "{subject}");
    }

    /// All that was acknowledged is there, and what was tried is there as it was meant or not at all.
    fn check_against(&self, book: &Book) -> Found {
        for (id, is_acknowledged) in &book.organizations {
            assert!(self.organizations.contains_key(id) || !is_acknowledged, "{id} is lost");
        }
        for (id, subscribed) in &book.subscriptions {
            let Some(row) = self.subscriptions.get(id) else {
                assert!(!subscribed.is_created, "{id} is lost");
                continue;
            };
            let deleted = subscribed.is_deleted;
            assert!(deleted.is_none_or(|done| row.is_deleted || !done), "{id}: deletion is lost");
            assert!(deleted.is_some() || !row.is_deleted, "{id}: nobody has deleted it");
        }
        for (id, is_acknowledged) in &book.people {
            assert!(self.people.contains(id) || !is_acknowledged, "{id} in the outbox is lost");
        }
        let mut found = Found::default();
        for (id, told) in &book.events {
            let Some(row) = self.events.get(id) else {
                let removed_to = self.organizations.get(&told.event.organization);
                let removed_to = removed_to.map_or(0, |organization| organization.removed_to);
                let accepted = told.accepted.filter(|accepted| accepted.seq.get() > removed_to);
                assert_eq!(accepted, None, "an acknowledged event is lost");
                continue;
            };
            match told.accepted {
                Some(accepted) => {
                    found.acknowledged += 1;
                    assert_eq!(accepted.seq.get(), row.seq, "{id}");
                }
                None => found.unacknowledged += 1,
            }
            assert_eq!(told.deliveries, row.deliveries, "{id}");
            assert!(told.is_erased != Some(true) || row.is_erased, "{id}: it was erased");
            assert!(told.is_erased.is_some() || !row.is_erased, "{id}: nobody has erased it");
            assert_eq!(row.body == told.event.body, !row.is_erased, "{id}");
        }
        let is_known = |id: &&EventId| book.events.contains_key(*id);
        assert!(self.events.keys().all(|id| is_known(&id)), "an event that was refused is there");
        let kept: BTreeSet<_> = self.events.keys().copied().collect();
        let keeps_all: BTreeSet<_> = self
            .organizations
            .iter()
            .filter(|it| it.1.removed_to == 0)
            .map(|(id, _)| *id)
            .collect();
        for (unit, there) in book.units_of(&kept, &keeps_all) {
            assert_eq!(there.len(), 1, "unit {unit} is there in part");
        }
        self.check_settled(book);
        found
    }

    fn check_settled(&self, book: &Book) {
        let gone = self.gone();
        for ((lane, seq), (outcome, is_acknowledged)) in &book.settled {
            if !is_acknowledged || gone.lanes.contains(lane) || gone.is_gone(*lane, *seq) {
                continue;
            }
            let is_kept = match outcome {
                Outcome::Delivered => self.closed.contains(&(*lane, *seq, true)),
                _ => self.open.contains(&(*lane, *seq, false)),
            };
            assert!(is_kept, "a settlement is lost: {lane:?} {seq:?} {outcome:?}");
        }
    }

    /// Whose deliveries become what nobody has settled.
    fn gone(&self) -> Gone {
        let deleted = self.subscriptions.values().filter(|row| row.is_deleted);
        let erased = self.events.values().filter(|event| event.is_erased);
        let removed_to = self.organizations.values().map(|row| (row.key, row.removed_to)).collect();
        Gone {
            lanes: deleted.map(|row| row.lane).collect(),
            erased: erased.map(|event| (event.organization, event.seq)).collect(),
            removed_to,
            organizations: self.lanes(),
        }
    }

    /// From now on, what is there was acknowledged, and nothing else was.
    fn reconcile(&self, book: &mut Book) {
        book.organizations = self.organizations.keys().map(|id| (*id, true)).collect();
        book.people = self.people.iter().map(|id| (*id, true)).collect();
        book.subscriptions.retain(|id, _| self.subscriptions.contains_key(id));
        for (id, subscribed) in &mut book.subscriptions {
            subscribed.is_created = true;
            subscribed.is_deleted = self.subscriptions[id].is_deleted.then_some(true);
        }
        book.events.retain(|id, _| self.events.contains_key(id));
        for (id, told) in &mut book.events {
            let row = &self.events[id];
            told.is_erased = row.is_erased.then_some(true);
            told.accepted = Some(Accepted {
                id: *id,
                seq: Seq::new(row.seq),
                deliveries: told.deliveries,
                repeated: false,
                fanned_out: false,
            });
        }
        book.settled.retain(|(lane, seq), (outcome, is_acknowledged)| {
            *is_acknowledged |= match outcome {
                Outcome::Delivered => self.closed.contains(&(*lane, *seq, true)),
                _ => self.open.contains(&(*lane, *seq, false)),
            };
            *is_acknowledged
        });
    }

    /// The organization of each lane.
    fn lanes(&self) -> BTreeMap<LaneId, i64> {
        self.subscriptions.values().map(|row| (row.lane, row.organization)).collect()
    }
}

struct Gone {
    lanes: BTreeSet<LaneId>,
    erased: BTreeSet<(i64, u64)>,
    removed_to: BTreeMap<i64, u64>,
    organizations: BTreeMap<LaneId, i64>,
}

impl Gone {
    fn is_gone(&self, lane: LaneId, seq: Seq) -> bool {
        let organization = self.organizations[&lane];
        self.erased.contains(&(organization, seq.get()))
            || seq.get() <= self.removed_to[&organization]
    }
}

fn all<T>(connection: &Connection, sql: &str, read: impl Fn(&Row<'_>) -> T) -> Vec<T> {
    let mut select = connection.prepare(sql).unwrap();
    select.query_map([], |row| Ok(read(row))).unwrap().map(Result::unwrap).collect()
}

fn number(row: &Row<'_>, index: usize) -> u64 {
    row.get::<_, i64>(index).unwrap().try_into().unwrap()
}

/// As `esl_organizations.used_hour` has it.
static FIRST_HOUR: LazyLock<i64> =
    LazyLock::new(|| SystemClock::new().utc().as_millis() / 3_600_000);

/// To be called before anything is published.
pub(crate) fn note_the_hour() {
    LazyLock::force(&FIRST_HOUR);
}
