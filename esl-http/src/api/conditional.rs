//! Which part of a thing a request wants, if any: preconditions and ranges (RFC 9110, sections 13
//! and 14).

use std::ops::Range;

use axum::http::{
    HeaderMap, HeaderName, Method,
    header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE},
};

/// Why a request is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmet {
    /// The caller has this version.
    NotModified,
    /// It is to be done to another version, which there is not.
    PreconditionFailed,
}

/// What stands in the way of a request to what has this strong `etag`, or is not there, in the order of
/// section 13.2.2.
pub(super) fn unmet(method: &Method, headers: &HeaderMap, etag: Option<&str>) -> Option<Unmet> {
    if headers.contains_key(IF_MATCH) && !lists(headers, IF_MATCH, etag, |tag| tag) {
        return Some(Unmet::PreconditionFailed);
    }
    // Compared weakly (section 13.1.2).
    if lists(headers, IF_NONE_MATCH, etag, |tag| tag.strip_prefix("W/").unwrap_or(tag)) {
        return Some(match *method {
            Method::GET | Method::HEAD => Unmet::NotModified,
            _ => Unmet::PreconditionFailed,
        });
    }
    None
}

/// What a `GET` or `HEAD` comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Nothing: the caller has this version.
    NotModified,
    /// Another version, which there is not.
    PreconditionFailed,
    /// Bytes that there are not.
    NotSatisfiable,
}

/// Reads what is wanted of a thing with this strong `etag` and so many bytes, in the order of
/// section 13.2.2.
pub(super) fn wanted(method: &Method, headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    match unmet(method, headers, Some(etag)) {
        Some(Unmet::NotModified) => return Wanted::NotModified,
        Some(Unmet::PreconditionFailed) => return Wanted::PreconditionFailed,
        None => {}
    }
    // Range is defined for GET alone (section 14.2).
    if *method != Method::GET || !is_of_this_version(headers, etag) {
        return Wanted::Whole;
    }
    match only(headers, RANGE) {
        Some(range) => read_range(range, size),
        None => Wanted::Whole,
    }
}

/// Whether a list of tags, each as it is `compared`, has this one, or is `*`, which any version matches.
fn lists(
    headers: &HeaderMap,
    name: HeaderName,
    etag: Option<&str>,
    compared: impl Fn(&str) -> &str,
) -> bool {
    let Some(etag) = etag else { return false };
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim).peekable();
    let Some(first) = tags.peek().copied() else { return false };
    if first == "*" { tags.count() == 1 } else { tags.any(|tag| compared(tag) == etag) }
}

/// Whether `If-Range`, where there is one, is the tag of this version, compared strongly (section
/// 13.1.5). A weak tag and a date never are.
fn is_of_this_version(headers: &HeaderMap, etag: &str) -> bool {
    !headers.contains_key(IF_RANGE) || only(headers, IF_RANGE) == Some(etag)
}

/// The value of a header that stands there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

/// Section 14.1.2: one range of bytes. Several, and what is no range of bytes, are answered with
/// everything, as section 14.2 allows.
fn read_range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = one_range(text) else { return Wanted::Whole };
    let range = match (first, last) {
        (None, None) => return Wanted::Whole,
        (None, Some(suffix)) => size.saturating_sub(suffix)..size,
        (Some(first), None) => first..size,
        (Some(first), Some(last)) if last < first => return Wanted::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
    };
    if range.start < range.end { Wanted::Part(range) } else { Wanted::NotSatisfiable }
}

/// The two numbers of the one range there is, either of which may be left out.
fn one_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    unit.eq_ignore_ascii_case("bytes").then_some(())?;
    Some((number(first)?, number(last)?))
}

