//! A receiver that is killed, also between handling an event and answering: the event comes again, and is
//! taken once, by what `esl_core::Seen` says that once means.
//!
//! The receiver is a process of its own, which stands still where it is told to and is killed there by
//! SIGKILL. Its socket belongs to the case, so that whoever starts next is at the same address.

use std::{
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread,
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use esl_http::receiver::{Receiver, Secret, SignedEvent, Verifier};
use esl_sqlite::{SqliteSeen, rusqlite::Connection, take_in};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::support::{Api, Folder, WITH_CLIENT, in_time};

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_its_commit_the_handler_runs_again() {
    for by in [BY_LAYER, BY_HANDLER] {
        assert_eq!(handled(by, BEFORE_COMMIT).await, ["again"], "{by}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_its_commit_a_handler_that_takes_the_event_in_it_has_done_so_once() {
    assert_eq!(handled(BY_HANDLER, AFTER_COMMIT).await, ["first"]);
}

/// Where a layer notes what is done, nobody else can know that this was.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_its_commit_and_done_a_handler_that_takes_nothing_runs_again() {
    assert_eq!(handled(BY_LAYER, AFTER_COMMIT).await, ["first", "again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_answer_alone_the_event_is_not_handled_again() {
    for by in [BY_LAYER, BY_HANDLER] {
        assert_eq!(handled(by, BEFORE_ANSWER).await, ["first"], "{by}");
    }
}

/// What is in the receiver's own table in the end: which of its processes has handled the event.
async fn handled(by: &str, killed: &str) -> Vec<String> {
    let folder = Folder::new();
    let variables = [&WITH_CLIENT[..], &[("ESL_RETRY_SCHEDULE", "10ms,100ms,1s,1s")]].concat();
    let server = folder.start(&variables).await;
    let api = Api::new(&server.base).await;
    let database = folder.path().join("app.db");
    let app = Connection::open(&database).expect("a database");
    app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE handled (event TEXT, process TEXT)")
        .expect("a table");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", socket.local_addr().expect("an address"));

    let mut first = Process::start(&socket, &["first", by, killed], &database);
    let subscription = api.subscribe(&url, &["person.*"]).await;
    let event = api.publish("person.updated", json!({ "name": "John Doe" })).await;
    first.prints(killed).await;
    first.child.kill().await.expect("it runs");

    let mut again = Process::start(&socket, &["again", by, NOWHERE], &database);
    again.prints(ANSWER).await;
    let path = format!("/api/v1/subscriptions/{subscription}/deliveries?state=delivered");
    let delivered = api.until(&path, |page| page["data"][0].is_object()).await;
    assert!(delivered["data"][0]["attempts"].as_u64() >= Some(2), "{delivered}");
    server.stop().await;

    let mut rows =
        app.prepare("SELECT event, process FROM handled ORDER BY rowid").expect("a table");
    let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).expect("it is there");
    let rows: Vec<(String, String)> = rows.map(|row| row.expect("a row")).collect();
    assert!(rows.iter().all(|(handled, _)| *handled == event), "{rows:?}");
    rows.into_iter().map(|(_, process)| process).collect()
}

/// A receiver. It is killed when it is dropped.
struct Process {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this binary once more, with the socket as its input.
    fn start(socket: &TcpListener, words: &[&str; 3], database: &Path) -> Self {
        let socket = OwnedFd::from(socket.try_clone().expect("a descriptor"));
        let mut child = Command::new(std::env::current_exe().expect("this runs"))
            .args(["--exact", "--nocapture", "accept_once::the_receiver"])
            .env(WORDS, words.join(" "))
            .env(DATABASE, database)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, stdout }
    }

    /// Waits for a line.
    async fn prints(&mut self, line: &str) {
        in_time(line, async {
            loop {
                let next = self.stdout.next_line().await.expect("UTF-8");
                if next.expect("it ends after this").contains(line) {
                    return;
                }
            }
        })
        .await;
    }
}

/// No case: what the cases start. Among them it has nothing to do.
#[test]
fn the_receiver() {
    let Ok(words) = std::env::var(WORDS) else { return };
    let [process, by, stands_still] =
        words.split(' ').collect::<Vec<_>>().try_into().expect("three");
    let database = PathBuf::from(std::env::var_os(DATABASE).expect("it comes with the words"));
    let secret = Secret::new("my-secret-123").expect("a secret");
    let mut receiver = Receiver::new(Verifier::standard([secret]));
    if by == BY_LAYER {
        receiver = receiver.with_seen(SqliteSeen::open(&database).expect("a database"));
    }
    let app = App {
        process: process.to_owned(),
        database,
        takes_in: by == BY_HANDLER,
        stands_still: stands_still.to_owned(),
    };
    let app = Arc::new(app);
    let router = Router::new()
        .route("/", post(handle))
        .layer(receiver)
        .layer(middleware::from_fn_with_state(app.clone(), answer))
        .with_state(app);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true).expect("a socket");
        let socket = tokio::net::TcpListener::from_std(socket).expect("a socket");
        axum::serve(socket, router).await.expect("it serves");
    });
}

struct App {
    process: String,
    database: PathBuf,
    takes_in: bool,
    stands_still: String,
}

async fn handle(State(app): State<Arc<App>>, SignedEvent(event): SignedEvent<Value>) {
    let mut database = Connection::open(&app.database).expect("a database");
    let transaction = database.transaction().expect("a transaction");
    if app.takes_in && !take_in(&transaction, "", event.key()).expect("it can be written") {
        return;
    }
    let row = (event.id.to_string(), &app.process);
    transaction.execute("INSERT INTO handled VALUES (?1, ?2)", row).expect("it can be written");
    app.reaches(BEFORE_COMMIT);
    transaction.commit().expect("it can be written");
    app.reaches(AFTER_COMMIT);
}

/// Around the layer: what is done is noted by then.
async fn answer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.reaches(BEFORE_ANSWER);
    println!("{ANSWER}");
    response
}

impl App {
    /// Stands still if it is to be killed here.
    fn reaches(&self, place: &str) {
        if self.stands_still == place {
            println!("{place}");
            loop {
                thread::park();
            }
        }
    }
}

const WORDS: &str = "ESL_TEST_ACCEPT_ONCE";
const DATABASE: &str = "ESL_TEST_ACCEPT_ONCE_DATABASE";

/// Who takes the event: the layer, with `SqliteSeen`, or the handler, with `take_in`.
const BY_LAYER: &str = "by-layer";
const BY_HANDLER: &str = "by-handler";

const BEFORE_COMMIT: &str = "before-commit";
const AFTER_COMMIT: &str = "after-commit";
const BEFORE_ANSWER: &str = "before-it-answers";
const NOWHERE: &str = "nowhere";
const ANSWER: &str = "it-answers-now";
