mod permitted;
mod refused;

use super::{CallbackUrlError::*, *};

fn parse(text: &str) -> Result<String, CallbackUrlError> {
    CallbackUrl::parse(text, &CallbackPolicy::public()).map(|url| url.to_string())
}

#[test]
fn what_is_not_a_public_https_url_is_refused_by_reason() {
    let rows = refused::REFUSED;
    assert_rows(rows.iter().map(|&(text, error, why)| (text, Err(error), why)));
}

#[test]
fn a_public_https_url_is_kept_normalized() {
    let rows = permitted::PERMITTED;
    assert_rows(rows.iter().map(|&(text, kept, why)| (text, Ok(kept.to_owned()), why)));
}

/// Names every row that fails: which ones fail together says where the slip is.
#[track_caller]
fn assert_rows<'a>(
    rows: impl Iterator<Item = (&'a str, Result<String, CallbackUrlError>, &'a str)>,
) {
    let failing: Vec<_> = rows
        .map(|(text, expected, why)| (text, expected, parse(text), why))
        .filter(|(_, expected, parsed, _)| parsed != expected)
        .map(|(text, expected, parsed, why)| {
            format!("{text:?} ({why}): {parsed:?}, not {expected:?}")
        })
        .collect();
    assert!(failing.is_empty(), "{} rows:\n{}", failing.len(), failing.join("\n"));
}

#[test]
fn a_url_that_is_too_long_as_written_or_as_kept_is_refused() {
    let long = format!("https://your-app.com/{}", "x".repeat(CallbackUrl::LENGTH_MAX));
    let grows = format!("https://your-app.com/{}", "ö".repeat(CallbackUrl::LENGTH_MAX / 3));
    for text in [long, grows] {
        assert_eq!(parse(&text), Err(Malformed), "{text}");
    }
}

#[test]
fn allowing_private_callbacks_opens_http_and_every_host_and_nothing_else() {
    let policy = CallbackPolicy::allow_private();
    for allowed in ["http://127.0.0.1:9000/hook", "http://localhost/", "https://[::1]/"] {
        assert!(CallbackUrl::parse(allowed, &policy).is_ok(), "{allowed}");
    }
    for (text, error) in [
        ("ftp://127.0.0.1/", Scheme),
        ("http://user@localhost/", UserInfo),
        ("http://localhost:0/", Port),
        ("localhost:9000", Malformed),
    ] {
        assert_eq!(CallbackUrl::parse(text, &policy), Err(error), "{text}");
    }
}

#[test]
fn the_refusals_that_a_developer_meets_name_the_way_out() {
    for error in [Scheme, PrivateHost] {
        assert!(error.to_string().contains("ESL_ALLOW_PRIVATE_CALLBACKS=true"));
    }
}
