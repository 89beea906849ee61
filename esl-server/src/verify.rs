//! The command `verify`: whether a request is genuine, and why not. It needs no server and no database.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use esl_core::{
    Algorithm, Clock, Scheme, Secret, SystemClock, Timestamp, Verified, Verifier, VerifyError,
};
use serde_json::{Value, json};

use crate::output::print;

/// A request, and what it is to be signed with.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// One of its headers, as in 'webhook-id: evt_…'; give all that a receiver got
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// A file with more of them, one on each line, up to an empty line; a request line at its top is passed
    /// over
    #[arg(long, value_name = "FILE")]
    headers_file: Option<PathBuf>,
    /// A file with its body, to the byte as it came [default: -, the standard input]
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// A file with the secrets that are tried, one on each line [default: ESL_WEBHOOK_SECRET, likewise]
    #[arg(long, value_name = "FILE")]
    secrets_file: Option<PathBuf>,
    /// The one scheme that a receiver demands, standard or sapien [default: each that there are headers of]
    #[arg(long, value_parser = scheme)]
    scheme: Option<Scheme>,
    /// The hash of X-Sapien-Signature, as the server's ESL_SIGNATURE_ALGORITHM has it
    #[arg(long, default_value = "sha256")]
    algorithm: Algorithm,
    /// What its own headers begin with, as the server's ESL_HEADER_PREFIX has it
    #[arg(long, default_value = "X-Sapien")]
    prefix: String,
    /// When it came, as in 2024-01-15T14:32:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// How many seconds may lie between signing it and that
    #[arg(long, value_name = "SECONDS", default_value_t = Verifier::TOLERANCE.as_secs())]
    tolerance: u64,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// What was found of one scheme.
struct Finding {
    scheme: Scheme,
    result: Result<Verified, VerifyError>,
    /// It would be genuine without the end of the body's last line.
    has_newline: bool,
}

