//! Against a real RabbitMQ: one that is started for these tests (`rabbitmq-server` of the system), or the
//! one of `ESL_TEST_BROKER_URL`, in which there have to be the virtual hosts `esl-test-0` to
//! `esl-test-15`, empty.

#![expect(clippy::unwrap_used, reason = "in a test, the panic says enough")]

// Storage that fails on command, as the tests of the API have it; more than is needed here.
#[allow(dead_code, reason = "most of it is for others")]
#[path = "../../../esl-http/tests/api/faulty.rs"]
mod faulty;
mod ingest;
mod out;
mod outage;
#[path = "../../../tests/ports.rs"]
mod ports;
mod proxy;
mod server;
mod wake;
mod world;
