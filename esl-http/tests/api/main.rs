//! The API as its callers see it, over the real router.

mod access;
mod audit;
mod blobs;
mod clients;
mod deliveries;
mod errors;
mod events;
mod faulty;
mod framing;
mod health;
mod isolation;
mod limits;
mod log;
mod lost_blobs;
mod maintenance;
mod oauth;
mod oauth_tokens;
mod options;
mod replays;
mod requests;
mod rotation;
mod serve;
mod server;
mod subscriptions;
mod throttling;
mod world;
