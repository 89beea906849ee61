//! The command `listen`: forwards what is published to a program on this machine, signed like a delivery, for
//! whoever writes a receiver behind a firewall. No subscription is made.

mod feed;
mod forward;

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, anyhow};
use chrono::Local;
use clap::Args;
use esl_core::{
    Algorithm, CallbackPolicy, CallbackUrl, EventPattern, Scope, Secret, Seq, Timestamp,
};
use esl_http::client::{Client, ClientError, RetryPolicy};

use self::{
    feed::{Feed, News},
    forward::Forward,
};
use crate::{
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
    #[arg(long, default_value = "X-Sapien")]
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
    runtime.context("could not start the runtime")?.block_on(listen(request))
}

async fn listen(request: &Request) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("could not listen for signals")?;
    let secret = secret(request.client_secret_file.as_deref(), CLIENT_SECRET)?;
    let secret = secret.with_context(|| {
        format!("which secret has the client? set {CLIENT_SECRET}, or name a file with --client-secret-file")
    })?;
    let client = Client::builder(&request.server)
        .with_credentials(&request.client_id, secret)
        .with_scopes([Scope::Read].into_iter().collect())
        // That the server is away is told at once, and what comes of it is decided here.
        .with_retries(RetryPolicy::never())
        .build()?;
    let signed_with = signed_with(request.secret_file.as_deref())?;
    let forward = Forward::new(request, &signed_with);
    tokio::select! {
        // Dropped in the midst of it: nothing is kept that would have to be put in order.
        result = forward_all(Feed::new(client, request.since), &forward, request) => result,
        _ = signals.next() => Ok(()),
    }
}

async fn forward_all(mut feed: Feed, forward: &Forward, request: &Request) -> anyhow::Result<()> {
    let mut has_begun = false;
    loop {
        match feed.next().await {
            News::Begun => {
                has_begun = true;
                let patterns: Vec<_> = request.events.iter().map(ToString::to_string).collect();
                let which = if patterns.is_empty() { "all events" } else { &patterns.join(", ") };
                tell(&format!("forwarding {which} to {}; Ctrl-C ends it", request.forward_to));
            }
            News::Event(event) if request.wants(&event.event_type) => {
                let at = Local::now().format("%H:%M:%S%.3f");
                let outcome = forward.send(&event).await;
                write(&format!("{at}  {}  {}  {outcome}\n", event.event_type, event.id))?;
                if request.print {
                    write(&format!("{}\n", event.envelope.get()))?;
                }
            }
            News::Event(_) => {}
            // What is wrong from the beginning does not mend itself.
            News::Away(error) if !has_begun && !error.is_transient() => return Err(error.into()),
            News::Away(error) => tell(&format!("waiting for the server: {}", told(error))),
            News::Back => tell("the server is back"),
        }
    }
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
    CallbackUrl::parse(text, &CallbackPolicy::allow_private()).map_err(|error| error.to_string())
}

/// The secret that events are signed with. One that was made up is told, once.
fn signed_with(file: Option<&Path>) -> anyhow::Result<Secret> {
    if let Some(text) = secret(file, WEBHOOK_SECRET)? {
        return Secret::new(text).context("what events are to be signed with is no secret");
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("the system has no random bits")?;
    let secret = Secret::from_random(&random);
    tell(&format!("signing with {}, until this ends", secret.expose()));
    Ok(secret)
}

/// The first line of a file or of a variable, if there is any. A secret is no argument, which others on the
/// machine could read.
fn secret(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<String>> {
    let text = match file {
        Some(file) => fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?,
        None => std::env::var(variable).unwrap_or_default(),
    };
    Ok(text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned))
}

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
