//! A pattern, and types in the lines below it: each is one exactly if it is what the documentation
//! says, is printed as it was written, and matches as a plain reading of the two does.
#![no_main]

use esl_core::{EventPattern, EventType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let pattern = lines.next().unwrap_or_default();
    let parsed = pattern.parse::<EventPattern>();
    assert_eq!(parsed.is_ok(), is_pattern(pattern));
    if let Ok(parsed) = &parsed {
        assert_eq!(parsed.to_string(), pattern);
    }
    for line in lines {
        let event_type = line.parse::<EventType>();
        assert_eq!(event_type.is_ok(), is_type(line));
        let Ok(event_type) = event_type else { continue };
        assert_eq!(event_type.to_string(), line);
        // A type is also the pattern that matches it, and no other type.
        let exactly: EventPattern = line.parse().expect("a type is a pattern");
        assert!(exactly.matches(&event_type));
        if let Ok(parsed) = &parsed {
            let levels: Vec<_> = pattern.split('.').collect();
            let is_wanted = is_wanted(&levels, &line.split('.').collect::<Vec<_>>());
            assert_eq!(parsed.matches(&event_type), is_wanted, "{pattern} {line}");
        }
    }
});

fn is_type(text: &str) -> bool {
    let levels: Vec<_> = text.split('.').collect();
    text.chars().count() <= 128 && (2..=8).contains(&levels.len()) && levels.iter().all(is_level)
}

/// A type, everything, or everything below a name under which there can be a type.
fn is_pattern(text: &str) -> bool {
    text == "*"
        || is_type(text)
        || text.strip_suffix(".*").is_some_and(|name| is_type(&format!("{name}.x")))
}

fn is_level(level: &&str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !level.is_empty() && level.chars().all(is_plain)
}

/// Level by level; a star stands for all that are left, of which there is one at least.
fn is_wanted(pattern: &[&str], levels: &[&str]) -> bool {
    match (pattern, levels) {
        ([], []) => true,
        (["*"], rest) => !rest.is_empty(),
        ([wanted, pattern @ ..], [level, levels @ ..]) => {
            wanted == level && is_wanted(pattern, levels)
        }
        _ => false,
    }
}
