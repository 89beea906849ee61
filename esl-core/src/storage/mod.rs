//! The seam to whatever keeps events safe.
//!
//! [`Storage`] is the sum of small traits, one per concern; one adapter implements them all. What a
//! trait promises stands at its methods, and the suite in `testing` holds every adapter to it.
//!
//! Three rules run through all of them:
//!
//! - **Storage decides.** A precondition (a route's version, an event's id, an epoch) is checked
//!   inside the transaction that acts on it. No caller checks first and commits later.
//! - **Storage neither seals nor routes.** It is given bytes and lanes, and keeps them.
//! - **Storage has the time.** Due times, epochs and expiry are compared with the storage's clock,
//!   which never runs backwards: set back, it goes on from where it was ([`StorageTime`]).

mod commit;
pub mod encoding;
mod entities;
mod error;
mod feed;
mod lanes;
mod records;
mod reencryption;
mod removal;
mod replays;
mod schedule;
mod time;
pub mod transfer;

pub use commit::{
    Accepted, Audience, Commit, Committed, Expand, FAN_OUT_ABOVE, FanOut, Idempotency, IntakeRow,
    Metering, Notices, Outcome, Publish, Refused, RouteVersion, Routed, Settle, Settlement,
    StoredEvent, SwitchOff, Unit,
};
pub use entities::{
    DueEntity, ENTRIES_MAX, Entities, EntityAction, EntityPage, EntityPosition, EntityQuery,
    EntityStep, EntityWrite, Expected, IndexEntry, IndexValue, PutEntity, REFERENCES_MAX,
    References, StoredEntity,
};
pub use error::{StorageError, StorageErrorKind};
pub use feed::{Fed, Feed, FeedBatch, FeedRoom, FeedStep};
pub use lanes::{
    Change, Claimed, Due, EPOCH, LaneState, Lanes, Renewed, Swept, Taken, Tenure, Waiting, Want,
    Worker,
};
pub use records::{Health, Page, PageOf, Records, RouteTable, Subscriptions, Tenancy};
pub use reencryption::{Reencrypted, Resealing, SecretForm};
pub use removal::{AgeLimit, Erased, Removal, Removed};
pub use replays::{Candidates, ReplayStep, Replays};
pub use schedule::{SCHEDULED_MAX, Schedule, ScheduleNumber, Scheduled};
pub use time::{StorageTime, due_time};

/// Everything the engine and the API need of a storage.
pub trait Storage:
    Commit + Entities + Feed + Lanes + Subscriptions + Records + Replays + Removal + Schedule + Tenancy
{
}

impl<T> Storage for T where
    T: Commit
        + Entities
        + Feed
        + Lanes
        + Subscriptions
        + Records
        + Replays
        + Removal
        + Schedule
        + Tenancy
{
}
