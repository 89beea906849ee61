//! Whoever guesses secrets is slowed down.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use esl_core::{Digest, Monotonic};

use crate::api::address::ClientAddress;

/// The failures of late, by client and address and by address alone. What is asked is a digest of
/// the id, so that nothing that was typed in the wrong place is kept.
///
/// A client that is guessed at from elsewhere goes on undisturbed; and one that has proven itself
/// from an address is not slowed by what others fail at there, be it one address of a whole company,
/// or that nobody's address is known.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pairs: HashMap<Pair, Record>,
    addresses: HashMap<ClientAddress, Record>,
    /// Since the log was told.
    figures: Figures,
    told_at: Option<Monotonic>,
}

/// A client, whether or not it exists, at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    client: Digest,
    address: ClientAddress,
}

/// How it went.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    failures: u32,
    failed_at: Monotonic,
    proven_at: Option<Monotonic>,
}

/// What the log is told, once in a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Wrong ids and secrets.
    pub(super) failed: u64,
    /// What was turned away unseen.
    pub(super) slowed: u64,
    /// From how many addresses there were failures of late.
    pub(super) addresses: usize,
}

impl Pair {
    pub(super) fn new(client: &str, address: ClientAddress) -> Self {
        Self { client: Digest::of(client.as_bytes()), address: address.bucket() }
    }
}

impl Attempts {
    /// Whether somebody may try now; otherwise how long it takes until then.
    pub(super) fn admit(&self, pair: &Pair, now: Monotonic) -> Result<(), Duration> {
        let mut state = self.state();
        let record = state.pairs.get(pair);
        let own = record.map_or(Duration::ZERO, |record| record.wait(PAIR_FAILURES, now));
        let shared = match record {
            Some(record) if record.is_proven(now) => Duration::ZERO,
            _ => {
                let record = state.addresses.get(&pair.address);
                record.map_or(Duration::ZERO, |record| record.wait(ADDRESS_FAILURES, now))
            }
        };
        let wait = own.max(shared);
        if wait.is_zero() {
            return Ok(());
        }
        state.figures.slowed += 1;
        Err(wait)
    }

    pub(super) fn succeeded(&self, pair: Pair, now: Monotonic) {
        let proven = Record { proven_at: Some(now), ..Record::default() };
        *entry(&mut self.state().pairs, pair, now) = proven;
    }

    pub(super) fn failed(&self, pair: Pair, now: Monotonic) {
        let mut state = self.state();
        state.figures.failed += 1;
        entry(&mut state.pairs, pair, now).fail(now);
        entry(&mut state.addresses, pair.address, now).fail(now);
    }

