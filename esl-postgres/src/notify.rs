//! Telling other handles that there is something to look at.
//!
//! Never inside the transaction that it tells of: those that notify wait for each other until their commits are
//! on the disk. So whoever has committed something leaves word here, and a task sends it over a connection of
//! its own. What is lost with the process is found all the same: changes are rows, and listeners look by
//! themselves once a second.

use std::{
    collections::HashSet,
    mem::take,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use esl_core::{LaneId, storage::StorageError};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    connect::{CALL_TIMEOUT, Database, Line},
    error::{timed_out, translate},
    id::Id16,
    parameters::parameters,
};

/// What one handle says to all others. As text it is a word, the handle that says it, and what else there is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// There are rows to look at.
    Look,
    /// There is work in these lanes.
    Lanes(Vec<LaneId>),
    /// A handle wants to know whether it hears.
    Echo(u64),
}

impl Note {
    /// Reads what was heard by `me`; `None` for what is not meant for it.
    pub(crate) fn read(text: &str, me: Id16) -> Option<Self> {
        let mut words = text.split(' ');
        let (word, author) = (words.next()?, words.next()?);
        let is_mine = author == name(me);
        match word {
            LOOK if !is_mine => Some(Self::Look),
            LANES if !is_mine => {
                let lanes = words.filter_map(|lane| u64::from_str_radix(lane, RADIX).ok());
                Some(Self::Lanes(lanes.map(LaneId::new).collect()))
            }
            ECHO if is_mine => words.next()?.parse().ok().map(Self::Echo),
            _ => None,
        }
    }
}

const LOOK: &str = "look";
const LANES: &str = "lanes";
const ECHO: &str = "echo";

fn name(handle: Id16) -> String {
    format!("{:032x}", u128::from_be_bytes(handle.0))
}

/// The way to the task that notifies.
#[derive(Debug)]
pub(crate) struct Notifier {
    word: Arc<Word>,
    task: JoinHandle<()>,
}

/// What is to be said next.
#[derive(Debug, Default)]
struct Word {
    unsaid: Mutex<Unsaid>,
    news: Notify,
    /// The last echo that was asked for in fact.
    echo: AtomicU64,
}

#[derive(Debug, Default)]
struct Unsaid {
    look: bool,
    lanes: HashSet<LaneId>,
    echo: Option<u64>,
}

impl Notifier {
    pub(crate) fn start(handle: Id16, database: Arc<Database>) -> Self {
        let word = Arc::default();
        let work = Work { handle, database, word: Arc::clone(&word), line: None };
        Self { word, task: tokio::spawn(work.run()) }
    }

    /// Others are to look at the rows that were written for them.
    pub(crate) fn look(&self) {
        self.leave(|unsaid| unsaid.look = true);
    }

    /// Others are to know that there is something in these lanes.
    pub(crate) fn lanes(&self, lanes: impl IntoIterator<Item = LaneId>) {
        self.leave(|unsaid| {
            unsaid.lanes.extend(lanes);
            if unsaid.lanes.len() > LANES_MAX {
                // They are found by whoever looks round.
                unsaid.lanes.clear();
            }
        });
    }

    /// This handle wants to hear itself.
    pub(crate) fn echo(&self, number: u64) {
        self.leave(|unsaid| unsaid.echo = Some(number));
    }

    /// The last echo that the server was given.
    pub(crate) fn echo_given(&self) -> u64 {
        self.word.echo.load(Ordering::Relaxed)
    }

