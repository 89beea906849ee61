//! The tables, and how they come to be.
//!
//! ```text
//! esl_organizations ──┬─ esl_subscriptions (lane) ──┬─ esl_open      owed
//!   last_seq          │                             ├─ esl_closed    no longer owed
//!   route_version     │                             ├─ esl_attempts  what was tried, from a failure on
//!                     │                             └─ esl_lanes     how its receiver fares
//!                     ├─ esl_events (organization << 40 | seq)
//!                     ├─ esl_erasures  what is being erased, and how far that is
//!                     ├─ esl_fan_outs  events whose deliveries are made in slices
//!                     ├─ esl_idempotency
//!                     ├─ esl_entities ── esl_entity_index  what they are found by
//!                     └─ esl_clients ── esl_tokens
//! esl_feeds     what all events are passed on to; esl_feed_cursors: how far that is
//! esl_intake    events that an embedder has committed and the engine has yet to move
//! esl_scheduled events that go into the intake at a time of their own
//! esl_deleted_organizations  whose events in the intake nobody waits for any more
//! esl_audit     who has changed what
//! esl_changes   what others than the engine have changed
//! esl_encryption_keys  which keys secrets are sealed with
//! esl_link_keys what links to large payloads are signed with
//! esl_engine    one row: whose epoch it is, which installation this is, how often re-encrypting was begun,
//!               after how many erasures the files were cleaned, and whether all is moved to another
//!               database
//! ```
//!
//! A delivery is a row in exactly one of `esl_open` and `esl_closed`. In `esl_open`, `due_at` is 0
//! for one that was never tried; otherwise it is a retry, or was opened again. That the primary key
//! has `due_at` between lane and seq keeps the two kinds apart: both are ranges of it, the first row
//! of a lane says when the lane is due, and a new delivery costs one insertion into one tree.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use esl_core::{
    Timestamp,
    storage::{StorageError, StorageErrorKind},
};

use crate::storage::{config::OPEN, error::translate};

