//! The real binary, real receivers on loopback, and curl as the client.
//!
//! Every case has a folder of its own for the server's state. Nothing sleeps to wait: cases wait for
//! what a process prints, for what a receiver is sent, or for an answer.

mod accept_once;
mod blobs;
mod broker;
mod configuration;
mod deployment;
mod entities;
mod faults;
mod isolation;
mod kill;
mod limits;
mod listen;
mod maintenance;
mod network;
mod oauth;
mod one_engine;
mod operations;
mod options;
#[path = "../ports.rs"]
mod ports;
mod quick_start;
mod replay;
mod secrecy;
mod secrets;
mod shutdown;
mod start;
mod support;
mod switched_off;
mod tenancy;
mod verify;
