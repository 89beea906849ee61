//! What comes and goes leaves no room taken: the tables, and the work of removing, stay as large as what is kept.

use std::{sync::Arc, time::Duration};

use esl_core::{
    Attempt, AttemptError, EntityKey, LaneId, OrganizationId, Seq, Timestamp, Timings,
    storage::{
        EntityAction, EntityStep, EntityWrite, Expected, Idempotency, IndexEntry, IndexValue,
        Lanes, Outcome, Publish, PutEntity, Removal, RouteVersion, Settle, Settlement, Tenure,
        Unit, Worker,
    },
    testing::ManualClock,
};
use esl_postgres::PostgresStorage;

use crate::{
    cluster::{self, Observer},
    growth::plans::Watch,
    publishing::{CommitAll, Publisher, publish, worker_id},
};

const ROUNDS: usize = 10;
/// Groups in a round, units in a group, events in a unit.
const VOLUME: [usize; 3] = [10, 5, 100];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);

#[tokio::test]
async fn what_comes_and_goes_leaves_the_tables_as_small_as_they_were() {
    let Some(own) = cluster::own() else { return };
    let schema = cluster::new_schema();
    let database = cluster::new_database().await;
    let mut watch = Watch::new(own, &schema, &database);
    let clock = ManualClock::new(NOON);
    let url = watch.url();
    // Connections that end have said what they did, which autovacuum goes by.
    let open = async || {
        let options = PostgresStorage::options().schema(&schema).clock(Arc::new(clock.clone()));
        let storage = options.may_lose_everything().open(&url).await.unwrap();
        Publisher { schema: schema.clone(), storage }
    };
    let publisher = open().await;
    let organization = publisher.organization().await;
    let [quick, failing] = [publisher.lane(organization).await, publisher.lane(organization).await];
    let version = publisher.version(organization).await;
    drop(publisher);
    let vacuum = Vacuum::new(&schema, &database).await;
    let (mut sizes, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let publisher = open().await;
        let worker = publisher.storage.enlist(worker_id(), Tenure::default()).await.unwrap().0;
        for _ in 0..VOLUME[0] {
            let round = Round { publisher: &publisher, organization, version, quick, failing };
            round.publish_and_settle(&worker).await;
            round.write_entities().await;
        }
        drop(publisher);
        vacuum.run().await;
        // A day and an hour later all of it is old.
        clock.advance(DAY + Duration::from_secs(60 * 60));
        let Publisher { storage, .. } = open().await;
        let worker = storage.enlist(worker_id(), Tenure::default()).await.unwrap().0;
        while storage.sweep(&worker, 500).await.unwrap().more {}
        watch.look();
        let mut slices = 0;
        while storage.remove_old(&worker, Some(DAY), 500).await.unwrap().more {
            slices += 1;
        }
        let blocks: u64 = watch.look().iter().map(|ran| ran.blocks).sum();
        costs.push(blocks / slices);
        drop(storage);
        vacuum.run().await;
        sizes.push(vacuum.size().await);
    }
    let left = "SELECT (SELECT count(*) FROM esl.events) + (SELECT count(*) FROM esl.attempts)
            + (SELECT count(*) FROM esl.closed) + (SELECT count(*) FROM esl.idempotency)
            + (SELECT count(*) FROM esl.open) + (SELECT count(*) FROM esl.entities)
            + (SELECT count(*) FROM esl.entity_index)";
    assert_eq!(vacuum.number(left).await, 0);
    // What is vacuumed by a number of rows is so in every other round.
    let largest = |sizes: &[i64]| sizes.iter().copied().max().unwrap();
    let (before, last) = (largest(&sizes[ROUNDS - 6..ROUNDS - 3]), largest(&sizes[ROUNDS - 3..]));
    assert!(last * 10 < before * 11, "{sizes:?}: {}", vacuum.largest().await);
    assert!(costs[ROUNDS - 1] * 10 < costs[1] * 13, "pages of a slice of removing: {costs:?}");
}

/// What is published and settled in one commit each.
struct Round<'p> {
    publisher: &'p Publisher,
    organization: OrganizationId,
    version: RouteVersion,
    quick: LaneId,
    failing: LaneId,
}

impl Round<'_> {
    async fn publish_and_settle(&self, worker: &Worker) {
        let Self { publisher, organization, version, quick, failing } = *self;
        let [_, units, events] = VOLUME;
        let unit = |_| {
            let publish = publish(organization, version, events, &[quick, failing]);
            let key = publish.events[0].event.id.to_string();
            let idempotency = Some(Idempotency { key, fingerprint: [0; 32] });
            Unit::publish(Publish { idempotency, ..publish })
        };
        let committed = publisher.storage.commit_all((0..units).map(unit).collect()).await;
        let seqs: Vec<Seq> = committed
            .into_iter()
            .flat_map(|unit| unit.unwrap().events)
            .map(|accepted| accepted.seq)
            .collect();
        for attempt in 1..=3 {
            let mut settlements: Vec<Settlement> =
                seqs.iter().map(|seq| settlement(failing, *seq, attempt)).collect();
            if attempt == 1 {
                settlements.extend(seqs.iter().map(|seq| settlement(quick, *seq, 3)));
            }
            let (lanes, switch_offs) = (Vec::new(), Vec::new());
            let settle = Settle { worker: *worker, settlements, lanes, switch_offs };
            publisher.commit(Unit::settle(settle)).await.unwrap();
        }
    }
}

