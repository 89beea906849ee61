//! Through pgbouncer in transaction mode: each transaction may have another connection to the server.

use std::{
    error::Error as _,
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use esl_core::{
    Actor, Clock, LaneId, Organization, OrganizationId, Seq, Timestamp, Wake,
    storage::{
        Change, Lanes, Outcome, Settle, Settlement, Storage, StorageErrorKind, Tenancy, Tenure,
        Unit, Want,
    },
    testing::{
        Engines, Harness,
        suite::{cases, run},
    },
};
use esl_postgres::PostgresStorage;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    cluster::{self, Own},
    ports,
    publishing::{Publisher, publish, worker_id},
};

/// One for all of these tests; `None` if the server is not our own.
fn pooler() -> Option<&'static str> {
    static POOLER: OnceLock<Option<Pooler>> = OnceLock::new();
    let pooler = POOLER.get_or_init(|| cluster::own().map(Pooler::start));
    pooler.as_ref().map(|pooler| pooler.url.as_str())
}

struct Pooler {
    url: String,
    _folder: TempDir,
    /// Its input ends with this process, and the pooler with that.
    _script: Child,
}

impl Pooler {
    fn start(own: &Own) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // The pooler is another user's, too, who may read this.
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).expect("the folder is ours");
        let port = ports::free_port();
        let file = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\npostgres = host={} port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 8\n\
             max_client_conn = 1000\nlog_connections = 0\nlog_disconnections = 0\n",
            own.socket.display(),
            own.port,
        );
        fs::write(&file, settings).expect("the folder can be written");
        let mut command = cluster::command();
        command
            .arg("PATH=\"$PATH:/usr/sbin\"; pgbouncer -q \"$ESL_TEST_POOLER\" & cat; kill $!")
            .env("ESL_TEST_POOLER", &file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let script = command.spawn().expect("the script that starts a pooler runs");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        Self { url, _folder: folder, _script: script }
    }
}

#[tokio::test]
async fn through_a_pooler_events_are_published_claimed_and_settled() {
    let Some(url) = pooler() else { return };
    let world = Publisher::through(url).await;
    let organization = world.organization().await;
    let lane = world.lane(organization).await;
    let version = world.version(organization).await;
    let worker = world.storage.enlist(worker_id(), Tenure::default()).await.unwrap().0;
    assert_eq!(world.storage.take(&worker, &[lane]).await.unwrap().len(), 1);
    for number in 1..=20 {
        let unit = Unit::publish(publish(organization, version, 1, &[lane]));
        let accepted = world.commit(unit).await.unwrap().events[0];
        assert_eq!(accepted.seq, Seq::new(number));
        let (after, held) = (Some(Seq::ZERO), Vec::new());
        let wants = [Want { lane, room: 10, after, held, in_order: false }];
        let claimed = world.storage.claim(&worker, &wants, 1 << 20).await.unwrap();
        assert_eq!(claimed[0].due.iter().map(|due| due.seq).collect::<Vec<_>>(), [accepted.seq]);
        let settlement = Settlement {
            lane,
            seq: accepted.seq,
            outcome: Outcome::Delivered,
            attempts: 1,
            charged: 1,
            at: Timestamp::EPOCH,
            status: Some(200),
            error: None,
            log: Vec::new(),
        };
        let (settlements, lanes, switch_offs) = (vec![settlement], Vec::new(), Vec::new());
        let unit = Unit::settle(Settle { worker, settlements, lanes, switch_offs });
        world.commit(unit).await.unwrap();
    }
}

#[tokio::test]
async fn through_a_pooler_changes_are_heard_and_past_it_hints_are_too() {
    let Some(url) = pooler() else { return };
    let world = Publisher::through(url).await;
    let options = || PostgresStorage::options().schema(&world.schema).may_lose_everything();
    let deaf = options().open(url).await.unwrap();
    let id = OrganizationId::from_bytes([1; 16]);
    let new = Organization::new(id, "Acme", Timestamp::EPOCH);
    world.storage.create_organization(new, &Actor::APPLICATION).await.unwrap();
    let heard = async { while !deaf.changed().await.contains(&Change::Tenancy) {} };
    timeout(Duration::from_secs(300), heard).await.expect("it looks by itself");

    let hearing = options().listen_on(cluster::url()).open(url).await.unwrap();
    let [wakes, hears] = [world.storage.wake(), hearing.wake()];
    let lanes = [LaneId::new(7)];
    let heard = async {
        // Until it listens, hints are lost: as they may be.
        loop {
            wakes.notify(&lanes);
            if let Ok(heard) = timeout(Duration::from_millis(100), hears.listen()).await {
                return heard;
            }
        }
    };
    let heard = timeout(Duration::from_secs(300), heard).await.expect("it is told");
    assert_eq!(heard[0], lanes[0]);
}

#[tokio::test]
async fn what_is_to_be_listened_on_can_be_tried() {
    let Some(url) = pooler() else { return };
    let schema = cluster::new_schema();
    let options = || PostgresStorage::options().schema(&schema).may_lose_everything();
    let nowhere = "postgres://esl:hunter2@127.0.0.1:1/app?sslmode=disable";
    let unmade = options().listen_on(nowhere).try_listening(None).await.unwrap_err();
    assert_eq!(unmade.kind(), StorageErrorKind::Unavailable);
    options().listen_on(cluster::url()).try_listening(None).await.unwrap();

    let storage = options().open(url).await.unwrap();
    options().try_listening(Some(&storage)).await.unwrap();
    options().listen_on(cluster::url()).try_listening(Some(&storage)).await.unwrap();
    let elsewhere = cluster::new_database().await;
    for (wrong, kind, said) in [
        (nowhere, StorageErrorKind::Unavailable, "error connecting to server"),
        (url, StorageErrorKind::Unavailable, "notifications do not come through"),
        (&elsewhere, StorageErrorKind::Unsupported, "it leads to another database"),
        ("mysql://esl:hunter2@db/app", StorageErrorKind::Unsupported, "expected a URL like"),
    ] {
        let error = options().listen_on(wrong).try_listening(Some(&storage)).await.unwrap_err();
        let why = error.source().expect("a cause").to_string();
        assert_eq!(error.kind(), kind, "{why}");
        assert!(why.contains(said) && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    // Where ESL is, too, it is another one.
    options().open(&elsewhere).await.unwrap();
    let error = options().listen_on(elsewhere).try_listening(Some(&storage)).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unsupported);
}

/// A schema of its own, behind the pooler.
struct Pooled {
    schema: String,
    killed: Vec<Arc<dyn Storage>>,
}

#[async_trait]
impl Harness for Pooled {
    fn new() -> Self {
        Self { schema: cluster::new_schema(), killed: Vec::new() }
    }

    fn engines(&self) -> Engines {
        Engines::Many
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Storage> {
        let options = PostgresStorage::options().schema(&self.schema).clock(clock);
        let url = pooler().expect("the server is our own");
        Arc::new(options.may_lose_everything().open(url).await.expect("it can be opened"))
    }

    async fn reopen_after_kill(
        &mut self,
        killed: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Arc<dyn Storage> {
        self.killed.push(killed);
        self.open(clock).await
    }
}

#[test]
fn what_every_storage_promises_holds_through_a_pooler() {
    if pooler().is_none() {
        return;
    }
    // Some of everything: all of them on a server are elsewhere.
    for case in cases::ALL.iter().step_by(10) {
        run::<Pooled>(*case);
    }
}
