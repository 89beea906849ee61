//! Which events were taken: the table, and the handler's own transaction.

use std::time::{Duration, SystemTime};

use esl_core::{EventKey, SeenError};
use rusqlite::{Connection, ErrorCode};

/// Takes an event as part of the caller's transaction: `true` if it is taken with it, `false` if it was taken
/// before.
///
/// What the handler does in the same transaction is then done once, whatever happens: rolled back, or killed
/// before the commit, the event is not taken, and comes again; once committed, it is `false` each time it
/// comes. While another transaction takes the same event, this waits for how that ends, as long as the
/// connection waits for any other.
///
/// Let this be the first statement of the transaction, or begin that `IMMEDIATE`. The table, `esl_seen`, is
/// made if there is none, in the same transaction. A scope is a handler of the database: each takes an event
/// once, and [`SqliteSeen`](crate::SqliteSeen) with the same scope knows of it, too. What was taken more than
/// 30 days ago is forgotten, a few rows with each call.
///
/// Takes a [`Transaction`](rusqlite::Transaction) or a [`Savepoint`](rusqlite::Savepoint), for each is a
/// `&Connection` by itself. It blocks, as they do.
///
/// ```
/// use esl_core::EventKey;
/// use esl_sqlite::{rusqlite::{Connection, Transaction}, take_in};
///
/// fn handle(app: &mut Connection, event: EventKey) -> Result<(), Box<dyn std::error::Error>> {
///     let transaction = app.transaction()?;
///     if take_in(&transaction, "billing", event)? {
///         transaction.execute("UPDATE accounts SET paid = paid + 1", ())?;
///     }
///     transaction.commit()?;
///     Ok(()) // and now the answer
/// }
///
/// # let mut app = Connection::open_in_memory()?;
/// # app.execute_batch("CREATE TABLE accounts (paid INTEGER); INSERT INTO accounts VALUES (0)")?;
/// // Of an `Envelope` or an `Event`, it is `key()`.
/// let event = EventKey {
///     organization: "org_01J00000000000000000000000".parse()?,
///     event: "evt_01J00000000000000000000000".parse()?,
/// };
/// handle(&mut app, event)?;
/// handle(&mut app, event)?; // it came again
/// let paid: i64 = app.query_row("SELECT paid FROM accounts", (), |row| row.get(0))?;
/// assert_eq!(paid, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the connection is in no transaction, since the event would be taken before it is handled; and whatever
/// the database says, such as that another connection has written for too long.
pub fn take_in(transaction: &Connection, scope: &str, event: EventKey) -> Result<bool, SeenError> {
    if transaction.is_autocommit() {
        return Err(SeenError::writing("the connection is in no transaction"));
    }
    let taken = match take(transaction, scope, event, RETENTION) {
        // The only thing that could be wrong with the statements is that the table is not there.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => transaction
            .execute_batch(CREATE)
            .and_then(|()| take(transaction, scope, event, RETENTION)),
        taken => taken,
    };
    taken.map_err(SeenError::writing)
}

/// For how long an event is remembered where nothing else is said: as long as ESL keeps events by default,
/// and so may replay them.
pub(crate) const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Takes an event, if it was not taken before, and forgets a few that are older than `retention`.
pub(crate) fn take(
    connection: &Connection,
    scope: &str,
    event: EventKey,
    retention: Duration,
) -> rusqlite::Result<bool> {
    let now = millis(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
    let old = now.saturating_sub(millis(retention));
    connection.prepare_cached(FORGET)?.execute((scope, old))?;
    let [organization, event] = blobs(event);
    let taken = connection.prepare_cached(TAKE)?.execute((scope, organization, event, now))?;
    Ok(taken == 1)
}

/// Whether an event was taken.
pub(crate) fn is_taken(
    connection: &Connection,
    scope: &str,
    event: EventKey,
) -> rusqlite::Result<bool> {
    let [organization, event] = blobs(event);
    connection.prepare_cached(IS_TAKEN)?.exists((scope, organization, event))
}

fn blobs(event: EventKey) -> [[u8; 16]; 2] {
    [event.organization.to_bytes(), event.event.to_bytes()]
}

/// Makes the table, if there is none.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    // A look first: it waits for no writer.
    let exists = "SELECT 1 FROM main.sqlite_schema WHERE name = 'esl_seen_by_age'";
    if connection.prepare(exists)?.exists(())? {
        return Ok(());
    }
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {CREATE} COMMIT"))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `main` is named: a row in an attached database would not be part of the same commit.
const CREATE: &str = "
CREATE TABLE IF NOT EXISTS main.esl_seen (
    scope TEXT NOT NULL,
    organization BLOB NOT NULL,
    event BLOB NOT NULL,
    taken_at INTEGER NOT NULL,
    PRIMARY KEY (scope, organization, event)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS main.esl_seen_by_age ON esl_seen (scope, taken_at);
";

const IS_TAKEN: &str = "SELECT 1 FROM main.esl_seen
                        WHERE scope = ?1 AND organization = ?2 AND event = ?3";

const TAKE: &str = "INSERT INTO main.esl_seen (scope, organization, event, taken_at)
                    VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";

/// More than one, so that what has come together is caught up with.
const FORGET: &str = "DELETE FROM main.esl_seen WHERE scope = ?1 AND (organization, event) IN
                      (SELECT organization, event FROM main.esl_seen WHERE scope = ?1 AND taken_at <= ?2
                       ORDER BY taken_at LIMIT 4)";

#[cfg(all(test, feature = "storage"))]
mod tests {
    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn no_statement_does_more_the_more_was_taken() {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection).unwrap();
        let key = "SEARCH main.esl_seen USING PRIMARY KEY (scope=? AND organization=? AND event=?)";
        assert_plan(&connection, IS_TAKEN, &[key]);
        let oldest =
            "SEARCH main.esl_seen USING COVERING INDEX esl_seen_by_age (scope=? AND taken_at<?)";
        assert_plan(&connection, FORGET, &[key, "LIST SUBQUERY", oldest]);
    }
}
