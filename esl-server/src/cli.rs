//! The command line.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use esl_core::{EventId, Timestamp};

use crate::{config, listen, terms::Terms, verify};

/// Durable, signed events to whoever subscribed.
///
/// Everything else is configured by environment variables, listed below.
#[derive(Debug, Parser)]
#[command(name = "esl-server", version, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the API and deliver events (what happens without a command)
    Serve,
    /// Say whether the configuration, the database and the address are good, and start nothing
    Check {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Organizations: a running server sees what is changed here
    #[command(subcommand)]
    Org(OrganizationCommand),
    /// Clients of organizations: a running server sees what is changed here
    #[command(subcommand)]
    Client(ClientCommand),
    /// Events: a running server sees what is changed here
    #[command(subcommand)]
    Event(EventCommand),
    /// Secrets of subscriptions, as the database keeps them
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Announcements of maintenance: a running server sends them
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Show who has changed what of an organization, the latest first
    Audit {
        /// The organization, by id or name; of one that was deleted, by its id
        #[arg(long = "org", value_name = "ID")]
        organization: String,
        /// How many changes are shown
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy the database into a new file, while the server runs or not
    Backup {
        /// The new file
        file: std::path::PathBuf,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Move a SQLite file to the Postgres database of ESL_DATABASE_URL, with no server on either; given
    /// again, it goes on where it was interrupted
    MigrateStorage {
        /// The file, as in sqlite:///var/lib/esl/esl.db
        #[arg(long, value_name = "URL", value_parser = file)]
        from: std::path::PathBuf,
        /// Open the file for a server again instead: whatever was moved is given up
        #[arg(long)]
        give_back: bool,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether a request that a receiver got is genuine, by which scheme and which secret, and how
    /// old it is; or what is wrong with it. No server is needed
    Verify(verify::Request),
    /// Forward what is published to a program on this machine, signed like a delivery, without a
    /// subscription: for whoever writes a receiver that the server cannot reach
    Listen(listen::Request),
    /// Print docs/configuration.md
    #[command(hide = true)]
    ConfigDocs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrganizationCommand {
    /// Make an organization, of the tier standard where no other is named
    Create {
        /// Its name, which no other organization has
        name: String,
        #[command(flatten)]
        terms: Terms,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// List the organizations
    List {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what an organization may use, and what it uses
    Show {
        /// The organization, by id or name
        organization: String,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Change what an organization may use; what is not named stays as it is
    Set {
        /// The organization, by id or name
        organization: String,
        #[command(flatten)]
        terms: Terms,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete an organization with its events, subscriptions and clients; nothing brings them back
    Delete {
        /// The organization, by id or name
        organization: String,
        /// Yes, delete it
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Announce maintenance to all organizations, or to one
    Announce {
        /// When it begins, as in 2024-01-15T20:00:00Z
        #[arg(long, value_name = "TIME")]
        starts_at: Timestamp,
        /// When it is over
        #[arg(long, value_name = "TIME")]
        ends_at: Timestamp,
        /// What is to be said of it
        #[arg(long)]
        message: String,
        /// When it is announced [default: now]
        #[arg(long, value_name = "TIME")]
        announce_at: Option<Timestamp>,
        /// To this organization alone, by id or name
        #[arg(long = "org", value_name = "ID")]
        organization: Option<String>,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// List what waits to be announced
    List {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back what waits to be announced
    Cancel {
        /// Its id
        event: EventId,
        /// For this organization alone, by id or name
        #[arg(long = "org", value_name = "ID")]
        organization: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// Erase what an event said, and keep the fact that there was one
    Erase {
        /// Its id
        event: EventId,
        /// Its organization, by id or name; needed only if several have an event of that id
        #[arg(long = "org", value_name = "ID")]
        organization: Option<String>,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Encrypt all with the first key of ESL_ENCRYPTION_KEY, while the server runs or not
    Reencrypt {
        /// Store them in plain text instead
        #[arg(long)]
        plain: bool,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Make a client, and show its secret, which is not shown again
    Create {
        #[command(flatten)]
        organization: Of,
        /// What it may do, scopes with spaces between them [default: all of them]
        #[arg(long)]
        scope: Option<String>,
        /// Its client_id [default: one is made up]
        #[arg(long)]
        id: Option<String>,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// List the clients of an organization
    List {
        #[command(flatten)]
        organization: Of,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a client another secret, and show it, once; the old one and all of its tokens are worth
    /// nothing from then on
    Rotate {
        #[command(flatten)]
        organization: Of,
        /// Its client_id
        client: String,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a client; its tokens are worth nothing from then on
    Delete {
        #[command(flatten)]
        organization: Of,
        /// Its client_id
        client: String,
    },
}

/// Whose.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// The organization, by id or name
    #[arg(long = "org", value_name = "ID")]
    pub(crate) organization: String,
}

/// A file by its URL, as `ESL_DATABASE_URL` has it, or by its path.
fn file(text: &str) -> Result<std::path::PathBuf, String> {
    let path = text.strip_prefix("sqlite://").unwrap_or(text);
    if path.is_empty() || path.contains("://") {
        return Err("expected sqlite:// and the path of a file".to_owned());
    }
    Ok(path.into())
}

/// Reads the command line; leaves the process on `--help`, `--version` and what is wrong.
pub(crate) fn parse() -> Command {
    let matches = Cli::command().after_long_help(config::help()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.command.unwrap_or(Command::Serve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_is_named_by_its_url_or_its_path() {
        for (text, expected) in [
            ("sqlite://esl.db", Some("esl.db")),
            ("sqlite:///var/lib/esl.db", Some("/var/lib/esl.db")),
            ("esl.db", Some("esl.db")),
            ("", None),
            ("sqlite://", None),
            ("postgres://esl:hunter2@db/app", None),
        ] {
            let read = file(text);
            assert_eq!(read.as_deref().ok(), expected.map(std::path::Path::new), "{text}");
            assert!(!read.is_err_and(|error| error.contains("hunter2")));
        }
    }

    #[test]
    fn without_a_command_it_serves() {
        let cli = Cli::try_parse_from(["esl-server"]).expect("it is right");
        assert!(cli.command.is_none());
    }
}
