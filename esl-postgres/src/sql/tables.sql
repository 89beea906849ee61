-- Ids are uuid: 16 bytes, ordered as bytes. Times are bigint: milliseconds, UTC. What a stranger's text can
-- be in is bytea: text cannot hold a NUL, and one such value would fail a whole group of commits.
-- There are no foreign keys: each would lock and look for a row at every insertion. That everything belongs
-- to something is the business of the functions beside this file.

CREATE TABLE esl.settings (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    -- Storage's time is the server's clock and this.
    clock_ahead_ms bigint NOT NULL DEFAULT 0,
    -- Storage's time when an epoch was last renewed, to a second.
    clock_latest bigint NOT NULL DEFAULT 0,
    installation uuid,
    -- By which a handle knows its own database on somebody else's connection.
    identity uuid NOT NULL DEFAULT gen_random_uuid(),
    -- What esl.publish goes by. Engines write it when they start.
    payload_bytes_max int NOT NULL DEFAULT 262144,
    erasures_begun bigint NOT NULL DEFAULT 0,
    erasures_cleaned bigint NOT NULL DEFAULT 0,
    -- Up to here rows of `changes` are gone.
    changes_removed_to bigint NOT NULL DEFAULT 0
);
INSERT INTO esl.settings DEFAULT VALUES;

-- The move of another storage's rows to here, if there is one or was: no engine starts until it is finished.
CREATE TABLE esl.transfer (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL,
    begun_at bigint NOT NULL,
    -- The last row that came: its table, and its key.
    last_table text,
    last_key bytea,
    arrived_at bigint
);

-- Engines

CREATE SEQUENCE esl.epochs AS int;

-- A row for each epoch that runs, or has lapsed of late.
CREATE TABLE esl.workers (
    id uuid PRIMARY KEY,
    epoch int NOT NULL UNIQUE,
    lapses_at bigint NOT NULL,
    takes_lanes bool NOT NULL,
    -- What it would lead in.
    duty text,
    -- Of the encryption keys that it has, one after the other.
    key_ids bytea
) WITH (fillfactor = 50);

CREATE TABLE esl.leaders (
    duty text PRIMARY KEY,
    epoch int NOT NULL
);

