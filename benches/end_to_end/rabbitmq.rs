//! A RabbitMQ: one that is started for this run, or the one that `ESL_BENCH_BROKER_URL` names.

use std::{
    env,
    net::TcpStream,
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::postgres::{first_line, free_ports, run};

#[derive(Debug)]
pub(crate) struct RabbitMq {
    pub(crate) url: String,
    /// Ends it when its input is closed.
    _script: Option<Child>,
}

impl RabbitMq {
    /// `None` where there is none, and none can be started.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        if let Ok(url) = env::var("ESL_BENCH_BROKER_URL") {
            return Ok(Some(Self { url, _script: None }));
        }
        let [port, epmd_port, distribution_port] = free_ports()?;
        let mut script = run(include_str!("rabbitmq.sh"))
            .arg(std::path::absolute(folder)?.join("rabbitmq"))
            .args([port, epmd_port, distribution_port].map(|port| port.to_string()))
            .spawn()?;
        if first_line(&mut script)?.is_none() {
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
