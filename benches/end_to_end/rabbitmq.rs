//! A RabbitMQ: one that is started for this run, or the one that `ESL_BENCH_BROKER_URL` names.

use std::{
    env,
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{ports::free_port, postgres::Script};

#[derive(Debug)]
pub(crate) struct RabbitMq {
    pub(crate) url: String,
    _script: Option<Script>,
}

impl RabbitMq {
    /// `None` where there is none, and none can be started.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        if let Ok(url) = env::var("ESL_BENCH_BROKER_URL") {
            return Ok(Some(Self { url, _script: None }));
        }
        // Its own, and those by which its parts find each other.
        let ports = [(); 3].map(|()| free_port());
        let [port, ..] = ports;
        let (script, line) = Script::run(include_str!("rabbitmq.sh"), folder, &ports)?;
        if line.is_empty() {
            return Ok(None);
        }
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            anyhow::ensure!(began.elapsed() < PATIENCE, "RabbitMQ does not start");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Some(Self { url: format!("amqp://127.0.0.1:{port}"), _script: Some(script) }))
    }
}

const PATIENCE: Duration = Duration::from_secs(90);
