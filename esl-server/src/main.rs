//! The server of ESL, the Event Service Layer: configuration, wiring and a command line around the
//! library. Whatever it does, an embedder can do through the same public calls.

mod audit;
mod backup;
mod bootstrap;
mod check;
mod cli;
mod clients;
mod config;
mod credentials;
mod database;
mod events;
mod logging;
mod maintenance;
mod open_files;
mod organizations;
mod output;
mod prepare;
mod secrets;
mod serve;
mod terms;
mod welcome;

use std::process::ExitCode;

use anyhow::Context;

use self::{
    cli::Command,
    config::{Config, Written},
};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = cli::parse();
    if let Command::ConfigDocs = command {
        print!("{}", config::page());
        return ExitCode::SUCCESS;
    }
    let config = match Config::new(Written::from_environment()) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("esl-server: {faults}");
            return ExitCode::from(USAGE);
        }
    };
    match run(command, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("esl-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, config: &Config) -> anyhow::Result<()> {
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
                backup::run(config, &file, json)
            }
            Command::ConfigDocs => unreachable!("it needs no configuration"),
        }
    })
}

/// What commands log that answer on the standard output.
const BESIDE: &str = "warn";
/// The exit code for a wrong command or configuration; clap's, too.
const USAGE: u8 = 2;
