//! What every storage promises, on a server; once more with secrets that are encrypted in it.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use esl_core::{
    Clock, EncryptionKey, Keyring, Monotonic, Timestamp,
    storage::{Storage, StorageTime},
    testing::{Engines, Harness, storage_suite},
};
use esl_postgres::PostgresStorage;

use crate::cluster;

/// A schema of its own.
struct OnServer {
    schema: String,
    keyring: Option<Keyring>,
    time: OnceLock<ServerTime>,
    /// Handles that were "killed": they are kept, so that they finish nothing while a case runs.
    killed: Vec<Arc<dyn Storage>>,
}

#[async_trait]
impl Harness for OnServer {
    fn new() -> Self {
        Self {
            schema: cluster::new_schema(),
            keyring: None,
            time: OnceLock::new(),
            killed: Vec::new(),
        }
    }

    fn engines(&self) -> Engines {
        Engines::Many
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Storage> {
        let clock = self.time.get_or_init(|| ServerTime::by(clock)).clone();
        let mut options = PostgresStorage::options()
            .schema(&self.schema)
            .clock(Arc::new(clock))
            .may_lose_everything();
        if let Some(keyring) = &self.keyring {
            options = options.keyring(keyring.clone());
        }
        let opened = options.open(cluster::url()).await;
        Arc::new(opened.expect("the database can be opened"))
    }

    async fn reopen_after_kill(
        &mut self,
        killed: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Arc<dyn Storage> {
        // What a killed process leaves is what the server has. It says no goodbye.
        self.killed.push(killed);
        self.open(clock).await
    }
}

/// The time of a server, which is one for all handles, and does not go back with the clock.
#[derive(Debug, Clone)]
struct ServerTime {
    time: Arc<StorageTime>,
    clock: Arc<dyn Clock>,
}

impl ServerTime {
    fn by(clock: Arc<dyn Clock>) -> Self {
        Self { time: Arc::new(StorageTime::new(Arc::clone(&clock))), clock }
    }
}

impl Clock for ServerTime {
    fn utc(&self) -> Timestamp {
        self.time.now()
    }

    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic()
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.clock.sleep_until(deadline)
    }
}

storage_suite!(OnServer);

mod encrypted {
    use super::*;

    struct Encrypted(OnServer);

    #[async_trait]
    impl Harness for Encrypted {
        fn new() -> Self {
            let keyring = Keyring::new([EncryptionKey::from_bytes(&[7; 32])]).expect("a key");
            Self(OnServer { keyring: Some(keyring), ..OnServer::new() })
        }

        fn engines(&self) -> Engines {
            self.0.engines()
        }

        async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Storage> {
            self.0.open(clock).await
        }

        async fn reopen_after_kill(
            &mut self,
            killed: Arc<dyn Storage>,
            clock: Arc<dyn Clock>,
        ) -> Arc<dyn Storage> {
            self.0.reopen_after_kill(killed, clock).await
        }
    }

    storage_suite!(Encrypted);
}