    fn leave(&self, word: impl FnOnce(&mut Unsaid)) {
        word(&mut self.word.unsaid());
        self.word.news.notify_one();
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Word {
    fn unsaid(&self) -> MutexGuard<'_, Unsaid> {
        self.unsaid.lock().expect("no code panics while it holds this lock")
    }
}

impl Unsaid {
    fn payloads(&self, handle: Id16) -> Vec<String> {
        let name = name(handle);
        let mut payloads = Vec::new();
        payloads.extend(self.look.then(|| format!("{LOOK} {name}")));
        payloads.extend(self.echo.map(|number| format!("{ECHO} {name} {number}")));
        let mut payload = String::new();
        for lane in &self.lanes {
            if payload.is_empty() {
                payload = format!("{LANES} {name}");
            }
            payload.push(' ');
            push_number(&mut payload, lane.get());
            if payload.len() > PAYLOAD_BYTES {
                payloads.push(take(&mut payload));
            }
        }
        payloads.extend(Some(payload).filter(|payload| !payload.is_empty()));
        payloads
    }
}

fn push_number(text: &mut String, number: u64) {
    let mut digits = Vec::new();
    let mut rest = number;
    loop {
        let digit = u32::try_from(rest % u64::from(RADIX)).expect("it is below the radix");
        digits.push(char::from_digit(digit, RADIX).expect("it is below the radix"));
        rest /= u64::from(RADIX);
        if rest == 0 {
            break;
        }
    }
    text.extend(digits.iter().rev());
}

/// What the task has.
struct Work {
    handle: Id16,
    database: Arc<Database>,
    word: Arc<Word>,
    /// Its own connection; made when it is needed.
    line: Option<Line>,
}

impl Work {
    async fn run(mut self) {
        let mut pause = REST;
        loop {
            self.word.news.notified().await;
            let unsaid = take(&mut *self.word.unsaid());
            let payloads = unsaid.payloads(self.handle);
            if payloads.is_empty() {
                continue;
            }
            match self.say(payloads).await {
                Ok(()) => {
                    pause = REST;
                    if let Some(echo) = unsaid.echo {
                        self.word.echo.store(echo, Ordering::Relaxed);
                    }
                }
                // Those who were to hear it look by themselves.
                Err(error) => {
                    tracing::debug!(%error, "others were not notified");
                    self.line = None;
                    pause = (pause * 2).clamp(PAUSE, PAUSE_MAX);
                }
            }
            // What comes meanwhile goes together.
            sleep(pause).await;
        }
    }

    async fn say(&mut self, payloads: Vec<String>) -> Result<(), StorageError> {
        let line = match &mut self.line {
            Some(line) if !line.client.is_closed() => line,
            line => {
                let connected = self.database.connector().connect().await;
                line.insert(connected.map_err(|error| translate(OPERATION, error))?)
            }
        };
        let channel = self.database.schema().name();
        let values = parameters![channel, payloads];
        let said = line.client.query_typed(NOTIFY, values);
        match timeout(CALL_TIMEOUT, said).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(translate(OPERATION, error)),
            Err(_elapsed) => Err(timed_out(OPERATION)),
        }
    }
}

const OPERATION: &str = "notify others";

const NOTIFY: &str = "SELECT pg_notify($1, t) FROM unnest($2) AS t";

/// Lanes are written to this base, to be short.
const RADIX: u32 = 36;

/// The server takes less than 8 000; a lane has 9 at most.
const PAYLOAD_BYTES: usize = 7_900;

/// Lanes that are named at once.
const LANES_MAX: usize = 65_536;

/// Between two notifications, which all others wait for who notify.
const REST: Duration = Duration::from_millis(5);

const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Id16 = Id16([7; 16]);
    const OTHER: Id16 = Id16([8; 16]);

    #[test]
    fn what_one_says_the_others_read_and_only_an_echo_is_for_oneself() {
        let lanes = [LaneId::new(0), LaneId::new(35), LaneId::new((1 << 40) - 1)];
        let unsaid = Unsaid { look: true, lanes: lanes.into(), echo: Some(3) };
        let heard = |listener| {
            let read = |text: &String| Note::read(text, listener);
            unsaid.payloads(ME).iter().filter_map(read).collect::<Vec<_>>()
        };
        let [Note::Look, Note::Lanes(read)] = &heard(OTHER)[..] else {
            panic!("{:?}", heard(OTHER))
        };
        assert_eq!(read.iter().copied().collect::<HashSet<_>>(), lanes.into());
        assert_eq!(heard(ME), [Note::Echo(3)]);
    }

    #[test]
    fn what_others_write_to_the_channel_says_nothing() {
        for text in ["", "look", "lanes", "echo 1", "hello world", "look  "] {
            let read = Note::read(text, ME);
            assert!(read.is_none_or(|note| note == Note::Look), "{text:?}");
        }
    }

    #[test]
    fn many_lanes_are_named_in_several_payloads_of_which_none_is_too_long() {
        let lanes: HashSet<_> = (0..5000).map(|number| LaneId::new((1 << 39) + number)).collect();
        let unsaid = Unsaid { lanes: lanes.clone(), ..Unsaid::default() };
        let payloads = unsaid.payloads(ME);
        assert!(payloads.iter().all(|payload| payload.len() < 8000));
        let read = payloads.iter().flat_map(|payload| match Note::read(payload, OTHER) {
            Some(Note::Lanes(lanes)) => lanes,
            note => panic!("{note:?}"),
        });
        assert_eq!(read.collect::<HashSet<_>>(), lanes);
    }
}
