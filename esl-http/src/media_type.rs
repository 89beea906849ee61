//! What a body is said to be (RFC 9110, sections 8.3 and 8.4).

use std::borrow::Cow;

use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

/// What most bodies here are.
pub(crate) const JSON: &str = "application/json";

/// Which of these media types, all of them JSON, a body is said to be; otherwise what is wrong.
pub(crate) fn of(
    headers: &HeaderMap,
    taken: &[&'static str],
) -> Result<&'static str, Cow<'static, str>> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    if text(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err("a body is taken as it is, without Content-Encoding".into());
    }
    let media_type = text(CONTENT_TYPE).unwrap_or("");
    let (media_type, parameters) = media_type.split_once(';').unwrap_or((media_type, ""));
    let media_type = media_type.trim_end();
    let Some(media_type) = taken.iter().find(|one| media_type.eq_ignore_ascii_case(one)) else {
        return Err(format!("expected Content-Type: {}", taken.join(" or ")).into());
    };
    if Parameters(parameters)
        .any(|(name, value)| name.eq_ignore_ascii_case("charset") && !is_utf_8(value))
    {
        return Err("a body is in UTF-8: expected charset=utf-8, or none".into());
    }
    Ok(media_type)
}

fn is_utf_8(value: &str) -> bool {
    let Some(quoted) = value.strip_prefix('"') else { return value.eq_ignore_ascii_case("utf-8") };
    // A backslash within quotes says that the next character is meant as it is.
    let text = quoted.strip_suffix('"').map(|text| text.replace('\\', ""));
    text.is_some_and(|text| text.eq_ignore_ascii_case("utf-8"))
}

/// The parameters of a media type (RFC 9110, section 5.6.6), each a name and its value as it is
/// written. What has no value is none.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let (parameter, rest) = self.0.split_at(end_of_parameter(self.0));
            self.0 = rest.strip_prefix(';').unwrap_or(rest);
            if let Some((name, value)) = parameter.split_once('=') {
                return Some((name.trim(), value.trim()));
            }
        }
        None
    }
}

/// Where the first semicolon is that is not within quotes, or the end.
fn end_of_parameter(text: &str) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = text.bytes().position(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b';' => return !is_quoted,
            _ => {}
        }
        false
    });
    end.unwrap_or(text.len())
}