/// Every migration, in order; the first one is version 1. What is released is never edited.
const MIGRATIONS: &[&str] = &["
CREATE TABLE esl_organizations (
    key INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    tier TEXT,
    -- Instead of the tier's: a number, or 'unlimited'.
    subscriptions_max TEXT,
    events_per_hour TEXT,
    retries INTEGER,
    last_seq INTEGER NOT NULL DEFAULT 0,
    route_version INTEGER NOT NULL DEFAULT 0,
    fan_outs INTEGER NOT NULL DEFAULT 0,
    removed_to INTEGER NOT NULL DEFAULT 0,
    -- The last hour in which it published, and how much.
    used_hour INTEGER NOT NULL DEFAULT 0,
    used_events INTEGER NOT NULL DEFAULT 0,
    deleted_at INTEGER
);
CREATE INDEX esl_organizations_deleted ON esl_organizations (key) WHERE deleted_at IS NOT NULL;

-- The ids of those that were deleted, for whoever goes on committing events of them.
CREATE TABLE esl_deleted_organizations (
    id BLOB PRIMARY KEY,
    deleted_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE esl_subscriptions (
    lane INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    organization INTEGER NOT NULL,
    callback_url TEXT NOT NULL,
    events TEXT NOT NULL,
    -- A blob if it is sealed; so are the old one and the headers.
    secret TEXT NOT NULL,
    old_secret TEXT,
    old_secret_until INTEGER,
    active INTEGER NOT NULL,
    disabled_reason TEXT,
    held_since INTEGER,
    expiring INTEGER,
    description TEXT,
    metadata TEXT,
    headers TEXT,
    retry_schedule TEXT,
    timeout_ms INTEGER,
    max_per_second INTEGER,
    max_in_flight INTEGER,
    send_order TEXT NOT NULL,
    on_exhausted TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    is_swept INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX esl_subscriptions_by_organization ON esl_subscriptions (organization, lane);
CREATE INDEX esl_subscriptions_live ON esl_subscriptions (organization, lane)
    WHERE deleted_at IS NULL;
CREATE INDEX esl_subscriptions_to_sweep ON esl_subscriptions (lane)
    WHERE deleted_at IS NOT NULL AND is_swept = 0;
-- Of 1 nothing is open any more, of 2 nothing is left at all.
CREATE INDEX esl_subscriptions_to_empty ON esl_subscriptions (organization, lane)
    WHERE is_swept < 2;
CREATE INDEX esl_subscriptions_held ON esl_subscriptions (lane)
    WHERE deleted_at IS NULL AND (held_since IS NOT NULL OR expiring IS NOT NULL);
CREATE INDEX esl_subscriptions_rotating ON esl_subscriptions (old_secret_until)
    WHERE old_secret_until IS NOT NULL;

CREATE TABLE esl_events (
    key INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    event_type TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    digest BLOB,
    deliveries INTEGER NOT NULL,
    erased_at INTEGER,
    audience INTEGER,
    body BLOB NOT NULL,
    changes BLOB
);
-- An id belongs to its organization: nobody learns of, or takes, another's.
CREATE UNIQUE INDEX esl_events_by_id ON esl_events (id, key >> 40);

-- Events that are erased, of which lanes above this one may still owe or tell something.
CREATE TABLE esl_erasures (
    event INTEGER PRIMARY KEY,
    after_lane INTEGER NOT NULL
);

CREATE TABLE esl_fan_outs (
    organization INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    after_lane INTEGER NOT NULL,
    last_lane INTEGER NOT NULL,
    except_lane INTEGER,
    PRIMARY KEY (organization, seq)
) WITHOUT ROWID;

CREATE TABLE esl_open (
    lane INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    created_at INTEGER,
    last_status INTEGER,
    last_error INTEGER,
    PRIMARY KEY (lane, due_at, seq)
) WITHOUT ROWID;
CREATE INDEX esl_open_tried ON esl_open (lane, seq) WHERE due_at > 0;

CREATE TABLE esl_closed (
    lane INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    created_at INTEGER,
    last_status INTEGER,
    last_error INTEGER,
    PRIMARY KEY (lane, seq)
) WITHOUT ROWID;
CREATE INDEX esl_closed_undelivered ON esl_closed (lane, state, seq) WHERE state <> 0;

CREATE TABLE esl_attempts (
    lane INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    status INTEGER,
    error INTEGER,
    detail TEXT,
    probe INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    resolve_ns INTEGER,
    connect_ns INTEGER,
    tls_ns INTEGER,
    first_byte_ns INTEGER,
    total_ns INTEGER NOT NULL,
    PRIMARY KEY (lane, seq, number)
) WITHOUT ROWID;

CREATE TABLE esl_lanes (
    lane INTEGER PRIMARY KEY,
    failures INTEGER NOT NULL,
    failed_deliveries INTEGER NOT NULL,
    failing_since INTEGER,
    open_probes INTEGER,
    not_before INTEGER,
    last_success_at INTEGER,
    exhaustion_told_at INTEGER
);

CREATE TABLE esl_replays (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    lane INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq INTEGER NOT NULL,
    since INTEGER,
    until INTEGER,
    max_per_second INTEGER NOT NULL,
    state TEXT NOT NULL,
    position INTEGER NOT NULL,
    opened INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER
);
CREATE INDEX esl_replays_by_lane ON esl_replays (lane, number);
CREATE INDEX esl_replays_finished ON esl_replays (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX esl_replays_running ON esl_replays (number) WHERE state = 'running';

CREATE TABLE esl_idempotency (
    organization INTEGER NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    answer BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (organization, key)
) WITHOUT ROWID;
CREATE INDEX esl_idempotency_by_age ON esl_idempotency (created_at);

-- With a row id, since in a tree without one large rows leave little room for keys. Those who read the
-- others of its columns need not pass the document, which comes last.
CREATE TABLE esl_entities (
    organization INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    reference_count INTEGER NOT NULL,
    reference_version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    due_at INTEGER,
    -- Its rows of esl_entity_index, which are not found by its id.
    indexed BLOB NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (organization, kind, id)
);
CREATE INDEX esl_entities_due ON esl_entities (due_at, organization) WHERE due_at IS NOT NULL;

CREATE TABLE esl_entity_index (
    organization INTEGER NOT NULL,
    kind TEXT NOT NULL,
    field TEXT NOT NULL,
    value BLOB NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (organization, kind, field, value, id)
) WITHOUT ROWID;

CREATE TABLE esl_intake (
    id INTEGER PRIMARY KEY,
    organization BLOB NOT NULL,
    event_id BLOB NOT NULL,
    event_type TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    digest BLOB,
    body BLOB NOT NULL,
    changes BLOB
);

CREATE INDEX esl_intake_by_event ON esl_intake (event_id, organization);
-- Ends with the row's id, which is the order in which an organization's rows are moved.
CREATE INDEX esl_intake_by_organization ON esl_intake (organization);

CREATE TABLE esl_scheduled (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    due_at INTEGER NOT NULL,
    organization BLOB NOT NULL,
    event_id BLOB NOT NULL,
    event_type TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    digest BLOB,
    body BLOB NOT NULL,
    changes BLOB
);
CREATE INDEX esl_scheduled_by_due ON esl_scheduled (due_at);
CREATE INDEX esl_scheduled_by_organization ON esl_scheduled (organization, number);
CREATE UNIQUE INDEX esl_scheduled_by_event ON esl_scheduled (organization, event_id);

CREATE TABLE esl_feeds (
    name TEXT PRIMARY KEY,
    begun_at INTEGER NOT NULL
) WITHOUT ROWID;

-- An organization without a row, made after the feed was begun, is at its beginning.
CREATE TABLE esl_feed_cursors (
    organization INTEGER NOT NULL,
    feed TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (organization, feed)
) WITHOUT ROWID;

CREATE TABLE esl_link_keys (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL,
    made_at INTEGER NOT NULL
);

-- With what secrets may be sealed. What is written after the last re-encryption began makes it used.
CREATE TABLE esl_encryption_keys (
    id BLOB PRIMARY KEY,
    is_used INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE esl_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    author INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    organization BLOB
);
CREATE INDEX esl_changes_by_author ON esl_changes (author, kind, organization);

CREATE TABLE esl_clients (
    id TEXT PRIMARY KEY,
    organization INTEGER NOT NULL,
    secret BLOB NOT NULL,
    scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX esl_clients_by_organization ON esl_clients (organization);

CREATE TABLE esl_tokens (
    digest BLOB PRIMARY KEY,
    kind INTEGER NOT NULL,
    client TEXT NOT NULL,
    organization INTEGER NOT NULL,
    family BLOB NOT NULL,
    scopes TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER
) WITHOUT ROWID;
CREATE INDEX esl_tokens_by_client ON esl_tokens (organization, client, family);
CREATE INDEX esl_tokens_by_expiry ON esl_tokens (expires_at);

-- By the id of the organization, since it is kept when that is deleted. `fields` has spaces in between.
CREATE TABLE esl_audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    organization BLOB NOT NULL,
    at INTEGER NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_name TEXT,
    address TEXT,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    fields TEXT NOT NULL
);
CREATE INDEX esl_audit_by_organization ON esl_audit (organization, number);
CREATE INDEX esl_audit_by_age ON esl_audit (at);

CREATE TABLE esl_engine (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    worker BLOB,
    epoch INTEGER NOT NULL,
    lapses_at INTEGER NOT NULL,
    checked_at INTEGER NOT NULL,
    installation BLOB,
    -- Of the encryption keys that the engine has, one after the other.
    key_ids BLOB,
    reencryptions_begun INTEGER NOT NULL DEFAULT 0,
    erasures_begun INTEGER NOT NULL DEFAULT 0,
    erasures_cleaned INTEGER NOT NULL DEFAULT 0,
    erasures_washed INTEGER NOT NULL DEFAULT 0,
    -- The move to another database, which one that is, what it is called, and when all was there.
    leaving BLOB,
    leaving_to BLOB,
    leaving_to_name TEXT,
    left_at INTEGER
);
INSERT INTO esl_engine (one, worker, epoch, lapses_at, checked_at) VALUES (1, NULL, 0, 0, 0);
"];

/// Brings the tables to the version that this build knows, in one transaction.
pub(crate) fn migrate(connection: &Connection, now: Timestamp) -> Result<(), StorageError> {
    let failed = |error| translate(OPEN, error);
    // A look first: opening a database that is up to date waits for no writer.
    let is_new = !has_table(connection, "esl_migrations").map_err(failed)?;
    if !is_new && version(connection)? == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction =
        Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(failed)?;
    transaction.execute_batch(CREATE_MIGRATIONS).map_err(failed)?;
    let from = version(&transaction)?;
    for (version, migration) in (1_i64..).zip(MIGRATIONS).skip(from) {
        transaction.execute_batch(migration).map_err(failed)?;
        transaction
            .execute(
                "INSERT INTO esl_migrations (version, applied_at) VALUES (?1, ?2)",
                (version, now.as_millis()),
            )
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

const CREATE_MIGRATIONS: &str = "
CREATE TABLE IF NOT EXISTS esl_migrations (
    version INTEGER PRIMARY KEY,
    applied_at INTEGER NOT NULL
)";

/// How many migrations were applied.
fn version(connection: &Connection) -> Result<usize, StorageError> {
    let version: i64 = connection
        .query_row("SELECT coalesce(max(version), 0) FROM esl_migrations", [], |row| row.get(0))
        .map_err(|error| translate(OPEN, error))?;
    match usize::try_from(version) {
        Ok(known) if known <= MIGRATIONS.len() => Ok(known),
        _ => {
            let newest = MIGRATIONS.len();
            let message = format!(
                "its tables have version {version}, made by a newer ESL; this one knows {newest}"
            );
            Err(StorageError::new(StorageErrorKind::Unsupported, OPEN).with_source(message))
        }
    }
}

pub(crate) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1")?
        .exists([name])
}
