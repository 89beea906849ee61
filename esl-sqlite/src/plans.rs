//! For tests: how SQLite means to run a statement.

use rusqlite::Connection;

/// Every step of a statement's plan is one of those `allowed`, by its beginning.
pub(crate) fn assert_plan(connection: &Connection, sql: &str, allowed: &[&str]) {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let parameters = vec![1; statement.parameter_count()];
    let parameters = rusqlite::params_from_iter(parameters);
    let steps = statement.query_map(parameters, |row| row.get::<_, String>(3)).unwrap();
    let steps: Vec<_> = steps.map(Result::unwrap).collect();
    assert!(!steps.is_empty(), "{sql}");
    for step in &steps {
        let is_allowed = allowed.iter().any(|allowed| step.starts_with(allowed));
        assert!(is_allowed, "{step}\nof {steps:#?}\nfor {sql}");
    }
}
