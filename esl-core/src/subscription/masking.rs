//! What a receiver answers is kept, and shown to whoever may read deliveries. Receivers that fail like to
//! say what they were sent, a credential among it.

use super::Subscription;

impl Subscription {
    /// A receiver's text, with what only the receiver and this subscription know replaced by `***`.
    pub(crate) fn mask(&self, text: String) -> String {
        let signing = [Some(&self.secret), self.retiring.as_ref().map(|retiring| &retiring.secret)];
        let signing = signing.into_iter().flatten().map(|secret| secret.expose());
        // What follows `whsec_` and a scheme such as `Bearer` is as good as all of it.
        let signing = signing.flat_map(|secret| [Some(secret), secret.strip_prefix("whsec_")]);
        let headers = self.options.headers.expose().map(|(_, value)| value);
        let headers = headers.flat_map(|value| {
            [Some(value), value.split_once(' ').map(|(_, credential)| credential)]
        });
        let mut secrets: Vec<_> = signing.chain(headers).flatten().collect();
        secrets.retain(|secret| secret.len() >= BYTES_MIN && text.contains(secret));
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.into_iter().fold(text, |text, secret| text.replace(secret, "***"))
    }
}

/// A shorter value is hardly a secret, and would be found in texts that do not mean it.
const BYTES_MIN: usize = 6;
