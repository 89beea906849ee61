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
    pub(super) fn is(&self, run: &str) -> bool {
        let run = spaced(run);
        match self.parts().as_slice() {
            [whole] => run == *whole,
            [first, middle @ .., last] => {
                after(&run, first, middle).is_some_and(|rest| rest.ends_with(last))
            }
            [] => false,
        }
    }

    /// Whether this begins with it, for a text that is not the whole statement.
    pub(super) fn begins(&self, run: &str) -> bool {
        let (run, parts) = (spaced(run), self.parts());
        parts.split_first().is_some_and(|(first, others)| after(&run, first, others).is_some())
    }

    /// What stands between the gaps.
    fn parts(&self) -> Vec<&str> {
        let parts = self.text.split('{');
        parts.map(|part| part.split_once('}').map_or(part, |(_gap, part)| part).trim()).collect()
    }
}

/// What is left of a statement that begins with `first`, after which the others come one by one.
fn after<'r>(run: &'r str, first: &str, others: &[&str]) -> Option<&'r str> {
    let rest = run.strip_prefix(first)?;
    others.iter().try_fold(rest, |rest, part| rest.split_once(part).map(|(_, rest)| rest))
}

/// All of them but those of tests.
pub(super) fn statements() -> Vec<Written> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = |folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all = Vec::new();
    for path in entries(root.clone()).chain(entries(root.join("storage"))) {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let is_known = matches!(&*file, "storage" | "plans");
            assert!(is_known, "{file}: a folder with statements that nobody looks for");
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
    let written = written("SELECT {COLUMNS} FROM esl_open WHERE lane = ?1 {more}");
    assert!(written.is("SELECT seq,\n due_at FROM esl_open\n WHERE lane = ?1 AND seq = ?2"));
    assert!(written.is("SELECT seq FROM esl_open WHERE lane = ?1"));
    assert!(!written.is("SELECT seq FROM esl_closed WHERE lane = ?1"));
    assert!(!written.is("UPDATE esl_open WHERE lane = ?1"));
}

#[test]
fn a_statement_is_not_recognized_in_a_longer_one() {
    let whole = written("DELETE FROM esl_intake WHERE id = ?1");
    assert!(whole.is("DELETE FROM esl_intake\n WHERE id = ?1"));
    let longer = "DELETE FROM esl_intake WHERE id = ?1 AND organization = ?2";
    assert!(!whole.is(longer));
    assert!(whole.begins(longer));
    let inner = written("SELECT id FROM esl_intake WHERE organization = ?1 LIMIT ?2");
    let outer = "DELETE FROM esl_intake WHERE id IN
                 (SELECT id FROM esl_intake WHERE organization = ?1 LIMIT ?2)";
    assert!(!inner.is(outer) && !inner.begins(outer));
    let gap = written("SELECT {COLUMNS} FROM esl_open WHERE lane = ?1");
    assert!(!gap.is("SELECT seq FROM esl_open WHERE lane = ?1 AND seq = ?2"));
    assert!(!gap.is("INSERT INTO a SELECT seq FROM esl_open WHERE lane = ?1"));
}

fn written(text: &str) -> Written {
    Written { file: String::new(), text: text.to_owned() }
}

#[test]
fn what_is_commented_out_is_no_statement() {
    let source = "// \"SELECT 1\"\nlet a = \"SELECT 2\n  FROM b\"; f(\"x \\\" SELECT 3\", \"c\")";
    assert_eq!(literals(source), ["SELECT 2\n  FROM b", "x   SELECT 3", "c"]);
}
