//! The engine on the in-memory storage, under a clock that is moved by hand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod answers;
mod blobs;
mod entities;
mod erasing;
mod fan_out;
mod intake;
mod lanes;
mod limits;
mod maintenance;
mod nodes;
mod notices;
mod options;
mod publishing;
mod replays;
mod rotation;
mod strict;
mod world;
