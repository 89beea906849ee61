//! Where a lane's deliveries go and how, prepared for sending.

use std::{fmt, time::Duration};

use super::headers::HeaderNames;
use crate::{
    Algorithm, HeaderName, RetryPolicy, Signer, Subscription, SubscriptionOptions, Timestamp,
};

/// What holds for subscriptions that say nothing else.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    pub(crate) algorithm: Algorithm,
    pub(crate) headers: HeaderNames,
    pub(crate) retry: RetryPolicy,
    pub(crate) attempt_timeout: Duration,
}

pub(crate) struct Target {
    pub(crate) subscription: Subscription,
    pub(crate) signer: Signer,
    /// Signs with the secret before the last rotation, until then. Few have one, and it is large.
    retiring: Option<Box<(Signer, Timestamp)>>,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Duration,
}

impl Target {
    /// With at most so many retries, if its organization has a plan.
    pub(crate) fn new(
        subscription: Subscription,
        defaults: &Defaults,
        retries: Option<u32>,
    ) -> Self {
        let options = &subscription.options;
        // A header that was fine when it was stored may be ours under today's prefix.
        let own = options.headers.expose().filter(|(name, _)| !defaults.headers.is_ours(name));
        let headers = own.map(|(name, value)| (HeaderName::clone(name), value.to_owned()));
        let signer = |secret| Signer::new(secret, defaults.algorithm);
        Self {
            signer: signer(&subscription.secret),
            retiring: subscription
                .retiring
                .as_ref()
                .map(|retiring| Box::new((signer(&retiring.secret), retiring.until))),
            headers: headers.collect(),
            retry: retry_policy(options, &defaults.retry, retries),
            timeout: options.timeout.unwrap_or(defaults.attempt_timeout),
            subscription,
        }
    }

    /// Signs with the old secret, while there is one.
    pub(crate) fn retiring_at(&self, now: Timestamp) -> Option<&Signer> {
        let (signer, until) = self.retiring.as_deref()?;
        (now < *until).then_some(signer)
    }
}

impl fmt::Debug for Target {
    /// Not the headers: their values are credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

/// A plan says how many retries there are; a schedule of the subscription's own may have fewer, not more.
fn retry_policy(
    options: &SubscriptionOptions,
    default: &RetryPolicy,
    planned: Option<u32>,
) -> RetryPolicy {
    let Some(schedule) = &options.retry_schedule else {
        let default = default.clone();
        return match planned {
            Some(budget) => default.with_budget(budget),
            None => default,
        };
    };
    let length = u32::try_from(schedule.len()).unwrap_or(u32::MAX);
    let budget = planned.map_or(length, |planned| planned.min(length));
    RetryPolicy::default().with_schedule(schedule.clone()).with_budget(budget)
}
