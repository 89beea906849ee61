//! A receiver that remembers the persons it was told of.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub(crate) struct Receiver {
    pub(crate) url: String,
    persons: Arc<Mutex<BTreeSet<u64>>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
        let persons = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&persons);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &seen));
            }
        });
        Self { url, persons }
    }

    pub(crate) fn persons(&self) -> BTreeSet<u64> {
        self.persons.lock().unwrap().clone()
    }
}

/// Answers requests on one connection until it ends.
fn serve(mut stream: TcpStream, persons: &Mutex<BTreeSet<u64>>) {
    let mut buffer = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        while let Some((body, length)) = first_request(&buffer) {
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            if body["type"] == "person.created" {
                persons.lock().unwrap().insert(body["data"]["id"].as_u64().unwrap());
            }
            buffer.drain(..length);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(read) => buffer.extend_from_slice(&part[..read]),
        }
    }
}

/// The body of the first request in the buffer, and how many bytes the request has.
fn first_request(buffer: &[u8]) -> Option<(&[u8], usize)> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length: usize =
        text.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().unwrap();
    let end = head + length;
    (buffer.len() >= end).then(|| (&buffer[head..end], end))
}
