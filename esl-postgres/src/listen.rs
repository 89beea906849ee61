//! Hearing of what others change.
//!
//! Changes are rows, which are read by what was visible at the last look: so none is missed, in whatever order
//! their transactions end. A notification only says that it is time to look, and one that is lost costs a
//! second. Whether any are heard at all is tried every few seconds, since a pooler in between may keep them.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use esl_core::storage::{Change, StorageError, StorageErrorKind};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_postgres::Row;

use crate::{
    changes::{Changes, change},
    connect::{CALL_TIMEOUT, Connector, Database, Line, Parameters},
    error::{Damage, refused, timed_out, translate},
    hearing::{Echo, Heard, Step},
    id::Id16,
    notify::{Note, Notifier},
    parameters::parameters,
    position::{Mark, Moment},
    rows::{get, whole},
};

/// What the task has.
pub(crate) struct Listener {
    pub(crate) handle: Id16,
    /// Where to listen, if not where all else is done.
    pub(crate) elsewhere: Option<Connector>,
    pub(crate) database: Arc<Database>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) position: Position,
}

/// Up to where this handle knows of changes.
#[derive(Debug)]
pub(crate) struct Position {
    moment: Moment,
    changes: Mark,
    intake: Mark,
    waiting: Waiting,
}

/// What is in the intake beyond its mark: if it is something else than before, there is something new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Waiting {
    /// Of the first rows.
    count: i64,
    first: Option<i64>,
    last: Option<i64>,
    /// The last of all.
    newest: Option<i64>,
}

impl Position {
    /// Where a handle begins that is being opened: nothing is news to it.
    pub(crate) async fn now(database: &Database) -> Result<Self, StorageError> {
        let row = database.query_one(OPERATION, BEGIN, &[]).await?;
        whole(OPERATION, Self::begin(&row))
    }

    fn begin(row: &Row) -> Result<Self, Damage> {
        let moment = moment(row)?;
        let changes = Mark::new(get::<Option<i64>>(row, 3)?.unwrap_or_default(), &moment);
        let intake = Mark::new(0, &moment);
        // What is in the intake is news to whoever has just begun.
        Ok(Self { moment, changes, intake, waiting: Waiting::default() })
    }
}

