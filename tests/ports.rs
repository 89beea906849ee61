//! Ports for servers that go and come back. `ports.py` is the same for scripts.

use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    net::{Ipv4Addr, TcpListener},
};

const FIRST: u64 = 10_000;
/// From which on the system gives ports to connections; Linux says it.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A port that nobody listens to, and that no connection is given while its server is away.
pub(crate) fn free_port() -> u16 {
    let range = fs::read_to_string(EPHEMERAL).unwrap_or_default();
    let end = range.split_whitespace().next().map_or(Ok(32_768), str::parse).expect("a port");
    loop {
        // Each of these hashers begins elsewhere.
        let port = FIRST + RandomState::new().build_hasher().finish() % (end - FIRST);
        let port = u16::try_from(port).expect("it is below the end");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
