//! Whoever guesses secrets is slowed down.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use esl_core::{Digest, Monotonic};
use tokio::sync::{Notify, futures::OwnedNotified};

use crate::api::address::ClientAddress;

/// The failures of late, by client and address and by address alone. What is asked is a digest of
/// the id, so that nothing that was typed in the wrong place is kept.
///
/// A client that is guessed at from elsewhere goes on undisturbed; and one that has proven itself
/// from an address is not slowed by what others fail at there, be it one address of a whole company,
/// or that nobody's address is known.
///
/// An attempt counts from its admission as if it had failed, until it is known how it went: of any
/// number at once, no more are under way than may fail. Those beyond wait for the end of one of these,
/// and are turned away if it failed, and admitted if it did not. So a fleet that starts at once with
/// the right secret gets through, a few at a time, and many guesses at once are as good as one after
/// the other.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pairs: HashMap<Pair, Record>,
    addresses: HashMap<ClientAddress, Record>,
    under_way: HashMap<ClientAddress, UnderWay>,
    /// Since the log was told.
    figures: Figures,
    told_at: Option<Monotonic>,
}

/// An attempt that was admitted. Dropped without a word on how it went, it has not happened: nobody
/// has learned anything by it.
#[derive(Debug)]
#[must_use]
pub(super) struct Attempt<'a> {
    attempts: &'a Attempts,
    pair: Pair,
    is_known: bool,
}

/// The attempts at an address of which it is not known yet how they went.
#[derive(Debug, Default)]
struct UnderWay {
    of_clients: HashMap<Digest, u32>,
    /// Of all clients that are not known there.
    of_unknown: u32,
    ended: Arc<Notify>,
}

/// What becomes of somebody who wants to try.
#[derive(Debug)]
enum Turn<'a> {
    Now(Attempt<'a>),
    AfterAnother(OwnedNotified),
    TurnedAway(Duration),
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
    /// Lets somebody try, when those that are under way leave room for it; fails with how long it takes
    /// until the next attempt is possible.
    ///
    /// # Cancellation
    /// May be dropped.
    pub(super) async fn admit(
        &self,
        pair: Pair,
        now: impl Fn() -> Monotonic,
    ) -> Result<Attempt<'_>, Duration> {
        loop {
            match self.turn(pair, now()) {
                Turn::Now(attempt) => return Ok(attempt),
                Turn::AfterAnother(ended) => ended.await,
                Turn::TurnedAway(wait) => return Err(wait),
            }
        }
    }

    fn turn(&self, pair: Pair, now: Monotonic) -> Turn<'_> {
        let mut state = self.state();
        let state = &mut *state;
        let own = state.pairs.get(&pair).copied().unwrap_or_default();
        let shared = state.addresses.get(&pair.address).copied().unwrap_or_default();
        let is_known = own.is_proven(now);
        let mut wait = own.wait(PAIR_FAILURES, now);
        if !is_known {
            wait = wait.max(shared.wait(ADDRESS_FAILURES, now));
        }
        if !wait.is_zero() {
            state.figures.slowed += 1;
            return Turn::TurnedAway(wait);
        }
        let under_way = state.under_way.entry(pair.address).or_default();
        let of_client = under_way.of_clients.get(&pair.client).copied().unwrap_or_default();
        let has_room = of_client < own.room(PAIR_FAILURES, now)
            && (is_known || under_way.of_unknown < shared.room(ADDRESS_FAILURES, now));
        if !has_room {
            return Turn::AfterAnother(Arc::clone(&under_way.ended).notified_owned());
        }
        under_way.of_clients.insert(pair.client, of_client + 1);
        under_way.of_unknown += u32::from(!is_known);
        Turn::Now(Attempt { attempts: self, pair, is_known })
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

impl Attempt<'_> {
    pub(super) fn succeeded(self, now: Monotonic) {
        let proven = Record { proven_at: Some(now), ..Record::default() };
        *entry(&mut self.attempts.state().pairs, self.pair, now) = proven;
    }

    pub(super) fn failed(self, now: Monotonic) {
        let mut state = self.attempts.state();
        state.figures.failed += 1;
        entry(&mut state.pairs, self.pair, now).fail(now);
        entry(&mut state.addresses, self.pair.address, now).fail(now);
        // The guard goes before `self`, whose end takes the lock, too.
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.attempts.state().end(self.pair, self.is_known);
    }
}

impl State {
    fn end(&mut self, Pair { client, address }: Pair, is_known: bool) {
        let Entry::Occupied(mut under_way) = self.under_way.entry(address) else { return };
        let UnderWay { of_clients, of_unknown, ended } = under_way.get_mut();
        *of_unknown -= u32::from(!is_known);
        if let Entry::Occupied(mut of_client) = of_clients.entry(client) {
            *of_client.get_mut() -= 1;
            if *of_client.get() == 0 {
                of_client.remove();
            }
        }
        ended.notify_waiters();
        if of_clients.is_empty() {
            under_way.remove();
        }
    }
}

impl Record {
    /// How many may be under way at once: as many as may fail yet, and at last one after the other.
    fn room(&self, free: u32, now: Monotonic) -> u32 {
        let failures = if self.has_failed_of_late(now) { self.failures } else { 0 };
        free.saturating_sub(failures).max(1)
    }

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
mod tests;
