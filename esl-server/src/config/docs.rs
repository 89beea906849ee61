//! The table as people read it: `--help` and docs/configuration.md.

use std::fmt::Write;

use super::table::{VARIABLES, Variable};

/// What `--help` says about the variables.
pub(crate) fn help() -> String {
    let mut text = String::from("Environment variables (an empty one counts as unset):\n");
    for variable in VARIABLES {
        let Variable { name, default, .. } = variable;
        let default =
            if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
        write!(text, "\n  {name}{default}\n").expect("a String takes it");
        for line in wrapped(&variable.meaning().replace('`', ""), HELP_COLUMNS) {
            writeln!(text, "      {line}").expect("a String takes it");
        }
    }
    text
}

/// docs/configuration.md.
pub(crate) fn page() -> String {
    let mut text = String::from(INTRODUCTION);
    text.push_str("\n| Variable | Description | Default |\n|----------|-------------|---------|\n");
    for variable in VARIABLES {
        let Variable { name, default, .. } = variable;
        let default = if default.is_empty() { "-".to_owned() } else { format!("`{default}`") };
        writeln!(text, "| `{name}` | {} | {default} |", variable.meaning())
            .expect("a String takes it");
    }
    text.push_str(AFTERWORD);
    text
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one from the start");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

const HELP_COLUMNS: usize = 72;

const INTRODUCTION: &str = "\
# Configuration

`esl-server` takes its configuration from the environment. This page comes from the same table that
reads it; `esl-server --help` shows it, too.

- An empty value counts as unset.
- A value that is not understood stops the start. All of them are reported at once, each with what was
  expected.
- A variable that begins with `ESL_` and is not in the table gets a warning that names the nearest one.
- What is in force is logged at the start; of a secret, only that it is set.
- `esl-server check` says whether a configuration is good, and starts nothing.
";

const AFTERWORD: &str = "
A duration is a whole number with `ms`, `s`, `m`, `h` or `d`, such as `20s`. A boolean is `true` or
`false`; `1`, `yes`, `on` and `0`, `no`, `off` mean the same.

## Open files

A delivery that is being sent holds an open file, and so does a client that is connected. At the start
the server shares out what the process may open: three eighths to deliveries (4096 at most), three
eighths to clients (10000 at most), and an eighth to connections that are kept for later deliveries
(1024 at most). The usual limit of 1024 is enough to try things out; for more, raise it (`ulimit -n`,
or `LimitNOFILE=` of systemd).

## Exit codes

| Code | Meaning |
|------|---------|
| 0 | It did what it was asked to; a server stopped in order. |
| 1 | It could not; the reason is on the standard error. |
| 2 | The command or the configuration is wrong. |
| 130, 143 | It was told to stop a second time, by SIGINT or SIGTERM, and did so at once. |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let written = std::fs::read_to_string(path).expect("docs/configuration.md is there");
        assert!(
            written == page(),
            "docs/configuration.md is out of date; write it anew with: \
             cargo run -p esl-server -- config-docs > docs/configuration.md"
        );
    }

    #[test]
    fn the_help_names_every_variable_and_keeps_to_80_columns() {
        let help = help();
        for variable in VARIABLES {
            assert!(help.contains(&format!("\n  {}", variable.name)), "{}", variable.name);
        }
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }

    #[test]
    fn no_cell_breaks_the_table() {
        for variable in VARIABLES {
            assert!(!variable.meaning().contains(['|', '\n']), "{}", variable.name);
        }
    }
}
