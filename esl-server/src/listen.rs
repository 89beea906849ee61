//! The command `listen`: forwards what is published to a program on this machine, signed like a delivery, for
//! whoever writes a receiver behind a firewall. No subscription is made.

mod feed;
mod forward;

use std::{
    env::VarError,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, anyhow, bail};
use chrono::Local;
use clap::Args;
use esl_core::{
    Algorithm, CallbackPolicy, CallbackUrl, CallbackUrlError, EventPattern, Scope, Secret, Seq,
    Timestamp,
};
use esl_http::client::{Client, ClientError, RetryPolicy};

use self::{
    feed::{Feed, News},
    forward::Forward,
};
use crate::{
    config::header_prefix,
    output::{tell, write},
    serve::Signals,
};

/// What is forwarded, and where to.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Where events are sent, as in http://localhost:3000/webhooks
    #[arg(long, value_name = "URL", value_parser = target)]
    forward_to: CallbackUrl,
    /// Which events: a type, or person.* for all below a name; may be given several times [default: *]
    #[arg(long, value_name = "PATTERN")]
    events: Vec<EventPattern>,
    /// Show the bodies, too
    #[arg(long)]
    print: bool,
    /// Begin with the event of this seq, or with the first that is not older than this time [default:
    /// with what is published from now on]
    #[arg(long, value_name = "SEQ|TIME")]
    since: Option<Since>,
    /// The server
    #[arg(
        long,
        value_name = "URL",
        env = "ESL_SERVER_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
    /// A file with the certificates (PEM) that the server's may be of, beside those that the system trusts
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A client of the organization, with the scope events:read
    #[arg(long, value_name = "ID", env = "ESL_CLIENT_ID", hide_env_values = true)]
    client_id: String,
    /// A file with the client's secret [default: ESL_CLIENT_SECRET]
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// A file with the secret that events are signed with [default: ESL_WEBHOOK_SECRET, and without that
    /// one is made up, and shown]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The hash of X-Sapien-Signature, as the server's ESL_SIGNATURE_ALGORITHM has it
    #[arg(long, default_value = "sha256")]
    algorithm: Algorithm,
    /// What headers begin with, as the server's ESL_HEADER_PREFIX has it
    #[arg(long, default_value = "X-Sapien", value_parser = header_prefix)]
    prefix: String,
}

/// With which event it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Seq(Seq),
    Time(Timestamp),
}

pub(crate) fn run(request: &Request) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("could not start the runtime")?;
    let result = runtime.block_on(listen(request));
    // What a reader who has stopped holds up is not waited for.
    runtime.shutdown_background();
    result
}

async fn listen(request: &Request) -> anyhow::Result<()> {
    let client_secret = secret(request.client_secret_file.as_deref(), CLIENT_SECRET)?;
    let client_secret = client_secret.with_context(|| {
        format!("which secret has the client? set {CLIENT_SECRET}, or name a file with --client-secret-file")
    })?;
    let mut builder = Client::builder(&request.server);
    if let Some(file) = &request.ca_file {
        let certificates = fs::read(file);
        let certificates =
            certificates.with_context(|| format!("{} cannot be read", file.display()))?;
        builder = builder.with_root_certificates(certificates);
    }
    let client = builder
        .with_credentials(&request.client_id, client_secret)
        .with_scopes([Scope::Read].into_iter().collect())
        // That the server is away is told at once, and what comes of it is decided here.
        .with_retries(RetryPolicy::never())
        .build()?;
    let given = secret(request.secret_file.as_deref(), WEBHOOK_SECRET)?;
    let feed = Feed::new(client, request.since);
    // Only now: until then a signal ends the process by itself, also while a file waits to be read.
    let mut signals = Signals::new().context("could not listen for signals")?;
    tokio::select! {
        // Dropped in the midst of it: nothing is kept that would have to be put in order.
        result = forward_all(feed, given, request) => result,
        _ = signals.next() => Ok(()),
    }
}

