//! As many connections as the documented default holds open, and the one that is served beside them.
//! A program of its own, so that its memory and its files are those of this case.

use std::{fs, process::Command, time::Duration};

use axum::{Router, routing::get};
use esl_http::api::{ServerLimits, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const WANTED: usize = 10_000;
/// Files for all but the connections, of which either end is one.
const OTHER_FILES: usize = 200;
/// What a connection may take at most, both ends together: that is 10 000 in less than 300 MiB.
const CONNECTION_KIB_MAX: usize = 28;

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_hold_up_nobody() {
    let files = files_allowed();
    let crowd = WANTED.min(files.saturating_sub(OTHER_FILES) / 2);
    println!("{crowd} idle connections, of {WANTED}: {files} files may be open");

    let router = Router::new().route("/", get(async || "here"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let limits = ServerLimits::default()
        .with_connections_max(crowd + 1)
        .with_head_timeout(Duration::from_secs(600));
    tokio::spawn(serve(listener, router, std::future::pending(), limits));

    let mut healthy = TcpStream::connect(address).await.expect("a connection");
    ask(&mut healthy).await;
    let before = resident_kib();
    let mut idle = Vec::with_capacity(crowd);
    for number in 0..crowd {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        match number % 3 {
            // Says nothing, has begun, or was answered before.
            0 => {}
            1 => stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.expect("a beginning"),
            _ => ask(&mut stream).await,
        }
        idle.push(stream);
        if number % 100 == 0 {
            ask(&mut healthy).await;
        }
    }
    for _ in 0..100 {
        ask(&mut healthy).await;
    }
    let each = resident_kib().saturating_sub(before) / crowd;
    println!("{each} KiB each");
    assert!(each <= CONNECTION_KIB_MAX, "{each} KiB each");
    // None was closed to make room for others: the first that was answered is answered again.
    ask(&mut idle[2]).await;
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"here") {
        assert_ne!(stream.read_buf(&mut answer).await.expect("an answer"), 0, "closed early");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// How many files this process may open, after asking for as many as the system lets it have.
fn files_allowed() -> usize {
    let wanted = 2 * WANTED + OTHER_FILES;
    let limits = || fs::read_to_string("/proc/self/limits").expect("limits");
    let [soft, hard] = limits_of_files(&limits());
    if soft < wanted.min(hard) {
        // A foreign call, which this workspace does without; util-linux has a command for it.
        let more = format!("--nofile={}:", wanted.min(hard));
        let process = std::process::id().to_string();
        let raised = Command::new("prlimit").args(["--pid", &process, &more]).status();
        println!("asked for more than {soft} files: {raised:?}");
    }
    limits_of_files(&limits())[0]
}

fn limits_of_files(limits: &str) -> [usize; 2] {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.expect("a line").split_whitespace();
    let mut next = || numbers.next().expect("a limit").parse().unwrap_or(usize::MAX);
    [next(), next()]
}

fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).expect("a number");
    number.parse().expect("a number")
}
