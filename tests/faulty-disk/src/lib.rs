//! A disk that loses power, fails to sync, and is full: under SQLite, for the tests of ESL.
//!
//! [`Machine`] is a computer with such a disk. Databases in its [folder](Machine::folder) go through a
//! VFS that is SQLite's default from the first machine on, so whoever opens one there needs to know
//! nothing of it; databases anywhere else are what they always are. Files, locks and shared memory are
//! those of SQLite's own VFS, and what is read is what was written. The machine keeps beside each file
//! what a disk would have of it: what was synced, and, one by one, what was written since.
//!
//! - **A power cut** ends all work with I/O errors. What [survives](Machine::survivor) is drawn: of each
//!   file what was synced, and of the rest nothing, all, a beginning, or any of it, torn at sectors;
//!   files that have grown without what made them grow; files made, or deleted, or not. Another machine
//!   goes on with it.
//! - **A sync that fails** ([`Machine::fail_syncs`]) loses what it should have made durable, or some
//!   of it, and the next one says that all is well, as Linux does: what is read is still what was
//!   written, until the system [needs the memory](Machine::forget_cache). Every open file is told of the
//!   failure once, by its next sync (Linux since 4.13).
//! - **A full disk** ([`Machine::fill`]) takes a part of a write, and no more.
//! - **Reads** fail now and then ([`Machine::fail_reads`]).
//!
//! Beyond the bytes of a write, nothing is ever damaged: SQLite counts on that (`powersafe overwrite`),
//! and so do the disks there are.
//!
//! All is drawn from one seed. With several threads at work the same seed leads to the same draws in
//! another order, so a failure may need some tries to come back.
//!
//! This is the one crate of the workspace that has `unsafe` code: a VFS is made of functions that C calls
//! with raw pointers. It is not published, and nothing but tests depends on it.

mod disk;
mod file;
mod machine;
mod vfs;

pub use disk::{Full, Image, SyncFault, Tally};
pub use machine::Machine;