pub(crate) fn run(request: &Request) -> anyhow::Result<()> {
    let headers = headers(request)?;
    let secrets = secrets(request.secrets_file.as_deref())?;
    let body = body(request.body.as_deref())?;
    let now = request.at.unwrap_or_else(|| SystemClock::new().utc());

    let header = |name: &str| {
        let found = headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    // Of an old one it is to be said who signed it, and when.
    let find = |scheme, body: &[u8]| {
        let verifier = match scheme {
            Scheme::Sapien => Verifier::sapien(secrets.clone(), request.algorithm),
            _ => Verifier::standard(secrets.clone()),
        };
        let verifier = verifier.with_prefix(&request.prefix).with_tolerance(Duration::MAX);
        verifier.verify(header, body, now)
    };
    let schemes = match request.scheme {
        Some(scheme) => vec![scheme],
        None => {
            let signature = format!("{}-signature", request.prefix.to_ascii_lowercase());
            let both =
                [(Scheme::Standard, "webhook-signature"), (Scheme::Sapien, signature.as_str())];
            let there = both.iter().filter(|(_, name)| header(name).is_some());
            there.map(|(scheme, _)| *scheme).collect()
        }
    };
    if schemes.is_empty() {
        bail!("it has no header with a signature; give what a receiver got, with --header");
    }
    let findings = schemes.into_iter().map(|scheme| {
        let result = find(scheme, &body);
        let shorter = body.strip_suffix(b"\r\n").or_else(|| body.strip_suffix(b"\n"));
        let has_newline =
            result.is_err() && shorter.is_some_and(|shorter| find(scheme, shorter).is_ok());
        Finding { scheme, result, has_newline }
    });
    let report = Report {
        findings: findings.collect(),
        secrets: secrets.len(),
        now,
        tolerance: request.tolerance,
    };
    print(request.json, &report.json(), || report.to_string())?;
    if report.is_genuine() { Ok(()) } else { bail!("it is not what a receiver may accept") }
}

struct Report {
    findings: Vec<Finding>,
    secrets: usize,
    now: Timestamp,
    tolerance: u64,
}

impl Report {
    fn is_genuine(&self) -> bool {
        self.findings.iter().all(|finding| {
            let verified = finding.result.as_ref();
            verified.is_ok_and(|verified| self.is_recent(verified))
        })
    }

    fn is_recent(&self, verified: &Verified) -> bool {
        self.age(verified).is_none_or(|age| age.unsigned_abs() <= self.tolerance)
    }

    /// In seconds; below zero if it was signed later than it came.
    fn age(&self, verified: &Verified) -> Option<i64> {
        Some(self.now.as_seconds() - verified.signed_at?.as_seconds())
    }

    fn json(&self) -> Value {
        let schemes = self.findings.iter().map(|finding| match &finding.result {
            Ok(verified) => json!({
                "scheme": finding.scheme.to_string(),
                "genuine": true,
                "secret": verified.secret + 1,
                "signed_at": verified.signed_at,
                "age_seconds": self.age(verified),
                "recent": self.is_recent(verified),
            }),
            Err(error) => json!({
                "scheme": finding.scheme.to_string(),
                "genuine": false,
                "reason": error.to_string(),
                "newline": finding.has_newline,
            }),
        });
        json!({ "accepted": self.is_genuine(), "schemes": schemes.collect::<Vec<_>>() })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            write!(f, "{}: ", finding.scheme)?;
            match &finding.result {
                Ok(verified) => {
                    write!(f, "genuine, by secret {} of {}", verified.secret + 1, self.secrets)?;
                    match self.age(verified) {
                        None => f.write_str("; nothing says when it was signed")?,
                        Some(age @ 0..) => write!(f, "; signed {age} s before it came")?,
                        Some(age) => write!(f, "; signed {} s after it came", age.unsigned_abs())?,
                    }
                    if !self.is_recent(verified) {
                        write!(f, ", where {} s are allowed", self.tolerance)?;
                    }
                }
                Err(error) => {
                    write!(f, "not genuine: {error}")?;
                    if finding.has_newline {
                        f.write_str("; without the newline at the end of the body, one does")?;
                    }
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Those of the command line, and those of a file: its lines up to the first empty one, where a body
/// would begin, without the line of a request or of an answer at its top.
fn headers(request: &Request) -> anyhow::Result<Vec<(String, String)>> {
    let mut headers = request.headers.clone();
    if let Some(file) = &request.headers_file {
        let text = read(file)?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().take_while(|line| !line.trim().is_empty()).enumerate();
        for (index, line) in lines.filter(|(index, line)| *index > 0 || !is_first_line(line)) {
            let header = header(line).map_err(anyhow::Error::msg);
            headers
                .push(header.with_context(|| format!("{}, line {}", file.display(), index + 1))?);
        }
    }
    Ok(headers)
}

/// Whether it is that of an HTTP message, as in `POST /webhooks HTTP/1.1`.
fn is_first_line(line: &str) -> bool {
    line.starts_with("HTTP/")
        || line.rsplit(' ').next().is_some_and(|word| word.starts_with("HTTP/"))
}

fn secrets(file: Option<&Path>) -> anyhow::Result<Vec<Secret>> {
    let text = match file {
        Some(file) => {
            let text = String::from_utf8(read(file)?).ok();
            text.with_context(|| format!("{} is not UTF-8", file.display()))?
        }
        None => {
            let text = std::env::var_os(SECRETS).with_context(|| {
                format!("which secret? set {SECRETS}, or name a file with --secrets-file")
            })?;
            // The error of `var` shows the text.
            let text = text.into_string().ok();
            text.with_context(|| format!("{SECRETS} is not UTF-8"))?
        }
    };
    let lines = text.lines().filter(|line| !line.is_empty()).enumerate();
    let secrets = lines.map(|(index, line)| {
        Secret::new(line).with_context(|| format!("secret {} is none", index + 1))
    });
    let secrets: Vec<Secret> = secrets.collect::<anyhow::Result<_>>()?;
    if secrets.is_empty() {
        bail!("there is no secret");
    }
    Ok(secrets)
}

fn body(file: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    if let Some(file) = file.filter(|file| *file != Path::new("-")) {
        return read(file);
    }
    let mut body = Vec::new();
    io::stdin().lock().read_to_end(&mut body).context("the standard input cannot be read")?;
    Ok(body)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected a name, a colon and a value")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn scheme(text: &str) -> Result<Scheme, String> {
    let all = [Scheme::Standard, Scheme::Sapien];
    let found = all.into_iter().find(|scheme| scheme.to_string() == text);
    found.ok_or_else(|| "expected standard or sapien".to_owned())
}

/// The secrets, one on each line. They are no argument, which others on the machine could read.
const SECRETS: &str = "ESL_WEBHOOK_SECRET";