/// A number, or nothing; `None` for what is neither. A number beyond all bounds is beyond the end.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"sha256:1\"";

    fn wanted_with(method: &Method, pairs: &[(HeaderName, &str)]) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        wanted(method, &headers, TAG, 100)
    }

    #[test]
    fn ranges_are_read_as_their_rfc_says() {
        for (text, expected) in [
            ("bytes=0-9", Wanted::Part(0..10)),
            ("Bytes=90-", Wanted::Part(90..100)),
            ("bytes=-10", Wanted::Part(90..100)),
            ("bytes=-1000", Wanted::Part(0..100)),
            ("bytes=50-1000", Wanted::Part(50..100)),
            ("bytes=99-99", Wanted::Part(99..100)),
            ("bytes=100-", Wanted::NotSatisfiable),
            ("bytes=-0", Wanted::NotSatisfiable),
            ("bytes=99999999999999999999-", Wanted::NotSatisfiable),
            ("bytes=9-0", Wanted::Whole),
            ("bytes=0-9,20-29", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=0 - 9", Wanted::Whole),
            ("bytes=+0-9", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("items=0-9", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(wanted_with(&Method::GET, &[(RANGE, text)]), expected, "{text}");
        }
        let twice = [(RANGE, "bytes=0-9"), (RANGE, "bytes=0-9")];
        assert_eq!(wanted_with(&Method::GET, &twice), Wanted::Whole);
        assert_eq!(wanted_with(&Method::HEAD, &[(RANGE, "bytes=0-9")]), Wanted::Whole);
        assert_eq!(wanted_with(&Method::HEAD, &[(RANGE, "bytes=100-")]), Wanted::Whole);
    }

    #[test]
    fn a_range_is_kept_for_exactly_one_strong_tag() {
        let range = (RANGE, "bytes=0-9");
        let part = Wanted::Part(0..10);
        assert_eq!(wanted_with(&Method::GET, &[range.clone(), (IF_RANGE, TAG)]), part);
        for other in [
            "W/\"sha256:1\"",
            "*",
            "\"sha256:1\", \"b\"",
            "\"sha256:2\"",
            "Mon, 15 Jan 2024 14:32:00 GMT",
            "",
        ] {
            let wanted = wanted_with(&Method::GET, &[range.clone(), (IF_RANGE, other)]);
            assert_eq!(wanted, Wanted::Whole, "{other}");
        }
        let twice = [range, (IF_RANGE, TAG), (IF_RANGE, TAG)];
        assert_eq!(wanted_with(&Method::GET, &twice), Wanted::Whole);
    }

    #[test]
    fn tags_are_compared_strongly_for_if_match_and_weakly_for_if_none_match() {
        for (tags, is_match, is_none_match) in [
            (TAG, true, true),
            ("*", true, true),
            ("\"a\", \"sha256:1\"", true, true),
            ("W/\"sha256:1\"", false, true),
            ("\"a\", W/\"sha256:1\"", false, true),
            ("\"sha256:2\"", false, false),
            ("*, \"a\"", false, false),
            ("sha256:1", false, false),
            ("", false, false),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let wanted = wanted_with(&method, &[(IF_MATCH, tags)]);
                let expected = if is_match { Wanted::Whole } else { Wanted::PreconditionFailed };
                assert_eq!(wanted, expected, "If-Match: {tags}");
                let wanted = wanted_with(&method, &[(IF_NONE_MATCH, tags)]);
                let expected = if is_none_match { Wanted::NotModified } else { Wanted::Whole };
                assert_eq!(wanted, expected, "If-None-Match: {tags}");
            }
        }
        let two_lines = [(IF_MATCH, "\"a\""), (IF_MATCH, TAG)];
        assert_eq!(wanted_with(&Method::GET, &two_lines), Wanted::Whole);
    }

    #[test]
    fn what_is_written_is_the_version_that_was_read_and_what_is_made_is_new() {
        let (failed, other) = (Some(Unmet::PreconditionFailed), "\"other\"");
        for (name, tags, there, not_there) in [
            (IF_MATCH, TAG, None, failed),
            (IF_MATCH, "*", None, failed),
            (IF_MATCH, other, failed, failed),
            (IF_NONE_MATCH, "*", failed, None),
            (IF_NONE_MATCH, TAG, failed, None),
            (IF_NONE_MATCH, other, None, None),
        ] {
            let headers = HeaderMap::from_iter([(name.clone(), tags.parse().unwrap())]);
            for method in [Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(unmet(&method, &headers, Some(TAG)), there, "{method} {name}: {tags}");
                assert_eq!(unmet(&method, &headers, None), not_there, "{method} {name}: {tags}");
            }
        }
    }

    #[test]
    fn preconditions_come_before_ranges() {
        let range = (RANGE, "bytes=100-");
        for (name, tags, expected) in [
            (IF_MATCH, "\"other\"", Wanted::PreconditionFailed),
            (IF_NONE_MATCH, TAG, Wanted::NotModified),
            (IF_MATCH, TAG, Wanted::NotSatisfiable),
        ] {
            assert_eq!(wanted_with(&Method::GET, &[range.clone(), (name, tags)]), expected);
        }
        let both = [(IF_MATCH, "\"other\""), (IF_NONE_MATCH, TAG)];
        assert_eq!(wanted_with(&Method::GET, &both), Wanted::PreconditionFailed);
    }
}
