//! Nobody takes what is logged or printed: a disk that is full, a reader that is gone.

use super::{until_all_came, until_health};
use crate::support::{Api, Behaviour, Folder, Receiver, WITHOUT_LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_takes_stops_nothing() {
    let folder = Folder::new();
    let mut server = folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    // Each is an attempt that fails, which is logged.
    let failing = Receiver::start(Behaviour::statuses([500; 20])).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&failing.url("/"), &["*"]).await;
    api.subscribe(&receiver.url("/"), &["*"]).await;
    server.close_log();
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        acknowledged.push(api.publish("person.updated", number.into()).await);
    }
    failing.first_of(5).await;
    until_all_came(&receiver, acknowledged.clone()).await;
    until_health(&api, 200).await;
    acknowledged = vec![api.publish("person.updated", "later".into()).await];
    until_all_came(&receiver, acknowledged).await;
    // In order: the status is looked at.
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_said_is_an_error_and_no_panic() {
    let folder = Folder::new();
    folder.start(&[]).await.stop().await;
    let shut = |which: &str| format!("exec \"$0\" \"$@\" {which}>/dev/full");
    for command in [&["org", "list"][..], &["org", "list", "--json"], &["check"], &["config-docs"]]
    {
        let ended = folder.run_by(&["sh", "-c", &shut("1")], command, &[]).await;
        assert_eq!(ended.code, Some(1), "{command:?}: {ended:?}");
        assert!(ended.stderr.contains("the standard output"), "{command:?}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{command:?}: {ended:?}");
    }
    let wrong = [("ESL_LISTEN", "everywhere")];
    let ended = folder.run_by(&["sh", "-c", &shut("2")], &["serve"], &wrong).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
}
