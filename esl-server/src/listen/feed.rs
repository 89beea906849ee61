//! What is published, one event after another: by asking for the history again and again, until there is a
//! stream to take its place.

use std::{mem, time::Duration};

use esl_core::Seq;
use esl_http::client::{Client, ClientError, ClientErrorKind, List, Page, StoredEvent};
use tokio::time::sleep;

use super::Since;

/// Every event from a place on, in the order of `seq`: each once, and none left out, however many are published
/// between two looks.
///
/// The history is listed newest first. So the pages are gone back over to the last event that was seen, and then
/// forward again; of those between, only the cursors are kept.
pub(super) struct Feed {
    client: Client,
    /// Nothing before this is handed out; `None` once that is reached.
    since: Option<Since>,
    /// The last event that was handed out or passed over; `None` before the beginning is found.
    after: Option<Seq>,
    /// Whether the history had no event when it was last looked at.
    is_empty: bool,
    /// Whether another history is still to be told.
    is_another: bool,
    /// Newest first.
    page: Vec<StoredEvent>,
    /// What comes after the page, the newest first.
    parts: Vec<Part>,
    failures: u32,
}

/// What a feed has to say.
#[derive(Debug)]
pub(super) enum News {
    /// It knows where it begins: what is published from now on will come.
    Begun,
    Event(StoredEvent),
    /// The server does not answer as it should. It is asked on; this is not said again before `Back`.
    Away(ClientError),
    Back,
    /// The history ends before the event that came last, so it is another one. What is published from now on will
    /// come.
    Another,
    /// The server refuses what does not mend itself: to ask on would be in vain.
    Refused(ClientError),
}

/// A page of the history.
enum Part {
    /// The newest: it has no cursor, so it would be another one if it were asked for again.
    Held(Vec<StoredEvent>),
    /// Where it begins, and what it went back to.
    At { cursor: String, oldest: Option<Seq> },
}

impl Feed {
    pub(super) fn new(client: Client, since: Option<Since>) -> Self {
        Self {
            client,
            since,
            after: None,
            is_empty: false,
            is_another: false,
            page: Vec::new(),
            parts: Vec::new(),
            failures: 0,
        }
    }

