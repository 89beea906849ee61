//! What a receiver answers is kept, and shown to whoever may read deliveries. Receivers that fail like to
//! say what they were sent, a credential among it.

use std::ops::Range;

use super::Subscription;
use crate::Answer;

impl Subscription {
    /// The beginning of a receiver's answer, with what only the receiver and this subscription know
    /// replaced by `***`.
    pub(crate) fn mask(&self, text: String) -> String {
        let signing = [Some(&self.secret), self.retiring.as_ref().map(|retiring| &retiring.secret)];
        let signing = signing.into_iter().flatten().map(|secret| secret.expose());
        // What follows `whsec_` and a scheme such as `Bearer` is as good as all of it.
        let signing = signing.flat_map(|secret| [Some(secret), secret.strip_prefix("whsec_")]);
        let headers = self.options.headers.expose().map(|(_, value)| value);
        let headers = headers.flat_map(|value| {
            [Some(value), value.split_once(' ').map(|(_, credential)| credential)]
        });
        let secrets = signing.chain(headers).flatten();
        let secrets: Vec<_> = secrets.filter(|secret| secret.len() >= BYTES_MIN).collect();
        let whole = secrets.iter().flat_map(|secret| {
            text.match_indices(secret).map(|(start, found)| start..start + found.len())
        });
        let mut found: Vec<_> = whole.collect();
        // An answer may have been cut in the middle of a secret. In text, what was cut within a
        // character has not become shorter.
        if text.len() >= Answer::EXCERPT_BYTES_MAX {
            found.extend(secrets.iter().filter_map(|secret| begun_at_the_end(&text, secret)));
        }
        if found.is_empty() {
            return text;
        }
        replace(&text, found)
    }
}

/// Where, at the end of a text, a secret has begun.
fn begun_at_the_end(text: &str, secret: &str) -> Option<Range<usize>> {
    // What was cut within a character ends with this in its place.
    let end = text.strip_suffix(char::REPLACEMENT_CHARACTER).unwrap_or(text);
    let lengths = secret.char_indices().map(|(at, _)| at).rev();
    let mut lengths = lengths.take_while(|length| *length >= BEGINNING_BYTES_MIN);
    let length = lengths.find(|length| end.ends_with(&secret[..*length]))?;
    Some(end.len() - length..text.len())
}

/// Each of these parts as `***`; those that overlap as one.
fn replace(text: &str, mut parts: Vec<Range<usize>>) -> String {
    parts.sort_unstable_by_key(|part| part.start);
    parts.dedup_by(|next, last| {
        let overlaps = next.start < last.end;
        if overlaps {
            last.end = last.end.max(next.end);
        }
        overlaps
    });
    let mut masked = String::with_capacity(text.len());
    let mut shown_to = 0;
    for part in parts {
        masked.push_str(&text[shown_to..part.start]);
        masked.push_str("***");
        shown_to = part.end;
    }
    masked.push_str(&text[shown_to..]);
    masked
}

/// A shorter value is hardly a secret, and would be found in texts that do not mean it.
const BYTES_MIN: usize = 6;

/// Less of a secret says little of it.
const BEGINNING_BYTES_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use crate::{
        CallbackUrl, CustomHeaders, NewSubscription, OrganizationId, Secret, SubscriptionId,
        Timestamp,
    };

    use super::*;

    fn subscription(secret: &str, headers: &[(&str, &str)]) -> Subscription {
        let url = CallbackUrl::from_stored("https://a.example/");
        let mut new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
        new.options.headers = CustomHeaders::new(headers.iter().copied()).unwrap();
        let (id, organization) =
            (SubscriptionId::from_bytes([1; 16]), OrganizationId::from_bytes([1; 16]));
        let secret = Secret::new(secret).unwrap();
        Subscription::new(id, organization, new, secret, Timestamp::EPOCH)
    }

    #[test]
    fn a_secret_that_an_answer_was_cut_in_is_masked_as_far_as_it_goes() {
        let secret = "sécret-with-cdé";
        let subscription = subscription(secret, &[("authorization", "Bearer cdef-gateway")]);
        // As a transport cuts, and the engine reads it.
        let excerpt = |said: &str, kept: usize| {
            let padding = ".".repeat(Answer::EXCERPT_BYTES_MAX - kept);
            let mut bytes = format!("{padding}{said}").into_bytes();
            bytes.truncate(Answer::EXCERPT_BYTES_MAX);
            let masked = subscription.mask(String::from_utf8_lossy(&bytes).into_owned());
            masked.trim_start_matches('.').to_owned()
        };
        for kept in 4..=secret.len() {
            assert_eq!(excerpt(secret, kept), "***", "{kept}");
        }
        assert_eq!(excerpt(secret, 3), "sé");
        assert_eq!(excerpt("a token: Bearer cdef-gateway", 20), "a token: ***");
        assert_eq!(excerpt("a token: cdef-gateway", 14), "a token: ***");
        // One that has begun where another one ends.
        assert_eq!(excerpt("sécret-with-cdéf and cdef-gateway", 28), "***f and ***");
        let overlapping = "Bearer cdef-gatewaysécret-with-cdé";
        assert_eq!(excerpt(overlapping, 28), "******");
        // What is there as a whole, and what is not cut.
        assert_eq!(excerpt("cdef-gateway!", 13), "***!");
        assert_eq!(subscription.mask("not a Bearer".to_owned()), "not a Bearer");
        assert_eq!(subscription.mask("no cdef-gate".to_owned()), "no cdef-gate");
    }

    #[test]
    fn secrets_that_overlap_are_masked_as_one() {
        let subscription = subscription("begins-and-ends", &[("x-key", "ends-with-more")]);
        let said = "<begins-and-ends-with-more>".to_owned();
        assert_eq!(subscription.mask(said), "<***>");
    }
}