    /// What the log is to be told, if it was not within the last minute.
    pub(super) fn to_tell(&self, now: Monotonic) -> Option<Figures> {
        let mut state = self.state();
        if state.told_at.is_some_and(|at| now.saturating_sub(at) < TELL_EVERY) {
            return None;
        }
        state.told_at = Some(now);
        let addresses = state.addresses.values().filter(|record| record.is_fresh(now)).count();
        Some(Figures { addresses, ..std::mem::take(&mut state.figures) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

impl Record {
    fn fail(&mut self, now: Monotonic) {
        if !self.has_failed_of_late(now) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
    }

    fn wait(&self, free: u32, now: Monotonic) -> Duration {
        if !self.has_failed_of_late(now) {
            return Duration::ZERO;
        }
        let Some(doublings) = self.failures.checked_sub(free) else { return Duration::ZERO };
        let delay = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(DELAY_MAX);
        (self.failed_at + delay).saturating_sub(now)
    }

    fn has_failed_of_late(&self, now: Monotonic) -> bool {
        self.failures > 0 && now.saturating_sub(self.failed_at) < FAILURES_KEPT
    }

    fn is_proven(&self, now: Monotonic) -> bool {
        self.proven_at.is_some_and(|at| now.saturating_sub(at) < PROOF_KEPT)
    }

    fn is_fresh(&self, now: Monotonic) -> bool {
        self.has_failed_of_late(now) || self.is_proven(now)
    }

    fn changed_at(&self) -> Monotonic {
        self.failed_at.max(self.proven_at.unwrap_or_default())
    }
}

/// The record of that key, for which room is made if there is none.
fn entry<K: Copy + Eq + Hash>(
    records: &mut HashMap<K, Record>,
    key: K,
    now: Monotonic,
) -> &mut Record {
    if records.len() >= RECORDS_MAX && !records.contains_key(&key) {
        make_room(records, now);
    }
    records.entry(key).or_default()
}

/// Forgets a quarter at least, so that the next ones cost nothing: first what does not matter any more,
/// and then, with what fails from thousands of addresses, the oldest is the least loss.
fn make_room<K: Eq + Hash>(records: &mut HashMap<K, Record>, now: Monotonic) {
    records.retain(|_, record| record.is_fresh(now));
    let too_many = records.len().saturating_sub(RECORDS_MAX * 3 / 4);
    if too_many == 0 {
        return;
    }
    let mut times: Vec<_> = records.values().map(Record::changed_at).collect();
    let (_, last, _) = times.select_nth_unstable(too_many - 1);
    let last = *last;
    records.retain(|_, record| record.changed_at() > last);
}

/// So many failures of a client at an address cost nothing.
const PAIR_FAILURES: u32 = 5;
/// So many failures of an address cost nothing, whichever clients it tries.
const ADDRESS_FAILURES: u32 = 50;
/// Doubled with each further failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);
/// For so long after the last one, failures count.
const FAILURES_KEPT: Duration = Duration::from_secs(15 * 60);
/// For so long a client is known to be at an address.
const PROOF_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Of pairs, and of addresses: some 100 bytes each.
const RECORDS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use axum::{extract::ConnectInfo, http::Request};

    use super::*;
    use crate::api::address::TrustedProxies;

    fn pair(client: &str, address: u32) -> Pair {
        let (mut parts, ()) = Request::new(()).into_parts();
        let peer = std::net::SocketAddr::new(std::net::Ipv4Addr::from(address).into(), 1);
        parts.extensions.insert(ConnectInfo(peer));
        Pair::new(client, ClientAddress::of(&parts, &TrustedProxies::default()))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_grow_to_half_a_minute_and_no_further() {
        let attempts = Attempts::default();
        let mut now = SECOND;
        let mut waits = Vec::new();
        for _ in 0..12 {
            attempts.failed(pair("client", 1), now);
            let wait = attempts.admit(&pair("client", 1), now).err().unwrap_or_default();
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(attempts.admit(&pair("client", 1), now), Ok(()));
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
        attempts.failed(pair("client", 1), now);
        now += FAILURES_KEPT;
        attempts.failed(pair("client", 1), now);
        assert_eq!(attempts.admit(&pair("client", 1), now), Ok(()), "the old ones are over");
    }

    #[test]
    fn only_the_client_that_is_guessed_at_is_slowed_and_only_at_that_address() {
        let attempts = Attempts::default();
        for _ in 0..5 {
            attempts.failed(pair("client", 1), SECOND);
        }
        assert_eq!(attempts.admit(&pair("client", 1), SECOND), Err(SECOND));
        assert_eq!(attempts.admit(&pair("client", 2), SECOND), Ok(()));
        assert_eq!(attempts.admit(&pair("other", 1), SECOND), Ok(()));
    }

    #[test]
    fn an_address_that_tries_many_clients_is_slowed_but_for_those_that_are_known_there() {
        let attempts = Attempts::default();
        attempts.succeeded(pair("known", 1), SECOND);
        for number in 0..50 {
            assert_eq!(attempts.admit(&pair("fresh", 1), SECOND), Ok(()));
            attempts.failed(pair(&format!("guess {number}"), 1), SECOND);
        }
        assert_eq!(attempts.admit(&pair("fresh", 1), SECOND), Err(SECOND));
        assert_eq!(attempts.admit(&pair("fresh", 2), SECOND), Ok(()));
        assert_eq!(attempts.admit(&pair("known", 1), SECOND), Ok(()));
        // Which is no leave to guess at it.
        for _ in 0..5 {
            attempts.failed(pair("known", 1), SECOND);
        }
        assert!(attempts.admit(&pair("known", 1), SECOND).is_err());
    }

    #[test]
    fn a_success_begins_a_new_count() {
        let attempts = Attempts::default();
        for _ in 0..4 {
            for _ in 0..4 {
                attempts.failed(pair("client", 1), SECOND);
            }
            attempts.succeeded(pair("client", 1), SECOND);
        }
        assert_eq!(attempts.admit(&pair("client", 1), SECOND), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let attempts = Attempts::default();
        let (last, steps) = (u32::try_from(RECORDS_MAX).unwrap() + 9, Duration::from_millis(1));
        for address in 0..=last {
            let now = SECOND + steps * address;
            for _ in 0..5 {
                attempts.failed(pair("client", address), now);
            }
        }
        let (pairs, addresses) = {
            let state = attempts.state();
            (state.pairs.len(), state.addresses.len())
        };
        let bounds = RECORDS_MAX * 3 / 4..=RECORDS_MAX;
        assert!(bounds.contains(&pairs) && bounds.contains(&addresses), "{pairs}, {addresses}");
        assert_eq!(attempts.admit(&pair("client", 0), SECOND), Ok(()), "it was forgotten");
        let now = SECOND + steps * last;
        assert!(attempts.admit(&pair("client", last), now).is_err());
        // What is over makes room for what is not.
        let later = now + FAILURES_KEPT;
        let half = u32::try_from(RECORDS_MAX / 2).unwrap();
        for address in 1..=half {
            attempts.failed(pair("client", last + address), later);
        }
        assert_eq!(attempts.state().pairs.len(), RECORDS_MAX / 2);
    }

    #[test]
    fn the_log_is_told_once_a_minute() {
        let attempts = Attempts::default();
        attempts.failed(pair("client", 1), SECOND);
        let first = Figures { failed: 1, slowed: 0, addresses: 1 };
        assert_eq!(attempts.to_tell(SECOND), Some(first));
        for address in 0..6 {
            attempts.failed(pair("client", address % 2), SECOND * 2);
        }
        assert_eq!(attempts.to_tell(SECOND * 60), None);
        let second = Figures { failed: 6, slowed: 0, addresses: 2 };
        assert_eq!(attempts.to_tell(SECOND * 61), Some(second));
    }
}
