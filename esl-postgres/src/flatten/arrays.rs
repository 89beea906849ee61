//! The arrays of a group, and the statement that takes them.

use std::sync::LazyLock;

use tokio_postgres::types::{ToSql, Type};

use crate::{id::Id16, parameters::Typed};

/// The statement that commits a group, with its arguments by their names.
pub(crate) static COMMIT: LazyLock<String> = LazyLock::new(|| {
    let flat = Flat::default();
    let columns =
        "codes, details, seqs, counts, flags, hours, used, firsts, cancelled, switched_off";
    call(columns, "commit_1", &flat.named(&None, &Id16([0; 16]), &0))
});

/// A call of a function, with its arguments by their names.
pub(super) fn call(columns: &str, function: &str, arguments: &[Argument<'_>]) -> String {
    let arguments = arguments.iter().zip(1..);
    let arguments: Vec<_> =
        arguments.map(|((name, ..), place)| format!("{name} => ${place}")).collect();
    format!("SELECT {columns} FROM esl.{function}({})", arguments.join(", "))
}

/// An argument: its name, its value and its type.
pub(super) type Argument<'a> = (&'static str, &'a (dyn ToSql + Sync), Type);

/// Columns of like length, each an array of its own.
macro_rules! arrays {
    ($(#[$doc:meta])* $table:ident $(<$life:lifetime>)?, $prefix:literal { $($column:ident: $value:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default, PartialEq)]
        pub(super) struct $table $(<$life>)? {
            $(pub(super) $column: Vec<$value>,)+
        }

        impl $(<$life>)? $table $(<$life>)? {
            pub(super) fn arguments<'a>(&'a self, arguments: &mut Vec<Argument<'a>>) {
                $(arguments.push((
                    concat!($prefix, stringify!($column)),
                    &self.$column,
                    <Vec<$value> as Typed>::TYPE,
                ));)+
            }
        }
    };
}

pub(super) use arrays;

arrays! {
    /// The units.
    Units<'u>, "u_" {
        org: Option<i32>,
        version: Option<i64>,
        worker: Option<i32>,
        first: i32,
        last: i32,
        last_notice: i32,
        key: Option<&'u str>,
        fingerprint: Option<&'u [u8]>,
        same: Option<i32>,
        refuses: Option<bool>,
        limit: Option<i64>,
        warning_at: Option<i64>,
        exceeded_at: Option<i64>,
    }
}

arrays! {
    /// Their events, each unit's notices behind its own.
    Events<'u>, "e_" {
        unit: i32,
        id: Id16,
        event_type: &'u str,
        at: i64,
        digest: Option<&'u [u8]>,
        body: &'u [u8],
        changes: Option<&'u [u8]>,
        deliveries: i64,
        audience: Option<i64>,
        last_lane: Option<i64>,
        large: bool,
        same: Option<i32>,
        intake: Option<i64>,
        hour: Option<i64>,
        threshold: Option<i16>,
    }
}

arrays! {
    /// What is owed of events.
    Deliveries, "d_" {
        event: i32,
        lane: i64,
    }
}

arrays! {
    /// Slices of fan-outs.
    Expands, "x_" {
        unit: i32,
        org: i32,
        seq: i64,
        version: i64,
        after: i64,
        next: Option<i64>,
    }
}

arrays! {
    /// Their lanes.
    ExpandLanes, "xl_" {
        expand: i32,
        lane: i64,
    }
}

arrays! {
    Settlements, "s_" {
        unit: i32,
        lane: i64,
        seq: i64,
        outcome: i16,
        due: Option<i64>,
        attempts: i64,
        charged: i64,
        at: i64,
        status: Option<i32>,
        error: Option<i16>,
        before: i64,
        wave: i32,
    }
}

