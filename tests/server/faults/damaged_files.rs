//! A database whose files are damaged: the server says so, and does not make it worse.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use esl_sqlite::rusqlite::Connection;
use serde_json::json;

use crate::support::{Api, Behaviour, Ended, Folder, Receiver, WITH_CLIENT};

const PAGE: u64 = 4096;

#[tokio::test]
async fn a_file_that_is_damaged_stops_the_start_with_its_name_and_is_left_as_it_is() {
    let good = used().await;
    for (what, damage, advice) in [
        ("a head of garbage", garbage_at_the_start as fn(&Path), "restore a backup"),
        ("half the file", half, "restore a backup"),
        ("the first bytes", the_first_bytes, "restore a backup"),
        ("no page but the first", no_page_but_the_first, "restore a backup"),
        ("another program's file", another_file, "restore a backup"),
        ("a log of garbage", log_of_garbage, "esl.db-wal is no write-ahead log"),
        ("tables of a newer version", newer, "made by a newer ESL"),
    ] {
        let folder = Folder::new();
        fs::copy(good.database(), folder.database()).expect("it can be copied");
        damage(&folder.database());
        let before = files(&folder);
        let path = folder.database().display().to_string();
        let served = folder.run(&["serve"], &WITH_CLIENT).await;
        let checked = folder.run(&["check"], &WITH_CLIENT).await;
        for (Ended { code, stdout, stderr }, says) in
            [(&served, &served.stderr), (&checked, &checked.stdout)]
        {
            assert_eq!(*code, Some(1), "{what}: {stdout} {stderr}");
            for words in [&*path, "ESL_DATABASE_URL", advice] {
                assert!(says.contains(words), "{what}: {words} is not in {says}");
            }
        }
        assert!(files(&folder) == before, "{what}: the files have changed");
    }
}

#[tokio::test]
async fn a_page_of_garbage_costs_what_is_on_it_and_nothing_else() {
    let folder = used().await;
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&receiver.url("/"), &["order.*"]).await;
    let body = json!({ "type": "person.updated", "data": "on the page", "id": ON_THE_PAGE });
    let (status, answer) = api.post("/api/v1/events", &body).await.expect("the server runs");
    assert_eq!(status, 202, "{answer}");
    // Later pages are what is written to.
    for number in 0..50 {
        api.publish("person.updated", json!({ "number": number, "text": "x".repeat(300) })).await;
    }
    server.stop().await;
    let file = fs::read(folder.database()).expect("it is there");
    let needle = br#""data":"on the page""#;
    let place = file.windows(needle.len()).position(|bytes| bytes == needle).expect("it is there");
    let page = u64::try_from(place).expect("it is small") / PAGE;
    write_at(&folder.database(), &garbage(4096), page * PAGE);

    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let (status, answer) = api.get(&format!("/api/v1/events/{ON_THE_PAGE}")).await;
    assert_eq!((status, &answer["code"]), (500, &json!("internal")), "{answer}");
    server.logs_anywhere("database disk image is malformed").await;
    let wanted = api.publish("order.placed", 1.into()).await;
    receiver.until("an event after the damage", |request| request.event()["id"] == wanted).await;
    assert_eq!(api.get("/api/v1/events?limit=10").await.0, 200);
    assert_eq!(api.get("/health").await.0, 200);
    server.stop().await;
}

const ON_THE_PAGE: &str = "evt_01J00000000000000000000000";

/// The folder of a server that was used and stopped.
async fn used() -> Folder {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    for number in 0..200 {
        api.publish("person.updated", json!({ "number": number, "text": "x".repeat(300) })).await;
    }
    server.stop().await;
    folder
}

/// Every file, with what is in it.
fn files(folder: &Folder) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let files = fs::read_dir(folder.path()).expect("it is there").flatten();
    let files = files.filter(|file| file.path().is_file());
    let mut files: Vec<_> =
        files.map(|file| (file.file_name(), fs::read(file.path()).expect("a file"))).collect();
    files.sort();
    files
}

/// Noise that is always the same.
fn garbage(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

fn write_at(path: &Path, bytes: &[u8], place: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("it opens");
    file.write_all_at(bytes, place).expect("it is written");
}

fn cut_to(path: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("it opens");
    file.set_len(length).expect("it can be cut");
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").len()
}

fn garbage_at_the_start(path: &Path) {
    write_at(path, &garbage(100), 0);
}

fn half(path: &Path) {
    cut_to(path, length(path) / PAGE / 2 * PAGE);
}

fn the_first_bytes(path: &Path) {
    cut_to(path, 50);
}

fn no_page_but_the_first(path: &Path) {
    let rest = usize::try_from(length(path) - PAGE).expect("it is small");
    write_at(path, &garbage(rest), PAGE);
}

fn another_file(path: &Path) {
    fs::write(path, "These are notes, and no database. ".repeat(1000)).expect("it is written");
}

fn log_of_garbage(path: &Path) {
    fs::write(path.with_file_name("esl.db-wal"), garbage(100_000)).expect("it is written");
}

fn newer(path: &Path) {
    let connection = Connection::open(path).expect("it opens");
    let sql = "INSERT INTO esl_migrations (version, applied_at) VALUES (1000, 0)";
    connection.execute(sql, []).expect("it is there");
}
