//! The disk is full, and has room again; or it takes nothing at all. A disk of a few MiB is what a
//! case fills, and mounting one takes root.

use std::{fs, io::Write, path::PathBuf, process::Command};

use super::{publish_or_hear_why_not, until_all_came, until_health};
use crate::support::{Api, Behaviour, Ended, Folder, Receiver, WITHOUT_LIMIT};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a small disk, which takes root"]
async fn on_a_full_disk_publishing_is_503_and_goes_on_by_itself_once_there_is_room() {
    let disk = Disk::mount();
    let server = disk.folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let subscription = api.subscribe(&receiver.url("/"), &["*"]).await;
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for _ in 0..3 {
        for number in 0..10 {
            acknowledged.push(api.publish("person.updated", number.into()).await);
        }
        let ballast = disk.fill();
        while refused < 20 {
            let data = "x".repeat(10_000);
            match publish_or_hear_why_not(&api, data.into()).await {
                Some(id) => acknowledged.push(id),
                None => refused += 1,
            }
        }
        refused = 0;
        until_health(&api, 503).await;
        // What is large goes to the store for large payloads, which is on the same disk.
        assert_eq!(publish_or_hear_why_not(&api, "x".repeat(500_000).into()).await, None);
        fs::remove_file(ballast).expect("it is there");
        until_health(&api, 200).await;
    }
    acknowledged.push(api.publish("person.updated", "room".into()).await);
    println!("{} acknowledged on a disk that was full three times", acknowledged.len());
    until_all_came(&receiver, acknowledged).await;
    let owed = format!("/api/v1/subscriptions/{subscription}/deliveries?state=pending");
    api.until(&owed, |list| list["data"] == serde_json::json!([])).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a small disk, which takes root"]
async fn a_server_that_is_killed_on_a_full_disk_starts_once_there_is_room() {
    let disk = Disk::mount();
    let server = disk.folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&receiver.url("/"), &["*"]).await;
    let ballast = disk.fill();
    let mut acknowledged = Vec::new();
    while let Some(id) = publish_or_hear_why_not(&api, "x".repeat(10_000).into()).await {
        acknowledged.push(id);
    }
    until_health(&api, 503).await;
    server.kill().await;

    let ended = disk.folder.run(&["serve"], &WITHOUT_LIMIT).await;
    refuses(&disk, &ended, "full");
    fs::remove_file(ballast).expect("it is there");
    let server = disk.folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    acknowledged.push(api.publish("person.updated", "room".into()).await);
    until_all_came(&receiver, acknowledged).await;
    server.stop().await;
}

#[tokio::test]
#[ignore = "mounts a small disk, which takes root"]
async fn a_disk_that_takes_nothing_stops_the_start_with_the_name_of_the_database() {
    let disk = Disk::mount();
    disk.remount("ro");
    refuses(&disk, &disk.folder.run(&["serve"], &WITHOUT_LIMIT).await, "ead-only");
    disk.remount("rw");
    disk.folder.start(&WITHOUT_LIMIT).await.stop().await;
    disk.remount("ro");
    refuses(&disk, &disk.folder.run(&["serve"], &WITHOUT_LIMIT).await, "ead-only");
    disk.remount("rw");
    disk.folder.start(&WITHOUT_LIMIT).await.stop().await;
}

fn refuses(disk: &Disk, ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let path = disk.folder.database().display().to_string();
    for words in [&*path, "ESL_DATABASE_URL", words] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
}

/// A disk of its own for a server's folder.
struct Disk {
    folder: Folder,
}

impl Disk {
    fn mount() -> Self {
        let folder = Folder::new();
        let path = folder.path().display().to_string();
        run(&["mount", "-t", "tmpfs", "-o", "size=8m", "esl-test", &path]);
        Self { folder }
    }

    fn remount(&self, how: &str) {
        let path = self.folder.path().display().to_string();
        run(&["mount", "-o", &format!("remount,{how}"), &path]);
    }

    /// Leaves room for nothing; gives what has to be removed.
    fn fill(&self) -> PathBuf {
        let path = self.folder.path().join("ballast");
        let mut file = fs::File::create(&path).expect("it can be made");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A server that a failed case has left there may have it open yet.
        run(&["umount", "--lazy", &self.folder.path().display().to_string()]);
    }
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().expect("it is installed");
    assert!(status.success(), "{words:?} failed: it takes root");
}
