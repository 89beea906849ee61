//! The budget, row by row: what was measured, and whether that is within it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use crate::PARTS;

/// Prints a row of the table.
pub(crate) fn row(what: &str, figure: &str, budget: &str, is_met: bool) {
    let verdict = if is_met { "met" } else { "**missed**" };
    println!("{MARK}{what} | {figure} | {budget} | {verdict} |");
}

/// Prints a row that no budget is for.
pub(crate) fn figure(what: &str, figure: &str) {
    println!("{MARK}{what} | {figure} | – | |");
}

/// Prints a row of how many times longer something takes than usual.
pub(crate) fn times(what: &str, ratio: f64) {
    row(what, &format!("{ratio:.1} ×"), "≤ 3 ×", ratio <= 3.0);
}

/// Runs every part, each in a process of its own so that none is in the memory of another, and prints
/// the whole table at the end.
pub(crate) fn measure_all() -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for (part, _) in PARTS {
        let mut child =
            Command::new(std::env::current_exe()?).arg(part).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().expect("it was piped");
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            std::io::stdout().flush()?;
            rows.extend(line.starts_with(MARK).then_some(line));
        }
        if !child.wait()?.success() {
            failed.push(part);
        }
    }
    println!("\n| what | measured | budget | |\n|---|---|---|---|");
    for row in rows {
        println!("{row}");
    }
    anyhow::ensure!(failed.is_empty(), "these parts have failed: {}", failed.join(", "));
    Ok(())
}

const MARK: &str = "| ";
