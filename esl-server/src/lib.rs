//! The server of ESL, the Event Service Layer: configuration, wiring and a command line around the
//! library. Whatever it does, an embedder can do through the same public calls.
//!
//! The program is [`run`]. The rest is its configuration, by itself: a [`Config`] is made of what is
//! [`Written`], and says of each variable what is in force, or of all that are wrong why.
//!
//! ```
//! use esl_server::{Config, Written};
//!
//! let written: Written = [("ESL_LISTEN", "0.0.0.0:8080")].into_iter().collect();
//! let config = Config::new(written)?;
//! assert!(config.in_force().contains(&"ESL_LISTEN=0.0.0.0:8080".to_owned()));
//!
//! let faults = Config::new([("ESL_LISTEN", "everywhere")].into_iter().collect());
//! assert!(faults.unwrap_err().to_string().contains("expected an IP address and a port"));
//! # Ok::<(), esl_server::Faults>(())
//! ```

mod audit;
mod availability;
mod backup;
mod bootstrap;
mod check;
mod cli;
mod clients;
mod config;
mod credentials;
mod database;
mod entities;
#[cfg(test)]
mod event_types;
mod events;
mod listen;
mod logging;
mod maintenance;
mod migrate;
mod open_files;
mod organizations;
mod output;
mod prepare;
mod secrets;
mod serve;
mod terms;
mod verify;
mod welcome;

use std::process::ExitCode;

use anyhow::Context;

use self::cli::Command;
pub use self::config::{Config, Faults, Unknown, Written};

/// The program: reads the command line and the environment, does what they say, and returns when that
/// is done. Leaves the process by itself on `--help`, `--version` and a command that is wrong.
pub fn run() -> ExitCode {
    let command = cli::parse();
    let command = match command {
        Command::ConfigDocs => return answer(output::write(&config::page())),
        Command::Listen(request) => return answer(listen::run(&request)),
        Command::Verify(request) => return answer(verify::run(&request)),
        command => command,
    };
    let config = match Config::new(Written::from_environment()) {
        Ok(config) => config,
        Err(faults) => {
            output::tell(&format!("esl-server: {faults}"));
            return ExitCode::from(USAGE);
        }
    };
    answer(carry_out(command, &config))
}

fn answer(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::tell(&format!("esl-server: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command, config: &Config) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.worker_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build().context("could not start the runtime")?;
    runtime.block_on(async {
        match command {
            Command::Serve => {
                logging::start(config, config.log_filter());
                serve::run(config).await
            }
            Command::Check { json } => {
                logging::start(config, BESIDE);
                check::run(config, json).await
            }
            Command::Org(command) => {
                logging::start(config, BESIDE);
                organizations::run(config, command).await
            }
            Command::Client(command) => {
                logging::start(config, BESIDE);
                clients::run(config, command).await
            }
            Command::Event(command) => {
                logging::start(config, BESIDE);
                events::run(config, command).await
            }
            Command::Maintenance(command) => {
                logging::start(config, BESIDE);
                maintenance::run(config, command).await
            }
            Command::Audit { organization, limit, json } => {
                logging::start(config, BESIDE);
                audit::run(config, &organization, limit, json).await
            }
            Command::Secrets(command) => {
                logging::start(config, BESIDE);
                secrets::run(config, command).await
            }
            Command::Backup { file, json } => {
                logging::start(config, BESIDE);
                backup::run(config, &file, json).await
            }
            Command::MigrateStorage { from, give_back: true, json } => {
                logging::start(config, BESIDE);
                migrate::give_back(config, &from, json).await
            }
            Command::MigrateStorage { from, give_back: false, json } => {
                logging::start(config, BESIDE);
                migrate::run(config, &from, json).await
            }
            Command::ConfigDocs | Command::Listen(_) | Command::Verify(_) => {
                unreachable!("they need no configuration")
            }
        }
    })
}

/// What commands log that answer on the standard output.
const BESIDE: &str = "warn";
/// The exit code for a wrong command or configuration; clap's, too.
const USAGE: u8 = 2;
