//! What must be true after something goes wrong beneath the server: its process, its disk, its
//! database, its receivers, its descriptors, its clock.
//!
//! Cases that take long, or need more than a bare machine has, are ignored here and run by
//! `tests/faults.sh`.

mod kills;
mod receivers;
mod wrong;
