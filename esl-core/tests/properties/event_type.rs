//! Event types and patterns.

use esl_core::{EventPattern, EventType};
use proptest::prelude::*;

use crate::config;

/// Texts around what is a type, of few letters so that many of them are related.
fn near_type() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[ab_1]{1,2}(\\.[ab_1]{1,2}){0,9}",
        2 => "[ab]{1,70}\\.[ab]{1,70}",
        1 => "[ab.*A é-]{0,12}",
        1 => any::<String>(),
    ]
}

fn near_pattern() -> impl Strategy<Value = String> {
    (near_type(), prop_oneof![Just(""), Just(".*"), Just("*")])
        .prop_map(|(name, end)| name + end)
        .boxed()
        .prop_union(Just("*".to_owned()).boxed())
}

/// The documented rule, word for word.
fn is_type(text: &str) -> bool {
    let segments: Vec<_> = text.split('.').collect();
    let is_segment = |segment: &&str| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !segment.is_empty() && segment.chars().all(is_plain)
    };
    text.chars().count() <= 128
        && (2..=8).contains(&segments.len())
        && segments.iter().all(is_segment)
}

fn is_wanted(pattern: &str, event_type: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => event_type.starts_with(beginning),
        None => pattern == event_type,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_type_is_what_the_documentation_says(text in near_type()) {
        let parsed = text.parse::<EventType>();
        prop_assert_eq!(parsed.is_ok(), is_type(&text));
        if let Ok(event_type) = parsed {
            prop_assert_eq!(event_type.to_string(), text);
        }
    }

    #[test]
    fn a_pattern_is_a_type_all_or_all_below_a_name(text in near_pattern()) {
        let parsed = text.parse::<EventPattern>();
        let is_below = text.strip_suffix('*').is_some_and(|name| is_type(&format!("{name}x")));
        prop_assert_eq!(parsed.is_ok(), text == "*" || is_type(&text) || (is_below && text.ends_with(".*")));
        if let Ok(pattern) = parsed {
            prop_assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn a_pattern_matches_what_begins_as_it_does(pattern in near_pattern(), event_type in near_type()) {
        let types = [event_type.clone(), pattern.replace('*', "a"), pattern.replace(".*", "")];
        if let Ok(parsed) = pattern.parse::<EventPattern>() {
            for text in types {
                if let Ok(event_type) = text.parse::<EventType>() {
                    prop_assert_eq!(parsed.matches(&event_type), is_wanted(&pattern, &text), "{}", text);
                }
            }
        }
    }
}
