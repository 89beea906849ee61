//! What the server did for each statement, as it writes it into its log (`auto_explain`), also for those within
//! functions.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use serde_json::Value;

use crate::cluster::Own;

/// Reads what connections to [`Watch::url`] have made the server do.
pub(crate) struct Watch {
    own: &'static Own,
    name: String,
    database: String,
    /// Settings of the connections, beside those that make the server write.
    settings: &'static [(&'static str, &'static str)],
    read_to: u64,
}

/// A statement that was run.
pub(crate) struct Ran {
    pub(crate) text: String,
    /// Pages that were looked at: the same on every computer, however busy it is.
    pub(crate) blocks: u64,
    /// The most rows that one step of its plan has read or passed over, and what that step is.
    pub(crate) widest: (u64, String),
    pub(crate) plan: Value,
}

impl Watch {
    /// Of connections under a name.
    pub(crate) fn new(own: &'static Own, name: &str, database: &str) -> Self {
        let read_to = own.log().metadata().expect("there is a log").len();
        let (name, database) = (name.to_owned(), database.to_owned());
        Self { own, name, database, settings: &[], read_to }
    }

    pub(crate) fn url(&self) -> String {
        let mut options = String::new();
        for (setting, value) in [
            ("session_preload_libraries", "auto_explain"),
            ("auto_explain.log_min_duration", "0"),
            ("auto_explain.log_analyze", "on"),
            ("auto_explain.log_buffers", "on"),
            ("auto_explain.log_timing", "off"),
            ("auto_explain.log_nested_statements", "on"),
            ("auto_explain.log_format", "json"),
        ]
        .iter()
        .chain(self.settings)
        {
            options.push_str(&format!("-c%20{setting}%3D{value}%20"));
        }
        format!("{}&application_name={}&options={options}", self.database, self.name)
    }

    /// From now on the server plans as it does by default.
    pub(crate) fn plans_as_usual(&mut self) {
        self.settings = &[
            ("enable_seqscan", "on"),
            ("enable_bitmapscan", "on"),
            ("enable_hashjoin", "on"),
            ("enable_mergejoin", "on"),
        ];
    }

    /// What was run since the last look.
    pub(crate) fn look(&mut self) -> Vec<Ran> {
        let mut file = File::open(self.own.log()).expect("the log can be read");
        file.seek(SeekFrom::Start(self.read_to)).expect("it was that long");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("the log can be read");
        let (mut ran, mut whole) = (Vec::new(), 0);
        let mut rest = &bytes[..];
        while let Some(length) = message_bytes(rest) {
            let (message, behind) = rest.split_at(length);
            let message = String::from_utf8_lossy(message);
            match self.plan(&message) {
                Ok(plan) => ran.extend(plan.map(Ran::new)),
                // It is being written: what may follow is the beginning of one of its lines.
                Err(error) if error.is_eof() && !behind.contains(&b'\n') => break,
                Err(error) => panic!("{error}: {message}"),
            }
            whole += length;
            rest = behind;
        }
        self.read_to += u64::try_from(whole).expect("it is no longer than the log");
        ran
    }

    fn plan(&self, message: &str) -> serde_json::Result<Option<Value>> {
        let is_ours = message.strip_prefix(&self.name).is_some_and(|it| it.starts_with('|'));
        match message.split_once("plan:\n") {
            Some((_, plan)) if is_ours => serde_json::from_str(plan).map(Some),
            _ => Ok(None),
        }
    }
}

/// How long the first message is, with the lines that go on with it.
fn message_bytes(log: &[u8]) -> Option<usize> {
    let mut length = 0;
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        if !line.ends_with(b"\n") || (length > 0 && !line.starts_with(b"\t")) {
            break;
        }
        length += line.len();
    }
    Some(length).filter(|length| *length > 0)
}

impl Ran {
    fn new(mut said: Value) -> Self {
        let text = said["Query Text"].as_str().unwrap_or_default();
        let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let plan = said["Plan"].take();
        let blocks = number(&plan, "Shared Hit Blocks") + number(&plan, "Shared Read Blocks");
        let mut widest = (0, String::new());
        widen(&plan, &mut widest);
        Self { text, blocks, widest, plan }
    }
}

fn widen(step: &Value, widest: &mut (u64, String)) {
    let passed_over = ["Rows Removed by Filter", "Rows Removed by Index Recheck"];
    let removed: u64 = passed_over.iter().map(|it| number(step, it)).sum();
    let rows = (number(step, "Actual Rows") + removed) * number(step, "Actual Loops");
    if rows > widest.0 {
        let name = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        *widest = (rows, [name("Node Type"), name("Relation Name"), name("Index Name")].join(" "));
    }
    for below in step["Plans"].as_array().into_iter().flatten() {
        widen(below, widest);
    }
}

fn number(step: &Value, key: &str) -> u64 {
    step[key].as_f64().map_or(0, |number| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let number = number as u64;
        number
    })
}
