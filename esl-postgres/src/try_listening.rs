//! Trying the way by which a storage would listen, before one relies on it: a storage to which it does not lead
//! works, too, and says so in its log alone.

use std::{future::Future, time::Duration};

use esl_core::storage::{StorageError, StorageErrorKind};
use tokio::{sync::mpsc, time::timeout};
use tokio_postgres::error::SqlState;

use crate::{
    PostgresOptions, PostgresStorage,
    config::Target,
    connect::{CALL_TIMEOUT, Connector},
    error::{refused, timed_out, translate},
    id::Id16,
    parameters::parameters,
    schema::Schema,
};

impl PostgresOptions {
    /// Tries the URL that is to be [listened on](Self::listen_on), if there is one: connects there, and listens.
    /// With a storage, which was opened by another URL, also whether it is the same database, and whether it
    /// brings what is notified there.
    ///
    /// # Errors
    /// [`Unsupported`](StorageErrorKind::Unsupported) if the URL is none, or leads to another database;
    /// [`Unavailable`](StorageErrorKind::Unavailable) if the server cannot be reached or refuses the user, or
    /// nothing comes through, as by way of a pooler in transaction mode.
    pub async fn try_listening(&self, of: Option<&PostgresStorage>) -> Result<(), StorageError> {
        let Some(url) = &self.listen_url else { return Ok(()) };
        let schema = Schema::new(&self.schema)?;
        let connector = Connector::new(&Target::parse(&url.0)?.plain())?;
        let channel = schema.name().to_owned();
        let (tell, mut told) = mpsc::unbounded_channel();
        let line = connector.connect_listening(move |said| {
            if let Some((on, text)) = said
                && on == channel
            {
                // Nobody waits any more once it is over.
                _ = tell.send(text.to_owned());
            }
        });
        let line = in_time(line).await?;
        in_time(line.client.execute_typed(&format!("LISTEN \"{}\"", schema.name()), &[])).await?;
        let Some(storage) = of else { return Ok(()) };

        let text = schema.sql(IDENTITY);
        let identity = timeout(CALL_TIMEOUT, line.client.query_typed_opt(&text, &[])).await;
        let identity = match identity.map_err(|_elapsed| timed_out(OPERATION))? {
            Ok(row) => row.and_then(|row| row.try_get::<_, Id16>(0).ok()),
            Err(error) if is_not_there(&error) => None,
            Err(error) => return Err(translate(OPERATION, error)),
        };
        if identity != Some(storage.identity()) {
            let why = "it leads to another database";
            return Err(refused(StorageErrorKind::Unsupported, OPERATION).with_source(why));
        }

        // Of no kind that a storage knows, so that all others pass over it.
        let text = format!("try {:032x}", u128::from_be_bytes(storage.handle().0));
        let values = parameters![schema.name(), text.as_str()];
        storage.database().query(OPERATION, NOTIFY, values).await?;
        let heard = async {
            loop {
                match told.recv().await {
                    Some(said) if said == text => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
        };
        let why = match timeout(HEARD_WITHIN, heard).await {
            Ok(true) => return Ok(()),
            Ok(false) => "the connection was closed",
            Err(_elapsed) => {
                "notifications do not come through: is it a pooler in transaction mode?"
            }
        };
        Err(refused(StorageErrorKind::Unavailable, OPERATION).with_source(why))
    }
}

async fn in_time<T>(
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StorageError> {
    match timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| translate(OPERATION, error)),
        Err(_elapsed) => Err(timed_out(OPERATION)),
    }
}

/// Whether there is no such schema or table.
fn is_not_there(error: &tokio_postgres::Error) -> bool {
    let codes = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
    error.code().is_some_and(|code| codes.contains(code))
}

const OPERATION: &str = "listen";

const IDENTITY: &str = "SELECT identity FROM esl.settings";

const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// As long as a storage waits for its echo.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
