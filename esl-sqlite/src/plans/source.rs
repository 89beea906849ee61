//! The statements in the source of this crate.

use std::{fs, path::Path};

use super::watch::is_planned;

/// A statement as the source has it.
pub(super) struct Written {
    pub(super) file: String,
    pub(super) text: String,
}

impl Written {
    /// Whether this is what became of it once the gaps were filled in.
    pub(super) fn is_in(&self, run: &str) -> bool {
        let run = spaced(run);
        let mut rest = run.as_str();
        for part in self.text.split('{') {
            let part = part.split_once('}').map_or(part, |(_gap, part)| part);
            match rest.find(part.trim()) {
                Some(at) => rest = &rest[at + part.trim().len()..],
                None => return false,
            }
        }
        true
    }
}

/// All of them but those of tests.
pub(super) fn statements() -> Vec<Written> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            assert_eq!(file, "plans", "a folder with statements that nobody looks for");
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let texts = literals(source).into_iter().map(|text| spaced(&text));
        let statements = texts.filter(|text| is_statement(text));
        all.extend(statements.map(|text| Written { file: file.clone(), text }));
    }
    all
}

/// One may also begin with a gap, which holds its beginning.
fn is_statement(text: &str) -> bool {
    is_planned(text) || text.starts_with('{') && text.contains("} WHERE ")
}

/// What stands between quotation marks.
fn literals(source: &str) -> Vec<String> {
    let mut literals = Vec::new();
    let mut characters = source.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '/' if characters.peek() == Some(&'/') => {
                characters.find(|character| *character == '\n');
            }
            '"' => {
                let mut text = String::new();
                while let Some(character) = characters.next() {
                    match character {
                        '"' => break,
                        // What follows is as good as a space, whatever it is.
                        '\\' => text.extend(characters.next().map(|_| ' ')),
                        other => text.push(other),
                    }
                }
                literals.push(text);
            }
            _ => {}
        }
    }
    literals
}

/// With one space in place of however many, and of line feeds.
pub(super) fn spaced(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_statement_is_recognized_once_its_gaps_are_filled_in() {
    let text = "SELECT {COLUMNS} FROM esl_open WHERE lane = ?1 {more}".to_owned();
    let written = Written { file: String::new(), text };
    assert!(written.is_in("SELECT seq,\n due_at FROM esl_open\n WHERE lane = ?1 AND seq = ?2"));
    assert!(!written.is_in("SELECT seq FROM esl_closed WHERE lane = ?1"));
    assert!(!written.is_in("UPDATE esl_open WHERE lane = ?1"));
}

#[test]
fn what_is_commented_out_is_no_statement() {
    let source = "// \"SELECT 1\"\nlet a = \"SELECT 2\n  FROM b\"; f(\"x \\\" SELECT 3\", \"c\")";
    assert_eq!(literals(source), ["SELECT 2\n  FROM b", "x   SELECT 3", "c"]);
}