impl Round<'_> {
    /// Entities that come, change and go.
    async fn write_entities(&self) {
        let put = |revision: u64| {
            let entry = |revision: u64| IndexEntry {
                field: "revision".into(),
                value: IndexValue(revision.to_be_bytes().into()),
            };
            let before = revision.checked_sub(1);
            EntityAction::Put(PutEntity {
                created_at: NOON,
                updated_at: NOON,
                due_at: None,
                document: format!("\"{}\"", "x".repeat(4000)).into(),
                unindexed: before.map(entry).into_iter().collect(),
                indexed: vec![entry(revision)],
            })
        };
        for revision in 0..=5 {
            let (expected, action) = match revision {
                0 => (Expected::Absent, put(0)),
                1..5 => (Expected::Revision(revision), put(revision)),
                _ => (Expected::Revision(revision), EntityAction::Delete),
            };
            let step = |number: usize| EntityStep {
                key: EntityKey::new(
                    "person".parse().unwrap(),
                    format!("id_{number}").parse().unwrap(),
                ),
                expected,
                action: action.clone(),
            };
            let steps = (0..VOLUME[2]).map(step).collect();
            let write = EntityWrite { organization: self.organization, steps };
            self.publisher.commit(Unit::write(write)).await.unwrap();
        }
    }
}

/// Twice it fails, and then it does not.
fn settlement(lane: LaneId, seq: Seq, attempts: u32) -> Settlement {
    let failed = attempts < 3;
    let error = failed.then_some(AttemptError::Status);
    let attempt = Attempt {
        number: attempts,
        started_at: NOON,
        status: Some(500),
        error,
        detail: None,
        probe: false,
        charged: true,
        timings: Timings::default(),
    };
    Settlement {
        lane,
        seq,
        outcome: if failed { Outcome::RetryAt(NOON) } else { Outcome::Delivered },
        attempts,
        charged: attempts,
        at: NOON,
        status: Some(if failed { 500 } else { 200 }),
        error,
        log: vec![attempt],
    }
}

/// Vacuums tables when autovacuum would, as the schema sets it, whatever else the machine does.
struct Vacuum {
    schema: String,
    observer: Observer,
}

impl Vacuum {
    async fn new(schema: &str, database: &str) -> Self {
        let observer = Observer::connect_to(database).await;
        let vacuum = Self { schema: schema.to_owned(), observer };
        for row in vacuum.observer.client.query(TABLES, &[&schema]).await.unwrap() {
            let table: &str = row.get(0);
            vacuum.write(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
        }
        vacuum
    }

    async fn run(&self) {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        while self.observer.number(others, &[&self.schema]).await > 0 {
            tokio::task::yield_now().await;
        }
        for row in self.observer.client.query(DUE, &[&self.schema]).await.unwrap() {
            let table: &str = row.get(0);
            self.write(&format!("VACUUM {table}")).await;
        }
    }

    async fn size(&self) -> i64 {
        self.observer.number(SIZE, &[&self.schema]).await
    }

    /// The largest tables, for whoever has to find out.
    async fn largest(&self) -> String {
        let rows = self.observer.client.query(LARGEST, &[&self.schema]).await.unwrap();
        rows.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<_>>().join(", ")
    }

    async fn number(&self, sql: &str) -> i64 {
        self.observer.number(&sql.replace("esl.", &format!("{}.", self.schema)), &[]).await
    }

    async fn write(&self, sql: &str) {
        self.observer.client.batch_execute(sql).await.unwrap();
    }
}

const TABLES: &str = "
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = $1::text::regnamespace";

/// A table's own thresholds are its TOAST table's, too, and both are vacuumed together.
const DUE: &str = "
WITH tables AS (
    SELECT c.oid, c.reltoastrelid, (
            SELECT o.option_value::float8 FROM pg_options_to_table(c.reloptions) o
            WHERE o.option_name = 'autovacuum_vacuum_threshold'
        ) AS threshold, (
            SELECT o.option_value::float8 FROM pg_options_to_table(c.reloptions) o
            WHERE o.option_name = 'autovacuum_vacuum_scale_factor'
        ) AS share
    FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = $1::text::regnamespace
)
SELECT DISTINCT t.oid::regclass::text
FROM tables t
CROSS JOIN LATERAL unnest(ARRAY[t.oid, t.reltoastrelid]) AS r (oid)
WHERE pg_stat_get_dead_tuples(r.oid)
    > coalesce(t.threshold, 50) + coalesce(t.share, 0.2) * pg_stat_get_live_tuples(r.oid)";

const SIZE: &str = "
SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = $1::text::regnamespace";

const LARGEST: &str = "
SELECT c.relname || ' ' || pg_total_relation_size(c.oid) FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = $1::text::regnamespace
ORDER BY pg_total_relation_size(c.oid) DESC LIMIT 8";
