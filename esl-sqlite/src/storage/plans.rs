//! For tests: how SQLite means to run a statement, and what it has run.
//!
//! That no statement does more the larger the database is, is held in three ways. [`every`] runs the whole
//! suite and reads the plan of every statement that any connection has run, and none in the source may be
//! one that was never run. [`growth`] counts what the calls cost in a small database and in a large one.
//! And where it matters which index is taken, a test beside the statement says so ([`assert_plan`]).

mod every;
mod growth;
mod source;
mod watch;

use rusqlite::{Connection, StatementStatus, params_from_iter};

pub(crate) use self::watch::watch;
use crate::storage::connection::keep_plans;

/// Every step of a statement's plan is one of those `allowed`, by its beginning, and the plan does not
/// depend on what the parameters are.
pub(crate) fn assert_plan(connection: &Connection, sql: &str, allowed: &[&str]) {
    keep_plans(connection).unwrap();
    let steps = steps(connection, sql);
    assert!(!steps.is_empty(), "{sql}");
    for step in &steps {
        let is_allowed = allowed.iter().any(|allowed| step.starts_with(allowed));
        assert!(is_allowed, "{step}\nof {steps:#?}\nfor {sql}");
    }
    assert_kept(connection, sql);
}

/// The steps of a statement's plan. Nobody runs `ANALYZE`, so it is the same in a database that is empty.
fn steps(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let parameters = vec![1; statement.parameter_count()];
    let steps =
        statement.query_map(params_from_iter(parameters), |row| row.get::<_, String>(3)).unwrap();
    steps.map(Result::unwrap).collect()
}

fn assert_kept(connection: &Connection, sql: &str) {
    let mut statement = connection.prepare(sql).unwrap();
    for value in 1..=3 {
        let parameters = vec![value; statement.parameter_count()];
        // What it finds, or is refused by a constraint, does not matter here.
        _ = statement
            .query(params_from_iter(parameters))
            .and_then(|mut rows| rows.next().map(drop));
    }
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "planned anew: {sql}");
}
