//! What a storage holds, as tables that adapters agree on.
//!
//! Each adapter has tables of its own, of about these names and columns, and reads and writes them in this
//! form. A table begins with the columns of its key. What belongs to an engine that runs (epochs, whose a
//! lane is, news for others) is not in the list: it is over when the engine is.

/// A table: its name, and its columns, those of its key first.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// What it is called.
    pub name: &'static str,
    /// Its columns, in the order of rows.
    pub columns: &'static [Column],
    /// How many of the columns, from the first on, are its key.
    pub key: usize,
    /// Whether its key is a number that storage gives out, so that the next one has to be known, too.
    pub is_numbered: bool,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// What it is called.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
}

/// What the values of a column are, if there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Number,
    /// Yes or no: 1 or 0.
    Flag,
    /// The 16 bytes of an id.
    Id,
    /// Bytes.
    Bytes,
    /// A text of ours, which holds no NUL.
    Text,
    /// A text that others have written, and that holds anything.
    Words,
    /// A secret, in plain or sealed; the column `sealed` says which.
    Secret,
}

impl Table {
    /// The names of the columns.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|column| column.name)
    }

    /// The columns of the key.
    #[must_use]
    pub fn key_columns(&self) -> &'static [Column] {
        &self.columns[..self.key]
    }

    /// The table of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }
}

macro_rules! tables {
    ($($name:ident $(numbered $numbered:literal)? by $key:literal { $($column:ident: $kind:ident,)+ })+) => {
        /// Every table, in the order in which they are moved.
        pub const TABLES: &[Table] = &[$(Table {
            name: stringify!($name),
            columns: &[$(Column { name: stringify!($column), kind: Kind::$kind }),+],
            key: $key,
            is_numbered: false $(|| $numbered)?,
        }),+];
    };
}

tables! {
    organizations numbered true by 1 {
        key: Number,
        id: Id,
        name: Words,
        created_at: Number,
        tier: Text,
        subscriptions_max: Text,
        events_per_hour: Text,
        retries: Number,
        last_seq: Number,
        route_version: Number,
        fan_outs: Number,
        removed_to: Number,
        used_hour: Number,
        used_events: Number,
        deleted_at: Number,
    }
    deleted_organizations by 1 {
        id: Id,
        deleted_at: Number,
    }
    subscriptions numbered true by 1 {
        lane: Number,
        id: Id,
        organization: Number,
        created_at: Number,
        callback_url: Words,
        events: Text,
        secret: Secret,
        old_secret: Secret,
        old_secret_until: Number,
        // Which of `secret` (1), `old_secret` (2) and `headers` (4) are sealed.
        sealed: Number,
        active: Flag,
        disabled_reason: Text,
        held_since: Number,
        expiring: Number,
        description: Words,
        metadata: Words,
        headers: Secret,
        retry_schedule: Text,
        timeout_ms: Number,
        max_per_second: Number,
        max_in_flight: Number,
        send_order: Text,
        on_exhausted: Text,
        updated_at: Number,
        deleted_at: Number,
        is_swept: Number,
    }
    lanes by 1 {
        lane: Number,
        failures: Number,
        failed_deliveries: Number,
        failing_since: Number,
        open_probes: Number,
        not_before: Number,
        last_success_at: Number,
        exhaustion_told_at: Number,
    }
    events by 2 {
        organization: Number,
        seq: Number,
        id: Id,
        event_type: Text,
        timestamp: Number,
        deliveries: Number,
        audience: Number,
        erased_at: Number,
        digest: Bytes,
        body: Bytes,
        changes: Bytes,
    }
    // `due_at` is 0 for what was never tried.
    open by 3 {
        lane: Number,
        due_at: Number,
        seq: Number,
        attempts: Number,
        charged: Number,
        created_at: Number,
        last_status: Number,
        last_error: Number,
    }
    closed by 2 {
        lane: Number,
        seq: Number,
        state: Number,
        attempts: Number,
        finished_at: Number,
        created_at: Number,
        last_status: Number,
        last_error: Number,
    }
    attempts by 3 {
        lane: Number,
        seq: Number,
        number: Number,
        started_at: Number,
        status: Number,
        error: Number,
        detail: Words,
        probe: Flag,
        charged: Flag,
        resolve_ns: Number,
        connect_ns: Number,
        tls_ns: Number,
        first_byte_ns: Number,
        total_ns: Number,
    }
    fan_outs by 2 {
        organization: Number,
        seq: Number,
        after_lane: Number,
        last_lane: Number,
        except_lane: Number,
    }
    erasures by 2 {
        organization: Number,
        seq: Number,
        after_lane: Number,
    }
    replays numbered true by 1 {
        number: Number,
        id: Id,
        lane: Number,
        kind: Number,
        from_seq: Number,
        to_seq: Number,
        since: Number,
        until: Number,
        max_per_second: Number,
        state: Text,
        position: Number,
        opened: Number,
        created_at: Number,
        finished_at: Number,
    }
    idempotency by 2 {
        organization: Number,
        key: Text,
        fingerprint: Bytes,
        answer: Bytes,
        created_at: Number,
    }
    intake numbered true by 1 {
        id: Number,
        organization: Id,
        event_id: Id,
        event_type: Text,
        timestamp: Number,
        digest: Bytes,
        body: Bytes,
        changes: Bytes,
    }
    scheduled numbered true by 1 {
        number: Number,
        due_at: Number,
        organization: Id,
        event_id: Id,
        event_type: Text,
        timestamp: Number,
        digest: Bytes,
        body: Bytes,
        changes: Bytes,
    }
    entities by 3 {
        organization: Number,
        kind: Text,
        id: Text,
        revision: Number,
        reference_count: Number,
        reference_version: Number,
        created_at: Number,
        updated_at: Number,
        due_at: Number,
        document: Bytes,
    }
    entity_index by 5 {
        organization: Number,
        kind: Text,
        field: Words,
        value: Bytes,
        id: Text,
    }
    clients by 1 {
        id: Words,
        organization: Number,
        secret: Bytes,
        scopes: Text,
        created_at: Number,
    }
    tokens by 1 {
        digest: Bytes,
        kind: Number,
        client: Words,
        organization: Number,
        family: Bytes,
        scopes: Text,
        expires_at: Number,
        used_at: Number,
    }
    audit numbered true by 1 {
        number: Number,
        organization: Id,
        at: Number,
        actor_kind: Text,
        actor_name: Words,
        address: Text,
        action: Text,
        subject: Words,
        fields: Text,
    }
    link_keys by 1 {
        number: Number,
        key: Secret,
        sealed: Flag,
        made_at: Number,
    }
    encryption_keys by 1 {
        id: Bytes,
        is_used: Flag,
    }
    feeds by 1 {
        name: Text,
        begun_at: Number,
    }
    feed_cursors by 2 {
        organization: Number,
        feed: Text,
        seq: Number,
    }
}
