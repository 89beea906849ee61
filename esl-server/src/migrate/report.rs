//! What is said at the end.

use esl_core::storage::transfer::{Leaving, Table, Tally};
use serde_json::{Value, json};

use crate::output::print;

pub(super) fn moved(
    as_json: bool,
    from: &str,
    to: &str,
    is_resumed: bool,
    tallies: &[(&'static Table, Tally)],
) -> anyhow::Result<()> {
    let tables: Vec<Value> = tallies
        .iter()
        .map(|(table, tally)| {
            json!({ "table": table.name, "rows": tally.rows(), "checksum": checksum(tally) })
        })
        .collect();
    let said = json!({
        "from": from, "to": to, "outcome": "moved", "resumed": is_resumed, "tables": tables,
    });
    print(as_json, &said, || {
        let head = format!("{:22}{:>12}  {}\n", "table", "rows", "SHA-256, the same in both");
        let lines = tallies.iter().map(|(table, tally)| {
            format!("{:22}{:>12}  {}\n", table.name, tally.rows(), checksum(tally))
        });
        let text: String = [head].into_iter().chain(lines).collect();
        format!(
            "{text}\n{from}\nis moved to\n{to}\nStart the server there. None starts on the file any more; keep \
             it until a backup of the new database is made.\n"
        )
    })
}

pub(super) fn already(as_json: bool, from: &str, to: &str) -> anyhow::Result<()> {
    let said = json!({ "from": from, "to": to, "outcome": "already_moved" });
    print(as_json, &said, || format!("{from} was moved to {to} before; nothing is left to do\n"))
}

pub(super) fn given_back(as_json: bool, file: &str, leaving: &Leaving) -> anyhow::Result<()> {
    let to = &leaving.to.name;
    let left_at = leaving.left_at.map(|at| at.to_string());
    let said = json!({ "from": file, "to": to, "outcome": "given_back", "left_at": left_at });
    print(as_json, &said, || match &left_at {
        Some(at) => format!(
            "{file} is open again, as it was at {at}. What was published since is only in {to}, and what was \
             delivered since is sent again: no server must run there\n"
        ),
        None => format!(
            "{file} is open again; what was moved to {to} is of no use, and can be removed\n"
        ),
    })
}

fn checksum(tally: &Tally) -> String {
    tally.checksum().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
