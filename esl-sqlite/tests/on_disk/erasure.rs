//! What an erased event leaves in the files.

use std::{fs, time::Duration};

use esl_core::storage::Removal;
use esl_sqlite::SqliteStorage;
use tokio::time::timeout;

use crate::World;

/// Longer than any commit, and ends a test that would wait for what never comes.
const PATIENCE: Duration = Duration::from_secs(60);

const SAID: &[u8] = br#"{"name":"Jane Roe of 1 Main Street"}"#;

#[tokio::test]
async fn whoever_reads_for_long_delays_an_erasure_and_nobody_else() {
    let mut world = World::new().await;
    // One that would wait for the reader for as long as this test may take.
    let patient = SqliteStorage::options().busy_timeout(Duration::from_secs(600));
    world.storage = patient.open(world.path()).unwrap();
    let event = world.publish_saying(1, SAID).await.id;
    let reader = world.connection();
    reader.execute_batch("BEGIN; SELECT count(*) FROM esl_events").unwrap();
    let mut erasing = Box::pin(world.storage.erase_event(world.organization, event));
    for number in 2..40 {
        tokio::select! {
            biased;
            erased = &mut erasing => panic!("the reader reads on: {erased:?}"),
            published = timeout(PATIENCE, world.publish(number)) => {
                published.expect("the writer waits for no reader");
            }
        }
    }
    reader.execute_batch("COMMIT").unwrap();
    erasing.await.unwrap();
    assert!(!world.files_hold(SAID));
}

impl World {
    /// Whether one of the files has these bytes.
    pub(crate) fn files_hold(&self, bytes: &[u8]) -> bool {
        let files = fs::read_dir(self.folder.path()).unwrap();
        files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .any(|file| file.windows(bytes.len()).any(|window| window == bytes))
    }
}