arrays! {
    Attempts<'u>, "a_" {
        settlement: i32,
        number: i64,
        started_at: i64,
        status: Option<i32>,
        error: Option<i16>,
        detail: Option<&'u [u8]>,
        probe: bool,
        charged: bool,
        resolve_ns: Option<i64>,
        connect_ns: Option<i64>,
        tls_ns: Option<i64>,
        first_byte_ns: Option<i64>,
        total_ns: i64,
    }
}

arrays! {
    LaneStates, "l_" {
        unit: i32,
        lane: i64,
        failures: i64,
        failed_deliveries: i64,
        failing_since: Option<i64>,
        open_probes: Option<i64>,
        not_before: Option<i64>,
        last_success_at: Option<i64>,
        exhaustion_told_at: Option<i64>,
    }
}

arrays! {
    SwitchOffs, "w_" {
        unit: i32,
        lane: i64,
        reason: &'static str,
    }
}

arrays! {
    /// The entities that are written, each once.
    Entities<'u>, "k_" {
        org: i32,
        kind: &'u str,
        id: &'u str,
    }
}

arrays! {
    /// What is expected of them, and what becomes of them.
    Steps<'u>, "n_" {
        unit: i32,
        entity: i32,
        expected: i16,
        revision: Option<i64>,
        version: Option<i64>,
        action: i16,
        by: i32,
        created_at: Option<i64>,
        updated_at: Option<i64>,
        due_at: Option<i64>,
        document: Option<&'u [u8]>,
    }
}

arrays! {
    /// What becomes of their index.
    IndexEntries<'u>, "ni_" {
        step: i32,
        field: &'u [u8],
        value: &'u [u8],
        is_in: bool,
    }
}

/// A group.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Flat<'u> {
    pub(super) organizations: Vec<Id16>,
    pub(super) workers: Vec<Id16>,
    pub(super) epochs: Vec<i32>,
    pub(super) units: Units<'u>,
    pub(super) events: Events<'u>,
    pub(super) deliveries: Deliveries,
    pub(super) expands: Expands,
    pub(super) expand_lanes: ExpandLanes,
    pub(super) settlements: Settlements,
    pub(super) attempts: Attempts<'u>,
    pub(super) lane_states: LaneStates,
    pub(super) switch_offs: SwitchOffs,
    pub(super) entities: Entities<'u>,
    pub(super) steps: Steps<'u>,
    pub(super) index_entries: IndexEntries<'u>,
}

impl Flat<'_> {
    /// The arguments of the call, in the order of [`COMMIT`].
    pub(crate) fn arguments<'a>(
        &'a self,
        now: &'a Option<i64>,
        handle: &'a Id16,
        number: &'a i64,
    ) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
        let named = self.named(now, handle, number);
        named.into_iter().map(|(_, value, ty)| (value, ty)).collect()
    }

    pub(super) fn named<'a>(
        &'a self,
        now: &'a Option<i64>,
        handle: &'a Id16,
        number: &'a i64,
    ) -> Vec<Argument<'a>> {
        let mut arguments: Vec<Argument<'a>> = vec![
            ("p_now", now, Type::INT8),
            ("p_handle", handle, Type::UUID),
            ("p_number", number, Type::INT8),
            ("p_organizations", &self.organizations, Type::UUID_ARRAY),
            ("p_workers", &self.workers, Type::UUID_ARRAY),
            ("p_epochs", &self.epochs, Type::INT4_ARRAY),
        ];
        self.units.arguments(&mut arguments);
        self.events.arguments(&mut arguments);
        self.deliveries.arguments(&mut arguments);
        self.expands.arguments(&mut arguments);
        self.expand_lanes.arguments(&mut arguments);
        self.settlements.arguments(&mut arguments);
        self.attempts.arguments(&mut arguments);
        self.lane_states.arguments(&mut arguments);
        self.switch_offs.arguments(&mut arguments);
        self.entities.arguments(&mut arguments);
        self.steps.arguments(&mut arguments);
        self.index_entries.arguments(&mut arguments);
        arguments
    }
}
