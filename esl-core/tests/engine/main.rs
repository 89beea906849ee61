//! The engine on the in-memory storage, under a clock that is moved by hand.

mod answers;
mod intake;
mod lanes;
mod nodes;
mod publishing;
mod world;