-- Whose a lane is. Apart from the lane's state, so that those who take and those who settle never meet.
CREATE TABLE esl.owners (
    lane bigint PRIMARY KEY,
    epoch int NOT NULL,
    -- Of the last call that has taken it: one that was made before does not let go of it.
    call bigint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX owners_by_epoch ON esl.owners (epoch);

-- The ledger: what the last group of commits of each handle came to.
CREATE TABLE esl.handles (
    id uuid PRIMARY KEY,
    number bigint NOT NULL,
    used_at bigint NOT NULL,
    answer_codes smallint[],
    answer_details int[],
    answer_seqs bigint[],
    answer_deliveries int[],
    answer_flags smallint[],
    answer_hours bigint[],
    answer_used bigint[],
    answer_firsts bytea[],
    answer_cancelled bool[],
    answer_switched_off uuid[],
    -- Of a plain group.
    answer_lasts bigint[]
);

-- What others are told, by `kind`: see `changes.rs`. The transaction has its number before the row has one:
-- so a row that is seen says that all transactions of lower rows have begun.
CREATE TABLE esl.changes (
    tx xid8 NOT NULL DEFAULT pg_current_xact_id(),
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author uuid,
    kind smallint NOT NULL,
    organization uuid,
    at bigint NOT NULL
);

-- Organizations and their subscriptions

-- Every commit writes its organization: that is cheap as long as there is room in the page, and no index on
-- what it writes.
CREATE TABLE esl.organizations (
    key int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL,
    name bytea NOT NULL,
    created_at bigint NOT NULL,
    tier text,
    subscriptions_max text,
    events_per_hour text,
    retries bigint,
    last_seq bigint NOT NULL DEFAULT 0,
    route_version bigint NOT NULL DEFAULT 0,
    -- How many are open.
    fan_outs int NOT NULL DEFAULT 0,
    removed_to bigint NOT NULL DEFAULT 0,
    used_hour bigint NOT NULL DEFAULT 0,
    used_events bigint NOT NULL DEFAULT 0,
    -- The row stays until all that was the organization's is removed; id and name are free at once.
    deleted_at bigint
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX organizations_id ON esl.organizations (id) WHERE deleted_at IS NULL;
-- Its condition is put so that no plan takes it for a way to an id.
CREATE UNIQUE INDEX organizations_name ON esl.organizations (name) WHERE (deleted_at IS NULL) IS TRUE;
CREATE INDEX organizations_deleted ON esl.organizations (key) WHERE deleted_at IS NOT NULL;

-- Whose events in the intake nobody waits for any more.
CREATE TABLE esl.deleted_organizations (
    id uuid PRIMARY KEY,
    deleted_at bigint NOT NULL
);

CREATE TABLE esl.subscriptions (
    -- Drawn while the organization's row is locked, so that lanes ascend within it in the order of commits.
    lane bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    organization int NOT NULL,
    created_at bigint NOT NULL,
    callback_url bytea NOT NULL,
    events text COLLATE "C" NOT NULL,
    secret bytea NOT NULL,
    old_secret bytea,
    old_secret_until bigint,
    -- Which of `secret` (1), `old_secret` (2) and `headers` (4) are encrypted.
    sealed smallint NOT NULL,
    active bool NOT NULL,
    disabled_reason text,
    held_since bigint,
    expiring bigint,
    description bytea,
    metadata bytea,
    headers bytea,
    retry_schedule text,
    timeout_ms bigint,
    max_per_second bigint,
    max_in_flight bigint,
    send_order text NOT NULL,
    on_exhausted text NOT NULL,
    updated_at bigint NOT NULL,
    deleted_at bigint,
    -- Of a deleted one: 1 once nothing is open, 2 once nothing is left.
    is_swept smallint NOT NULL DEFAULT 0
);
CREATE INDEX subscriptions_by_organization ON esl.subscriptions (organization, lane);
-- Its condition is put so that no plan goes through all of it for another index' sake: without statistics it
-- seems to have next to no rows.
CREATE INDEX subscriptions_live ON esl.subscriptions (organization, lane)
    WHERE (deleted_at IS NULL) IS TRUE;
CREATE INDEX subscriptions_to_sweep ON esl.subscriptions (lane)
    WHERE deleted_at IS NOT NULL AND is_swept = 0;
CREATE INDEX subscriptions_to_empty ON esl.subscriptions (organization, lane) WHERE is_swept < 2;
CREATE INDEX subscriptions_held ON esl.subscriptions (lane)
    WHERE deleted_at IS NULL AND (held_since IS NOT NULL OR expiring IS NOT NULL);
CREATE INDEX subscriptions_rotating ON esl.subscriptions (old_secret_until)
    WHERE old_secret_until IS NOT NULL;

-- How the receiver has fared.
CREATE TABLE esl.lanes (
    lane bigint PRIMARY KEY,
    failures bigint NOT NULL,
    failed_deliveries bigint NOT NULL,
    failing_since bigint,
    open_probes bigint,
    not_before bigint,
    last_success_at bigint,
    exhaustion_told_at bigint
) WITH (fillfactor = 70);

-- Events and deliveries

CREATE TABLE esl.events (
    organization int NOT NULL,
    seq bigint NOT NULL,
    id uuid NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    timestamp bigint NOT NULL,
    deliveries bigint NOT NULL,
    -- NULL for all, a lane for all but that one, and the lane below zero for that one alone.
    audience bigint,
    erased_at bigint,
    digest bytea,
    body bytea NOT NULL,
    changes bytea,
    PRIMARY KEY (organization, seq)
);
-- Put so that no plan takes it for a way to an organization's events, which a plan that was made when there
-- were none would stay with.
CREATE UNIQUE INDEX events_id ON esl.events (id, (organization + 0));
-- Whatever is large goes out of line as it is: envelopes are not worth the time that packing takes.
ALTER TABLE esl.events ALTER body SET STORAGE EXTERNAL, ALTER changes SET STORAGE EXTERNAL;

-- Deliveries that are due some time. `due_at` is 0 for what was never tried.
CREATE TABLE esl.open (
    lane bigint NOT NULL,
    due_at bigint NOT NULL,
    seq bigint NOT NULL,
    attempts bigint NOT NULL DEFAULT 0,
    charged bigint NOT NULL DEFAULT 0,
    created_at bigint,
    last_status int,
    last_error smallint,
    PRIMARY KEY (lane, due_at, seq)
);
CREATE INDEX open_tried ON esl.open (lane, seq) WHERE due_at > 0;

-- Deliveries that are over. `state`: 0 delivered, 1 exhausted, 2 expired, 3 cancelled.
CREATE TABLE esl.closed (
    lane bigint NOT NULL,
    seq bigint NOT NULL,
    state smallint NOT NULL,
    attempts bigint NOT NULL,
    finished_at bigint NOT NULL,
    created_at bigint,
    last_status int,
    last_error smallint,
    PRIMARY KEY (lane, seq)
);
CREATE INDEX closed_undelivered ON esl.closed (lane, state, seq) WHERE state <> 0;

CREATE TABLE esl.attempts (
    lane bigint NOT NULL,
    seq bigint NOT NULL,
    number bigint NOT NULL,
    started_at bigint NOT NULL,
    status int,
    error smallint,
    detail bytea,
    probe bool NOT NULL,
    charged bool NOT NULL,
    resolve_ns bigint,
    connect_ns bigint,
    tls_ns bigint,
    first_byte_ns bigint,
    total_ns bigint NOT NULL,
    PRIMARY KEY (lane, seq, number)
);

CREATE TABLE esl.fan_outs (
    organization int NOT NULL,
    seq bigint NOT NULL,
    after_lane bigint NOT NULL,
    last_lane bigint NOT NULL,
    except_lane bigint,
    PRIMARY KEY (organization, seq)
);

CREATE TABLE esl.erasures (
    organization int NOT NULL,
    seq bigint NOT NULL,
    after_lane bigint NOT NULL,
    PRIMARY KEY (organization, seq)
);

CREATE TABLE esl.replays (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    lane bigint NOT NULL,
    kind smallint NOT NULL,
    from_seq bigint NOT NULL,
    to_seq bigint NOT NULL,
    since bigint,
    until bigint,
    max_per_second bigint NOT NULL,
    state text NOT NULL,
    position bigint NOT NULL,
    opened bigint NOT NULL,
    created_at bigint NOT NULL,
    finished_at bigint
);
CREATE INDEX replays_by_lane ON esl.replays (lane, number);
-- Of two who begin one, one wins.
CREATE UNIQUE INDEX replays_running ON esl.replays (lane) WHERE state = 'running';
CREATE INDEX replays_in_turn ON esl.replays (number) WHERE state = 'running';
CREATE INDEX replays_finished ON esl.replays (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE esl.idempotency (
    organization int NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    -- 28 bytes an event: id, seq, deliveries.
    answer bytea NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (organization, key)
);
CREATE INDEX idempotency_by_age ON esl.idempotency (created_at);

-- Entities

-- Neither what is written nor what they know of each other is in an index, but for when they are due: so a new
-- version lies beside the old one while there is room in the page.
CREATE TABLE esl.entities (
    organization int NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    reference_count bigint NOT NULL,
    reference_version bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    due_at bigint,
    document bytea NOT NULL,
    PRIMARY KEY (organization, kind, id)
) WITH (fillfactor = 80);
ALTER TABLE esl.entities ALTER document SET STORAGE EXTERNAL;
-- A deleted organization has none that is due.
CREATE INDEX entities_due ON esl.entities (due_at) WHERE due_at IS NOT NULL;
-- Its condition is put so that no plan takes it for a way to those that are due, and sorts them.
CREATE INDEX entities_due_by_organization ON esl.entities (organization, kind, id)
    WHERE (due_at IS NOT NULL) IS TRUE;

CREATE TABLE esl.entity_index (
    organization int NOT NULL,
    kind text COLLATE "C" NOT NULL,
    field bytea NOT NULL,
    value bytea NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (organization, kind, field, value, id)
);
-- Put so that no plan takes it for a way to those that have a value, in the order of their ids.
CREATE INDEX entity_index_by_entity ON esl.entity_index ((organization + 0), (kind || ' ' || id));

-- Events on their way

-- Committed by somebody else's transaction. `body` is NULL for what esl.publish wrote: that is sealed when it
-- is read.
CREATE TABLE esl.intake (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization uuid NOT NULL,
    event_id uuid NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    timestamp bigint NOT NULL,
    digest bytea,
    body bytea,
    changes bytea,
    data text,
    metadata text,
    chose_id bool NOT NULL DEFAULT false
);
CREATE INDEX intake_by_organization ON esl.intake (organization, id);
CREATE INDEX intake_by_event ON esl.intake (event_id, organization);

CREATE TABLE esl.scheduled (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    due_at bigint NOT NULL,
    organization uuid NOT NULL,
    event_id uuid NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    timestamp bigint NOT NULL,
    digest bytea,
    body bytea NOT NULL,
    changes bytea
);
CREATE INDEX scheduled_by_due ON esl.scheduled (due_at, number);
CREATE INDEX scheduled_by_organization ON esl.scheduled (organization, number);
-- The event first, so that no plan goes through an organization's by it, and sorts them.
CREATE UNIQUE INDEX scheduled_by_event ON esl.scheduled (event_id, organization);

-- Who may, and who did

CREATE TABLE esl.clients (
    id bytea PRIMARY KEY,
    organization int NOT NULL,
    secret bytea NOT NULL,
    scopes text NOT NULL,
    created_at bigint NOT NULL
);
CREATE INDEX clients_by_organization ON esl.clients (organization, id);

CREATE TABLE esl.tokens (
    digest bytea PRIMARY KEY,
    kind smallint NOT NULL,
    client bytea NOT NULL,
    organization int NOT NULL,
    family bytea NOT NULL,
    scopes text NOT NULL,
    expires_at bigint NOT NULL,
    used_at bigint
);
CREATE INDEX tokens_by_client ON esl.tokens (organization, client, family);
CREATE INDEX tokens_by_expiry ON esl.tokens (expires_at);

-- By the organization's id, since it outlives the organization.
CREATE TABLE esl.audit (
    number bigint GENERATED ALWAYS AS IDENTITY,
    organization uuid NOT NULL,
    at bigint NOT NULL,
    actor_kind text NOT NULL,
    actor_name bytea,
    address text,
    action text NOT NULL,
    subject bytea NOT NULL,
    fields text NOT NULL,
    -- By number alone it would be a way to an organization's last entries that passes everybody else's.
    PRIMARY KEY (organization, number)
);
CREATE INDEX audit_by_age ON esl.audit (at);

CREATE TABLE esl.link_keys (
    number bigint PRIMARY KEY,
    key bytea NOT NULL,
    sealed bool NOT NULL,
    made_at bigint NOT NULL
);

CREATE TABLE esl.encryption_keys (
    id bytea PRIMARY KEY,
    is_used bool NOT NULL
);
-- Of those who re-encrypt at once, the last one to begin retires keys. A row of `settings` could say which it is,
-- but renewals of epochs would wait for it.
CREATE SEQUENCE esl.reencryptions;

-- Feeds, and how far each organization's events were passed on in them.
CREATE TABLE esl.feeds (
    name text PRIMARY KEY,
    begun_at bigint NOT NULL
);

CREATE TABLE esl.feed_cursors (
    feed text NOT NULL,
    organization int NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (organization, feed)
);
