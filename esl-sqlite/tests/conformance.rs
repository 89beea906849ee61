//! What every storage promises, on a file; once more with secrets that are encrypted in it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use esl_core::{
    Clock, EncryptionKey, Keyring,
    storage::Storage,
    testing::{Engines, Harness, storage_suite},
};
use esl_sqlite::SqliteStorage;
use tempfile::TempDir;

/// A database in a folder of its own.
struct OnDisk {
    folder: TempDir,
    database: PathBuf,
    keyring: Option<Keyring>,
    /// Handles that were "killed": they are kept, so that they finish nothing while a case runs.
    killed: Vec<Arc<dyn Storage>>,
}

#[async_trait]
impl Harness for OnDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("esl.db");
        Self { folder, database, keyring: None, killed: Vec::new() }
    }

    fn engines(&self) -> Engines {
        Engines::One
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Storage> {
        let mut options = SqliteStorage::options().clock(clock);
        if let Some(keyring) = &self.keyring {
            options = options.keyring(keyring.clone());
        }
        Arc::new(options.open(&self.database).expect("the database can be opened"))
    }

    async fn reopen_after_kill(
        &mut self,
        killed: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Arc<dyn Storage> {
        // What a killed process leaves is what it has written: a copy of both files, taken while
        // the handle still has them open. Its lock, which would die with it, is not copied.
        let folder = self.folder.path().join(format!("after-kill-{}", self.killed.len() + 1));
        fs::create_dir(&folder).expect("a new folder");
        let copy = folder.join("esl.db");
        for (from, to) in [(self.database.clone(), copy.clone()), (wal(&self.database), wal(&copy))]
        {
            fs::copy(from, to).expect("the files can be copied");
        }
        self.killed.push(killed);
        self.database = copy;
        self.open(clock).await
    }
}

fn wal(database: &Path) -> PathBuf {
    database.with_extension("db-wal")
}

storage_suite!(OnDisk);

mod encrypted {
    use super::*;

    struct Encrypted(OnDisk);

    #[async_trait]
    impl Harness for Encrypted {
        fn new() -> Self {
            let keyring = Keyring::new([EncryptionKey::from_bytes(&[7; 32])]).expect("a key");
            Self(OnDisk { keyring: Some(keyring), ..OnDisk::new() })
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
