//! Taking an event once, however often it arrives.

use std::{error::Error, fmt};

use async_trait::async_trait;

use super::EventKey;

/// What a handler remembers of the events that it has taken.
///
/// ESL delivers at least once: an answer that is lost on its way brings the event again. Whoever handles
/// an event says [`begin`](Self::begin) before, and then [`done`](Self::done) or
/// [`failed`](Self::failed). `testing::seen_suite` holds whatever implements this to its promises:
///
/// - An event that is done is not begun again, for as long as it is remembered.
/// - One that has failed is.
/// - Of two that are begun at the same time through one `Seen`, one is.
/// - Events of two organizations are two events, also where their ids are the same ([`EventKey`]).
/// - What was under way when the process died is begun again: nobody knows how far it has come.
///
/// # One for each handler
/// A `Seen` says of an event that it was taken, and not by whom: **one `Seen` is for one handler.** Where two
/// share one, such as two routes behind one layer to each of which a subscription of its own delivers, an
/// event that both get runs the first handler alone, and is lost to the second. Give each handler its own: a
/// [`MemorySeen`](crate::MemorySeen) each, or one `esl_sqlite::SqliteSeen` with a scope for each
/// (`SqliteSeen::with_scope`).
///
/// # What once means
/// Killed between what the handler commits and [`done`](Self::done), a receiver handles the event again; at
/// any other moment it does not, where the `Seen` outlives the process (`esl_sqlite::SqliteSeen`). Where that
/// must not be either, the handler takes the event in its own transaction (`esl_sqlite::take_in`): what it does
/// in there is there once, whenever it is killed. What it does elsewhere, such as sending a mail, can be done
/// again in any case: give the event's key along, by which the other side knows it.
///
/// # Cancellation
/// A dropped `begin` may leave the event under way, as nobody would end it: let it run to its end.
#[async_trait]
pub trait Seen: fmt::Debug + Send + Sync {
    /// Begins to handle an event, if it is to be handled.
    async fn begin(&self, event: EventKey) -> Result<Begun, SeenError>;

    /// An event that was begun was handled. On return it is remembered, as durably as whatever
    /// implements this promises. Whether or not that has worked, it is not under way any more.
    async fn done(&self, event: EventKey) -> Result<(), SeenError>;

    /// An event that was begun was not handled.
    async fn failed(&self, event: EventKey) -> Result<(), SeenError>;
}

/// Whether an event is to be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It is, now and by whoever has asked.
    Now,
    /// Somebody is at it.
    UnderWay,
    /// It was handled before.
    Before,
}

/// It could not be read or written what was seen.
#[derive(Debug, thiserror::Error)]
#[error("what was seen of events could not be {operation}")]
pub struct SeenError {
    operation: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl SeenError {
    /// What is remembered could not be opened.
    pub fn opening(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { operation: "opened", source: source.into() }
    }

    /// Reading failed.
    pub fn reading(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { operation: "read", source: source.into() }
    }

    /// Writing failed.
    pub fn writing(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { operation: "written", source: source.into() }
    }
}
