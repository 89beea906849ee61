//! Which event has come to which subscription, so that none is missing and none comes twice.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use esl::{EventType, NewEvent};
use hyper::http::request::Parts;

use crate::service::ORGANIZATION;

/// A place for each; they are few bytes, so that they do not matter beside what is measured.
#[derive(Debug)]
pub(crate) struct Tally {
    events: usize,
    has_come: Vec<AtomicBool>,
    again: AtomicUsize,
}

impl Tally {
    pub(crate) fn new(subscriptions: usize, events: usize) -> Self {
        let has_come = (0..subscriptions * events).map(|_| AtomicBool::new(false)).collect();
        Self { events, has_come, again: AtomicUsize::new(0) }
    }

    /// Notes a request to a subscription's URL with a numbered event; gives both numbers.
    pub(crate) fn note(&self, head: &Parts, body: &[u8]) -> (usize, usize) {
        let (_, subscription) = head.uri.path().rsplit_once('/').expect("a path");
        let subscription: usize = subscription.parse().expect("the number of a subscription");
        let event = number_in(body);
        let had_come =
            self.has_come[subscription * self.events + event].swap(true, Ordering::Relaxed);
        self.again.fetch_add(usize::from(had_come), Ordering::Relaxed);
        (subscription, event)
    }

    /// Waits until each has come.
    pub(crate) async fn wait_for_all(&self) {
        for has_come in &self.has_come {
            while !has_come.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Fails unless each has come once.
    pub(crate) fn check_all(&self) -> anyhow::Result<()> {
        let missing = self.has_come.iter().filter(|has_come| !has_come.load(Ordering::Relaxed));
        let missing = missing.count();
        anyhow::ensure!(missing == 0, "{missing} have not come");
        self.check_none_twice()
    }

    /// Fails if one has come twice.
    pub(crate) fn check_none_twice(&self) -> anyhow::Result<()> {
        let again = self.again.load(Ordering::Relaxed);
        anyhow::ensure!(again == 0, "{again} have come twice");
        Ok(())
    }
}

/// The URL of a numbered subscription.
pub(crate) fn numbered_url(receiver: &str, subscription: usize) -> String {
    format!("{receiver}/{subscription}")
}

/// An event with a number, and so many bytes of text beside it.
pub(crate) fn numbered(
    event_type: &EventType,
    number: usize,
    padding: usize,
) -> anyhow::Result<NewEvent> {
    let data = serde_json::json!({ "number": number, "text": "x".repeat(padding) });
    Ok(NewEvent::new(ORGANIZATION, event_type.clone(), &data)?)
}

/// Found rather than parsed: receivers share the machine.
fn number_in(body: &[u8]) -> usize {
    let at = body.windows(NUMBER.len()).position(|window| window == NUMBER).expect("a number");
    let digits = body[at + NUMBER.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

const NUMBER: &[u8] = b"\"number\":";
