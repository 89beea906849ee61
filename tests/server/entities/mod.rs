//! Entities through the real API: what is written, what is published of it, and that both are the same story.

mod crowd;
mod documented;
mod kill;
mod organizations;
mod shape;
mod story;