impl Listener {
    /// Listens, as soon as somebody wants to know.
    pub(crate) async fn run(mut self) {
        self.changes.wanted().await;
        let mut is_deaf = false;
        let mut pause = PAUSE;
        let mut misses = 0;
        loop {
            let elsewhere = self.elsewhere.clone().filter(|_| misses < MISSES_MAX);
            let (ended, has_looked) = self.listen(elsewhere.as_ref(), &mut is_deaf).await;
            tracing::debug!(error = &ended as &dyn std::error::Error, "listening begins anew");
            misses = if has_looked { 0 } else { misses + 1 };
            if misses == MISSES_MAX && self.elsewhere.is_some() {
                tracing::warn!(
                    error = &ended as &dyn std::error::Error,
                    "the connection for listening does not work; what others change is looked for \
                     through the others"
                );
            }
            pause = if has_looked { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
            sleep(pause).await;
        }
    }

    /// Listens on one connection; says what has ended it, and whether it was of use before.
    async fn listen(
        &mut self,
        elsewhere: Option<&Connector>,
        is_deaf: &mut bool,
    ) -> (StorageError, bool) {
        let heard = Arc::new(Heard::default());
        let connector = elsewhere.unwrap_or_else(|| self.database.connector());
        let connected = self.connect(connector, &heard).await;
        let line = match connected {
            Ok(line) => line,
            Err(error) => return (error, false),
        };
        let began = self.position.moment.at;
        let Err(ended) = self.follow(&line, &heard, is_deaf).await;
        (ended, self.position.moment.at > began)
    }

    async fn connect(
        &self,
        connector: &Connector,
        heard: &Arc<Heard>,
    ) -> Result<Line, StorageError> {
        let (hears, me) = (Arc::clone(heard), self.handle);
        let changes = Arc::clone(&self.changes);
        let channel = self.database.schema().name();
        let is_ours = channel.to_owned();
        let line = connector.connect_listening(move |said| match said {
            Some((channel, text)) if channel == is_ours => match Note::read(text, me) {
                Some(Note::Look) => hears.note(|state| state.look = true),
                Some(Note::Lanes(lanes)) => changes.hint(lanes),
                Some(Note::Echo(number)) => hears.note(|state| state.echo = Some(number)),
                None => {}
            },
            Some(_) => {}
            None => hears.end(),
        });
        let line = match timeout(CALL_TIMEOUT, line).await {
            Ok(connected) => connected.map_err(|error| translate(OPERATION, error))?,
            Err(_elapsed) => return Err(timed_out(OPERATION)),
        };
        self.call(&line, &format!("LISTEN \"{channel}\""), &[]).await?;
        Ok(line)
    }

    /// Looks whenever it is time to, until the connection ends.
    async fn follow(
        &mut self,
        line: &Line,
        heard: &Heard,
        is_deaf: &mut bool,
    ) -> Result<Infallible, StorageError> {
        // Nobody has kept the hints that went out before this connection listened.
        self.changes.tell(Change::Lanes);
        let mut echo = Echo::new(self.notifier.echo_given());
        let mut intake_at = Instant::now();
        let mut shown_at: Option<Instant> = None;
        loop {
            if shown_at.is_none_or(|at| at.elapsed() >= SHOW_EVERY) {
                self.call(line, SHOW, parameters![self.handle]).await?;
                shown_at = Some(Instant::now());
            }
            // However many notify, others have their turn between two looks.
            sleep_until((self.position.moment.at + BETWEEN).into()).await;
            if self.look(line).await? {
                intake_at = Instant::now();
            }
            let wait = match (self.changes.leads(), *is_deaf) {
                (true, _) if intake_at.elapsed() < BUSY => PROBE_BUSY,
                (true, _) => PROBE,
                (false, true) => POLL_DEAF,
                (false, false) => POLL,
            };
            let state = heard.wait(Instant::now() + wait).await?;
            if let Some(number) = state.echo {
                *is_deaf &= !echo.hear(number);
            }
            match echo.step(self.notifier.echo_given(), Instant::now()) {
                Step::Wait => {}
                Step::Ask(number) => self.notifier.echo(number),
                // It did hear before: the connection is broken, without a word.
                Step::Missed if echo.was_heard => {
                    let why = "notifications have ceased";
                    return Err(refused(StorageErrorKind::Unavailable, OPERATION).with_source(why));
                }
                Step::Missed => {
                    if !*is_deaf {
                        tracing::warn!(
                            "notifications do not come through to this connection: is there a pooler \
                             in transaction mode in between? What others change is looked for {} times \
                             a second instead",
                            1000 / POLL_DEAF.as_millis()
                        );
                    }
                    *is_deaf = true;
                }
            }
        }
    }

    /// Tells what others have changed since the last look, and whether there is news in the intake.
    async fn look(&mut self, line: &Line) -> Result<bool, StorageError> {
        let Position { moment, changes, intake, .. } = &self.position;
        let values = parameters![
            moment.snapshot.as_str(),
            changes.low(),
            intake.low(),
            self.handle,
            WINDOW,
        ];
        let rows = self.call(line, LOOK, values).await?;
        let Some(first) = rows.first() else {
            return Err(
                refused(StorageErrorKind::Corrupt, OPERATION).with_source("a row is missing")
            );
        };
        let look = whole(OPERATION, Look::read(first))?;
        let position = &mut self.position;
        // Rows are gone that were not read, or it is another server's database, as of an earlier time.
        let is_lost =
            look.removed_to > position.changes.seen() || look.moment.xmax < position.moment.xmax;
        let mut seen = Some(look.removed_to);
        for row in &rows {
            let Some(number) = whole(OPERATION, get::<Option<i64>>(row, 8))? else { continue };
            seen = seen.max(Some(number));
            if whole(OPERATION, get(row, 11))?
                && let Some(change) = whole(OPERATION, change(row, 9))?
            {
                self.changes.tell(change);
            }
        }
        if is_lost {
            tracing::info!("what others have changed was not read in time: all is read again");
            self.changes.tell(Change::All);
            self.position.changes = Mark::new(0, &look.moment);
            self.position.intake = Mark::new(0, &look.moment);
        }
        let position = &mut self.position;
        let is_new = look.waiting.count > 0
            && (look.waiting != position.waiting || look.waiting.count == WINDOW);
        if is_new {
            self.changes.tell(Change::Intake);
        }
        position.changes.look(&look.moment, seen);
        position.intake.look(&look.moment, look.waiting.newest);
        position.waiting = look.waiting;
        position.moment = look.moment;
        Ok(is_new)
    }

    async fn call(
        &self,
        line: &Line,
        text: &str,
        values: Parameters<'_>,
    ) -> Result<Vec<Row>, StorageError> {
        let text = self.database.sql(text);
        match timeout(CALL_TIMEOUT, line.client.query_typed(&text, values)).await {
            Ok(rows) => rows.map_err(|error| translate(OPERATION, error)),
            Err(_elapsed) => Err(timed_out(OPERATION)),
        }
    }
}

pub(crate) const OPERATION: &str = "look for what others have changed";

/// What a look says beside the changes.
struct Look {
    moment: Moment,
    removed_to: i64,
    waiting: Waiting,
}

impl Look {
    fn read(row: &Row) -> Result<Self, Damage> {
        let waiting = Waiting {
            count: get(row, 4)?,
            first: get(row, 5)?,
            last: get(row, 6)?,
            newest: get(row, 7)?,
        };
        Ok(Self { moment: moment(row)?, removed_to: get(row, 3)?, waiting })
    }
}

/// Reads the first three columns.
fn moment(row: &Row) -> Result<Moment, Damage> {
    Ok(Moment {
        snapshot: get(row, 0)?,
        xmin: get(row, 1)?,
        xmax: get(row, 2)?,
        at: Instant::now(),
    })
}

const BEGIN: &str = "
WITH s AS MATERIALIZED (SELECT pg_current_snapshot() AS now)
SELECT s.now::text, pg_snapshot_xmin(s.now)::text::bigint, pg_snapshot_xmax(s.now)::text::bigint,
    greatest(
        (SELECT c.number FROM esl.changes c ORDER BY c.number DESC LIMIT 1),
        (SELECT t.changes_removed_to FROM esl.settings t)
    )
FROM s";

/// Each change once, with the highest number of its rows, and whether one of them is of somebody else.
const LOOK: &str = "
WITH s AS MATERIALIZED (SELECT pg_current_snapshot() AS now),
i AS MATERIALIZED (
    SELECT count(*) AS count, min(t.id) AS first, max(t.id) AS last
    FROM (SELECT i.id FROM esl.intake i WHERE i.id > $3 ORDER BY i.id LIMIT $5) t
),
c AS MATERIALIZED (
    SELECT max(c.number) AS number, c.kind, c.organization,
        bool_or(c.author IS DISTINCT FROM $4) AS is_foreign
    FROM esl.changes c
    WHERE c.number > $2 AND NOT pg_visible_in_snapshot(c.tx, $1::pg_snapshot)
    GROUP BY c.kind, c.organization
)
SELECT s.now::text, pg_snapshot_xmin(s.now)::text::bigint, pg_snapshot_xmax(s.now)::text::bigint,
    (SELECT t.changes_removed_to FROM esl.settings t),
    i.count, i.first, i.last,
    (SELECT n.id FROM esl.intake n WHERE n.id > $3 ORDER BY n.id DESC LIMIT 1),
    c.number, c.kind, c.organization, c.is_foreign
FROM s CROSS JOIN i LEFT JOIN c ON true";

/// A handle that nobody uses for a week is forgotten.
const SHOW: &str = "UPDATE esl.handles SET used_at = esl.now_1(NULL) WHERE id = $1";
const SHOW_EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// So often in a row listening elsewhere may fail before it is done where all else is.
const MISSES_MAX: u32 = 3;

/// Rows of the intake that are told apart.
const WINDOW: i64 = 1000;

const BETWEEN: Duration = Duration::from_millis(5);

/// The net beneath the notifications.
const POLL: Duration = Duration::from_secs(1);
const POLL_DEAF: Duration = Duration::from_millis(250);

/// Of what applications write into the intake nobody is notified, since they would wait for each other. So who
/// does the chores looks often, and less so when nothing has come for a while.
const PROBE_BUSY: Duration = Duration::from_millis(20);
const BUSY: Duration = Duration::from_secs(10);
const PROBE: Duration = Duration::from_millis(100);

const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
