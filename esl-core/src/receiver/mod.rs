//! What a receiver does with a delivery whose signature was verified: reads the event that it brings, and
//! takes it once.

mod event;
mod key;
mod memory;
pub mod payload;
mod seen;

pub use event::{Change, Changes, Event, EventError};
pub use key::EventKey;
pub use memory::MemorySeen;
pub use seen::{Begun, Seen, SeenError};
