use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::in_time;

/// What curl was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("expected JSON: {self:?}"))
    }
}

/// Asks by curl, with the arguments that the documentation shows.
pub(crate) async fn curl(arguments: &[&str]) -> Answer {
    let output = Command::new("curl")
        .args(["-sS", "-w", "\n%{http_code}"])
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = in_time("curl", output).await.expect("curl is installed: these cases need it");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (body, status) = text.rsplit_once('\n').expect("the status comes last");
    Answer { status: status.parse().expect("a status"), body: body.to_owned() }
}

/// Runs lines as somebody would who pastes them into a shell; gives what they print.
pub(crate) async fn shell(lines: &str) -> String {
    let output = Command::new("sh").args(["-ec", lines]).stdin(Stdio::null()).output();
    let output = in_time("the shell", output).await.expect("there is a shell");
    assert!(output.status.success(), "{lines}\n{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
