//! The outbox under SIGKILL: an application's rows and the events that arrive agree, and its
//! transactions never meet a busy database while another task publishes at full rate.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod application;
mod receiver;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use self::receiver::Receiver;

const ROUNDS: u64 = 10;
/// Where the rounds are cut off is drawn from it.
const SEED: u64 = 42;

#[test]
fn rows_and_delivered_events_agree_after_every_kill() {
    println!("seed {SEED}");
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let receiver = Receiver::start();
    let mut draw = SEED;
    for round in 0..ROUNDS {
        // Killed after so many transactions, which is another moment each time.
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let transactions = 1 + (draw >> 33) % 150;
        let mut child = start(&database, &receiver, "run");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut committed = 0;
        for line in lines {
            let line = line.unwrap();
            assert!(!line.starts_with("failed"), "round {round}: {line}");
            committed += u64::from(line.starts_with("committed"));
            if committed == transactions {
                break;
            }
        }
        assert_eq!(committed, transactions, "round {round}: it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    let mut last = start(&database, &receiver, "drain");
    assert!(last.wait().unwrap().success());
    let rows = application::rows(&database);
    let events: BTreeSet<u64> = receiver.persons();
    assert!(rows.len() as u64 >= ROUNDS, "{} rows", rows.len());
    assert_eq!(rows, events, "each row has its event, and each event its row");
}

/// The application, in a process of its own: this test binary, asked for the "test" below.
fn start(database: &Path, receiver: &Receiver, task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "application", "--nocapture", "--test-threads=1"])
        .env("OUTBOX_TASK", task)
        .env("OUTBOX_DATABASE", database)
        .env("OUTBOX_RECEIVER", &receiver.url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test by itself: the process that the test above starts and kills.
#[test]
fn application() {
    if let Ok(task) = std::env::var("OUTBOX_TASK") {
        let database = std::env::var_os("OUTBOX_DATABASE").unwrap();
        let receiver = std::env::var("OUTBOX_RECEIVER").unwrap();
        application::main(&task, Path::new(&database), &receiver);
    }
}
