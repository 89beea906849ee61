//! The outbox: events in the embedder's own transaction. The engine finds them in the intake.

use std::fmt;

use esl_core::{
    Clock, EventId, Prepared, SystemClock,
    storage::{Change, StorageError, StorageErrorKind},
};
use tokio_postgres::GenericClient;

use crate::{PostgresStorage, error::translate, id::Id16, parameters::parameters, schema::Schema};

impl PostgresStorage {
    /// Publishes an event as part of the caller's transaction, on the caller's own connection to this
    /// database: the event is there if and when that transaction is committed, and not if it is rolled back.
    ///
    /// Inserts one row and nothing else, in one trip. No engine needs to run; the next one to run over this
    /// database, wherever, takes the event from there. Takes a
    /// [`Transaction`](tokio_postgres::Transaction), or a [`Client`](tokio_postgres::Client) whose
    /// transaction was begun by hand. The role needs `USAGE` of the schema, and `EXECUTE` of its function
    /// `publish_sealed_1`, unless it owns them.
    ///
    /// If the session's `synchronous_commit` is off, it is on for this transaction: a committed event could
    /// be lost otherwise.
    ///
    /// After the commit, [`Receipt::notify`] makes an engine in this process look at once; it looks by
    /// itself, too.
    ///
    /// # Errors
    /// [`Unsupported`](StorageErrorKind::Unsupported) if the connection is to another database, or if
    /// `prepared` is older than [`Prepared::AGE_MAX`]: then the transaction can go on. If the server
    /// refuses, it cannot.
    pub async fn publish_in(
        &self,
        transaction: &(impl GenericClient + Sync),
        prepared: Prepared,
    ) -> Result<Receipt, StorageError> {
        let schema = self.database().schema();
        let id = insert(transaction, schema, Some(self.identity()), prepared).await?;
        Ok(Receipt { id, engine: Some(self.clone()) })
    }
}

/// Publishes an event as part of the caller's transaction, for a process that has no [`PostgresStorage`]: all
/// it takes is a connection to the database, and the name of ESL's schema in it, which must be there.
///
/// # Errors
/// As for [`PostgresStorage::publish_in`].
pub async fn publish_in(
    transaction: &(impl GenericClient + Sync),
    schema: &str,
    prepared: Prepared,
) -> Result<Receipt, StorageError> {
    let id = insert(transaction, &Schema::new(schema)?, None, prepared).await?;
    Ok(Receipt { id, engine: None })
}

/// What is left in the caller's hand of an event that was published in a transaction.
///
/// It is no proof: only the commit is.
#[must_use = "after the commit, `notify` makes the engine look at once"]
pub struct Receipt {
    id: EventId,
    engine: Option<PostgresStorage>,
}

impl Receipt {
    /// The event's id.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// Makes an engine in this process look for the event now. To be called after the commit: before it,
    /// there is nothing to see.
    pub fn notify(&self) {
        if let Some(engine) = &self.engine {
            engine.changes().tell(Change::Intake);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipt").field(&self.id).finish()
    }
}

const PUBLISH: &str = "publish in a transaction";

async fn insert(
    transaction: &(impl GenericClient + Sync),
    schema: &Schema,
    identity: Option<Id16>,
    prepared: Prepared,
) -> Result<EventId, StorageError> {
    if prepared.is_stale(SystemClock::new().utc()) {
        let hours = Prepared::AGE_MAX.as_secs() / 3600;
        return Err(unsupported(format!("it was prepared more than {hours} h ago: prepare anew")));
    }
    let event = prepared.event();
    let values = parameters![
        identity,
        Id16::from(event.organization),
        Id16::from(event.id),
        event.event_type.as_str(),
        event.timestamp.as_millis(),
        event.digest.as_ref().map(|digest| &digest[..]),
        &event.body[..],
        event.changes.as_deref(),
    ];
    let row = transaction.query_typed_one(&schema.sql(INSERT), values).await;
    let row = row.map_err(|error| match error.code().map(|code| code.code()) {
        // The only statement that could be wrong is the one that names the function.
        Some("3F000" | "42883") => {
            unsupported("there is no ESL in that schema: open it with PostgresStorage once")
        }
        _ => translate(PUBLISH, error),
    })?;
    if row.try_get(0).map_err(|error| translate(PUBLISH, error))? {
        Ok(prepared.id())
    } else {
        Err(unsupported("the connection is to another database"))
    }
}

const INSERT: &str = "SELECT esl.publish_sealed_1($1, $2, $3, $4, $5, $6, $7, $8)";

fn unsupported(message: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError::new(StorageErrorKind::Unsupported, PUBLISH).with_source(message)
}
