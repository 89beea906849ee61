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

impl Attempts {
    /// Whether somebody may try now.
    fn wait(&self, pair: Pair, now: Monotonic) -> Result<(), Duration> {
        match self.turn(pair, now) {
            Turn::Now(_) => Ok(()),
            Turn::TurnedAway(wait) => Err(wait),
            Turn::AfterAnother(_) => panic!("nothing is under way"),
        }
    }

    fn begin(&self, pair: Pair, now: Monotonic) -> Attempt<'_> {
        match self.turn(pair, now) {
            Turn::Now(attempt) => attempt,
            other => panic!("{other:?}"),
        }
    }

    fn fail(&self, pair: Pair, now: Monotonic) {
        self.begin(pair, now).failed(now);
    }
}

#[test]
fn delays_grow_to_half_a_minute_and_no_further() {
    let attempts = Attempts::default();
    let mut now = SECOND;
    let mut waits = Vec::new();
    for _ in 0..12 {
        attempts.fail(pair("client", 1), now);
        let wait = attempts.wait(pair("client", 1), now).err().unwrap_or_default();
        waits.push(wait.as_secs());
        now += wait;
        assert_eq!(attempts.wait(pair("client", 1), now), Ok(()));
    }
    assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
    attempts.fail(pair("client", 1), now);
    now += FAILURES_KEPT;
    attempts.fail(pair("client", 1), now);
    assert_eq!(attempts.wait(pair("client", 1), now), Ok(()), "the old ones are over");
}

#[test]
fn only_the_client_that_is_guessed_at_is_slowed_and_only_at_that_address() {
    let attempts = Attempts::default();
    for _ in 0..5 {
        attempts.fail(pair("client", 1), SECOND);
    }
    assert_eq!(attempts.wait(pair("client", 1), SECOND), Err(SECOND));
    assert_eq!(attempts.wait(pair("client", 2), SECOND), Ok(()));
    assert_eq!(attempts.wait(pair("other", 1), SECOND), Ok(()));
}

#[test]
fn an_address_that_tries_many_clients_is_slowed_but_for_those_that_are_known_there() {
    let attempts = Attempts::default();
    attempts.begin(pair("known", 1), SECOND).succeeded(SECOND);
    for number in 0..50 {
        assert_eq!(attempts.wait(pair("fresh", 1), SECOND), Ok(()));
        attempts.fail(pair(&format!("guess {number}"), 1), SECOND);
    }
    assert_eq!(attempts.wait(pair("fresh", 1), SECOND), Err(SECOND));
    assert_eq!(attempts.wait(pair("fresh", 2), SECOND), Ok(()));
    assert_eq!(attempts.wait(pair("known", 1), SECOND), Ok(()));
    // Which is no leave to guess at it.
    for _ in 0..5 {
        attempts.fail(pair("known", 1), SECOND);
    }
    assert!(attempts.wait(pair("known", 1), SECOND).is_err());
}

#[test]
fn a_success_begins_a_new_count() {
    let attempts = Attempts::default();
    for _ in 0..4 {
        for _ in 0..4 {
            attempts.fail(pair("client", 1), SECOND);
        }
        attempts.begin(pair("client", 1), SECOND).succeeded(SECOND);
    }
    assert_eq!(attempts.wait(pair("client", 1), SECOND), Ok(()));
}

#[test]
fn memory_is_bounded_and_the_oldest_goes_first() {
    let attempts = Attempts::default();
    let (last, steps) = (u32::try_from(RECORDS_MAX).unwrap() + 9, Duration::from_millis(1));
    for address in 0..=last {
        let now = SECOND + steps * address;
        for _ in 0..5 {
            attempts.fail(pair("client", address), now);
        }
    }
    let (pairs, addresses) = {
        let state = attempts.state();
        (state.pairs.len(), state.addresses.len())
    };
    let bounds = RECORDS_MAX * 3 / 4..=RECORDS_MAX;
    assert!(bounds.contains(&pairs) && bounds.contains(&addresses), "{pairs}, {addresses}");
    assert_eq!(attempts.wait(pair("client", 0), SECOND), Ok(()), "it was forgotten");
    let now = SECOND + steps * last;
    assert!(attempts.wait(pair("client", last), now).is_err());
    // What is over makes room for what is not.
    let later = now + FAILURES_KEPT;
    let half = u32::try_from(RECORDS_MAX / 2).unwrap();
    for address in 1..=half {
        attempts.fail(pair("client", last + address), later);
    }
    assert_eq!(attempts.state().pairs.len(), RECORDS_MAX / 2);
}

#[test]
fn the_log_is_told_once_a_minute() {
    let attempts = Attempts::default();
    attempts.fail(pair("client", 1), SECOND);
    let first = Figures { failed: 1, slowed: 0, addresses: 1 };
    assert_eq!(attempts.to_tell(SECOND), Some(first));
    for address in 0..6 {
        attempts.fail(pair("client", address % 2), SECOND * 2);
    }
    assert_eq!(attempts.to_tell(SECOND * 60), None);
    let second = Figures { failed: 6, slowed: 0, addresses: 2 };
    assert_eq!(attempts.to_tell(SECOND * 61), Some(second));
}

/// As many as are admitted at once.
fn all_at_once<'a>(attempts: &'a Attempts, client: &str, now: Monotonic) -> Vec<Attempt<'a>> {
    let turns = std::iter::from_fn(|| match attempts.turn(pair(client, 1), now) {
        Turn::Now(attempt) => Some(attempt),
        Turn::AfterAnother(_) | Turn::TurnedAway(_) => None,
    });
    turns.take(ADDRESS_FAILURES as usize * 2).collect()
}

#[test]
fn no_more_are_under_way_than_may_fail() {
    let attempts = Attempts::default();
    attempts.fail(pair("client", 1), SECOND);
    let mut begun = all_at_once(&attempts, "client", SECOND);
    assert_eq!(begun.len(), 4);
    // One of which nobody has learned anything is none.
    begun.pop();
    assert_eq!(all_at_once(&attempts, "client", SECOND).len(), 1);
    begun.drain(..).for_each(|attempt| attempt.failed(SECOND));
    begun = all_at_once(&attempts, "client", SECOND);
    assert_eq!(begun.len(), 1);
    begun.remove(0).failed(SECOND);
    assert_eq!(attempts.wait(pair("client", 1), SECOND), Err(SECOND));
    // After a delay it is one after the other.
    let later = SECOND * 2;
    begun = all_at_once(&attempts, "client", later);
    assert_eq!(begun.len(), 1);
    begun.remove(0).succeeded(later);
    assert_eq!(all_at_once(&attempts, "client", later).len(), 5);
    assert!(attempts.state().under_way.is_empty());
}

#[test]
fn an_address_has_no_more_under_way_than_may_fail_but_for_those_that_are_known_there() {
    let attempts = Attempts::default();
    attempts.begin(pair("known", 1), SECOND).succeeded(SECOND);
    let clients = (0..20).map(|number| format!("guess {number}"));
    let guesses: Vec<_> =
        clients.flat_map(|client| all_at_once(&attempts, &client, SECOND)).collect();
    assert_eq!(guesses.len(), 50);
    let known = all_at_once(&attempts, "known", SECOND);
    assert_eq!(known.len(), 5);
    drop(known);
    guesses.into_iter().for_each(|guess| guess.failed(SECOND));
    assert_eq!(attempts.wait(pair("fresh", 1), SECOND), Err(SECOND));
    assert_eq!(attempts.wait(pair("known", 1), SECOND), Ok(()));
}