    /// What comes next; waits until there is something.
    pub(super) async fn next(&mut self) -> News {
        loop {
            if mem::take(&mut self.is_another) {
                return News::Another;
            }
            if let Some(event) = self.take() {
                return News::Event(event);
            }
            let had_begun = self.after.is_some();
            match self.advance().await {
                Ok(_) if self.failures > 0 && had_begun => {
                    self.failures = 0;
                    return News::Back;
                }
                Ok(_) if !had_begun => {
                    self.failures = 0;
                    return News::Begun;
                }
                Ok(true) => {}
                Ok(false) => sleep(BETWEEN_LOOKS).await,
                Err(error) if is_refused(&error, had_begun) => return News::Refused(error),
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    if self.failures == 1 {
                        return News::Away(error);
                    }
                    sleep(delay(self.failures, error.retry_after())).await;
                }
            }
        }
    }

    /// The next event of the page that was not handed out yet. One that was erased says nothing, and is not sent.
    fn take(&mut self) -> Option<StoredEvent> {
        while let Some(event) = self.page.pop() {
            if self.after.is_some_and(|after| event.seq > after) {
                self.after = Some(event.seq);
                if self.since.is_some_and(|since| since.is_after(&event)) {
                    continue;
                }
                self.since = None;
                if event.erased_at.is_none() {
                    return Some(event);
                }
            }
        }
        None
    }

    /// Goes on to the next page; says whether there is one.
    async fn advance(&mut self) -> Result<bool, ClientError> {
        let Some(after) = self.after else {
            self.after = Some(self.beginning().await?);
            return Ok(true);
        };
        match self.parts.pop() {
            None => self.look(after).await,
            Some(Part::Held(events)) => {
                self.page = events;
                Ok(true)
            }
            Some(Part::At { cursor, oldest }) => match self.events().page(Some(&cursor)).await {
                Ok(Page { data, next_cursor, .. }) => {
                    let reached = data.last().map(|event| event.seq);
                    match next_cursor {
                        // Fewer than before, since they were too large now: first those that are missing.
                        Some(next) if reached > oldest => {
                            self.parts.push(Part::At { cursor, oldest: reached });
                            self.parts.push(Part::At { cursor: next, oldest });
                        }
                        _ => self.page = data,
                    }
                    Ok(true)
                }
                Err(error) => {
                    // Asked for again, unless it can never be had: then all is looked for anew.
                    match error.is_transient() {
                        true => self.parts.push(Part::At { cursor, oldest }),
                        false => self.parts.clear(),
                    }
                    Err(error)
                }
            },
        }
    }

    /// Goes back to what was handed out last.
    async fn look(&mut self, after: Seq) -> Result<bool, ClientError> {
        let mut after = after;
        let was_empty = self.is_empty;
        let newest = self.newest().await?;
        self.is_empty = newest.is_none();
        match newest {
            // A new database, or all of an old one was removed: which of them, the next event says.
            None => return Ok(false),
            Some(newest) if newest == after => return Ok(false),
            // What is there was published since the last look.
            Some(newest) if newest < after && was_empty => {
                (self.after, self.is_another) = (Some(Seq::ZERO), true);
                after = Seq::ZERO;
            }
            // What is there may be as old as the history.
            Some(newest) if newest < after => {
                (self.after, self.is_another) = (Some(newest), true);
                return Ok(true);
            }
            Some(_) => {}
        }
        let list = self.events();
        let mut parts = Vec::new();
        let (mut at, Page { mut data, mut next_cursor, .. }) = (None, list.page(None).await?);
        while let Some(cursor) = next_cursor
            && data.last().is_some_and(|oldest| oldest.seq > after)
        {
            let oldest = data.last().map(|event| event.seq);
            parts.push(match at {
                None => Part::Held(data),
                Some(cursor) => Part::At { cursor, oldest },
            });
            let page = list.page(Some(&cursor)).await?;
            (at, data, next_cursor) = (Some(cursor), page.data, page.next_cursor);
        }
        (self.after, self.page, self.parts) = (Some(after), data, parts);
        Ok(true)
    }

    /// The event after which it begins.
    async fn beginning(&self) -> Result<Seq, ClientError> {
        let newest = self.newest().await?.unwrap_or(Seq::ZERO);
        let time = match self.since {
            None => return Ok(newest),
            // It may not be reached yet.
            Some(Since::Seq(first)) => return Ok(Seq::new(first.get() - 1).min(newest)),
            Some(Since::Time(time)) => time,
        };
        let mut cursor = None;
        loop {
            let page = self.events().page(cursor.as_deref()).await?;
            if let Some(older) = page.data.iter().find(|event| event.timestamp < time) {
                return Ok(older.seq);
            }
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(Seq::ZERO),
            }
        }
    }

    /// The last event that was published. It alone is asked for, since mostly it is known.
    async fn newest(&self) -> Result<Option<Seq>, ClientError> {
        let one = self.events().limit(std::num::NonZeroU8::MIN).page(None).await?;
        Ok(one.data.first().map(|event| event.seq))
    }

    fn events(&self) -> List<StoredEvent> {
        self.client.events()
    }
}

impl Since {
    fn is_after(self, event: &StoredEvent) -> bool {
        match self {
            Self::Seq(first) => event.seq < first,
            Self::Time(time) => event.timestamp < time,
        }
    }
}

/// Whether an error does not mend itself. At the beginning that is whatever is wrong with the request; later a
/// server, or a proxy before it, may answer strangely while it is started anew.
fn is_refused(error: &ClientError, had_begun: bool) -> bool {
    match error.kind() {
        ClientErrorKind::Unauthorized | ClientErrorKind::Forbidden => true,
        _ => !had_begun && !error.is_transient(),
    }
}

/// How long is waited after so many failures.
fn delay(failures: u32, retry_after: Option<Duration>) -> Duration {
    let doubled = BETWEEN_LOOKS.saturating_mul(1 << failures.saturating_sub(2).min(8));
    doubled.min(DELAY_MAX).max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
}

const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(8);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_asked_less_and_less_often() {
        let seconds = Duration::from_secs;
        for (failures, retry_after, expected) in [
            (2, None, seconds(1)),
            (3, None, seconds(2)),
            (5, None, seconds(8)),
            (u32::MAX, None, seconds(8)),
            (2, Some(seconds(5)), seconds(5)),
            (2, Some(seconds(3600)), seconds(60)),
        ] {
            assert_eq!(delay(failures, retry_after), expected, "{failures} {retry_after:?}");
        }
    }
}