async fn forward_all(
    mut feed: Feed,
    given: Option<String>,
    request: &Request,
) -> anyhow::Result<()> {
    let forward = Forward::new(request, &signed_with(given).await?);
    loop {
        match feed.next().await {
            News::Begun => {
                let patterns: Vec<_> = request.events.iter().map(ToString::to_string).collect();
                let which = if patterns.is_empty() { "all events" } else { &patterns.join(", ") };
                let to = &request.forward_to;
                say(format!("forwarding {which} to {to}; Ctrl-C ends it")).await?;
            }
            News::Event(event) if request.wants(&event.event_type) => {
                let at = Local::now().format("%H:%M:%S%.3f");
                let outcome = forward.send(&event).await;
                let mut text = format!("{at}  {}  {}  {outcome}\n", event.event_type, event.id);
                if request.print {
                    text.push_str(event.envelope.get());
                    text.push('\n');
                }
                beside(move || write(&text)).await??;
            }
            News::Event(_) => {}
            News::Away(error) => say(format!("waiting for the server: {}", told(error))).await?,
            News::Back => say("the server is back".to_owned()).await?,
            News::Another => say(ANOTHER.to_owned()).await?,
            News::Refused(error) => return Err(error.into()),
        }
    }
}

/// Says something on the standard error.
async fn say(line: String) -> anyhow::Result<()> {
    beside(move || tell(&line)).await
}

/// Does what a reader may hold up (a pipe that is full, a pager that waits) beside all else, so that signals are
/// heard meanwhile.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("what is to be written was not")
}

/// An error and what led to it.
fn told(error: ClientError) -> String {
    format!("{:#}", anyhow!(error))
}

impl Request {
    fn wants(&self, event_type: &esl_core::EventType) -> bool {
        self.events.is_empty() || self.events.iter().any(|pattern| pattern.matches(event_type))
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return match number {
                1.. if number <= Seq::MAX.get() => Ok(Self::Seq(Seq::new(number))),
                _ => Err(format!("expected a seq from 1 to {}", Seq::MAX.get())),
            };
        }
        let time = text.parse().map(Self::Time);
        time.map_err(|_| "expected a seq, or a time as in 2024-01-15T14:32:00Z".to_owned())
    }
}

/// Any host: it is the caller's own machine that calls it.
fn target(text: &str) -> Result<CallbackUrl, String> {
    CallbackUrl::parse(text, &CallbackPolicy::allow_private()).map_err(|error| match error {
        // What the error says is for subscriptions.
        CallbackUrlError::Scheme => "expected an http or https URL".to_owned(),
        error => error.to_string(),
    })
}

/// The secret that events are signed with. One that was made up is told, once.
async fn signed_with(given: Option<String>) -> anyhow::Result<Secret> {
    if let Some(text) = given {
        return Secret::new(text).context("what events are to be signed with is no secret");
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("the system has no random bits")?;
    let secret = Secret::from_random(&random);
    say(format!("signing with {}, until this ends", secret.expose())).await?;
    Ok(secret)
}

/// The first line of a file, or of a variable if it has any. A secret is no argument, which others on the
/// machine could read.
fn secret(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<String>> {
    if let Some(file) = file {
        let text = fs::read_to_string(file);
        let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
        let line = first_line(&text);
        let line = line.with_context(|| format!("there is no secret in {}", file.display()));
        return line.map(Some);
    }
    match std::env::var(variable) {
        Ok(text) => Ok(first_line(&text)),
        Err(VarError::NotPresent) => Ok(None),
        // The error itself shows the value.
        Err(VarError::NotUnicode(_)) => bail!("{variable} is not UTF-8"),
    }
}

fn first_line(text: &str) -> Option<String> {
    text.lines().next().filter(|line| !line.trim().is_empty()).map(str::to_owned)
}

const ANOTHER: &str = "the server has another history, which ends before the event that came last (was a backup \
    restored?); what is published from now on is forwarded";
const CLIENT_SECRET: &str = "ESL_CLIENT_SECRET";
const WEBHOOK_SECRET: &str = "ESL_WEBHOOK_SECRET";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_seq_or_a_time() {
        let time = Timestamp::from_millis(1_705_329_120_000);
        for (text, expected) in [
            ("1", Some(Since::Seq(Seq::new(1)))),
            ("1042", Some(Since::Seq(Seq::new(1042)))),
            ("2024-01-15T14:32:00Z", Some(Since::Time(time))),
            ("2024-01-15T15:32:00+01:00", Some(Since::Time(time))),
            ("0", None),
            ("1099511627776", None),
            ("-1", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
