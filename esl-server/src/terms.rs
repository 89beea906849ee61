//! What an organization may use, as it is said on the command line.

use std::str::FromStr;

use anyhow::bail;
use clap::Args;
use esl_core::{Limit, Plan, Tier};

use crate::config::RETRIES_MAX;

/// What is agreed with an organization.
#[derive(Debug, Default, Args)]
pub(crate) struct Terms {
    /// Its tier: free, standard or enterprise; or none, and nothing of it is limited
    #[arg(long, value_name = "TIER", value_parser = tier)]
    tier: Option<Agreed>,
    /// How many subscriptions it may have: a number, unlimited, or tier for what its tier allows
    #[arg(long, value_name = "LIMIT", value_parser = own::<Limit>)]
    subscriptions: Option<Own<Limit>>,
    /// How many events it may publish in an hour: a number, unlimited, or tier
    #[arg(long, value_name = "LIMIT", value_parser = own::<Limit>)]
    events_per_hour: Option<Own<Limit>>,
    /// How often a failed delivery is tried again: 0 to 100 times, or tier
    #[arg(long, value_name = "COUNT", value_parser = own::<Retries>)]
    retries: Option<Own<Retries>>,
}

impl Terms {
    /// A plan with what is said changed in it. What is not said stays.
    pub(crate) fn applied_to(self, plan: Option<Plan>) -> anyhow::Result<Option<Plan>> {
        let Self { tier, subscriptions, events_per_hour, retries } = self;
        let has_numbers = subscriptions.is_some() || events_per_hour.is_some() || retries.is_some();
        let plan = match tier {
            None => plan,
            Some(Agreed::Nothing) => None,
            Some(Agreed::Tier(tier)) => {
                Some(plan.map_or_else(|| Plan::new(tier), |plan| Plan { tier, ..plan }))
            }
        };
        let Some(mut plan) = plan else {
            if has_numbers {
                bail!("an organization without a tier has no limits; say --tier with one");
            }
            return Ok(None);
        };
        change(&mut plan.subscriptions, subscriptions);
        change(&mut plan.events_per_hour, events_per_hour);
        change(&mut plan.retries, retries.map(|own| own.map(|Retries(count)| count)));
        Ok(Some(plan))
    }
}

fn change<T>(value: &mut Option<T>, own: Option<Own<T>>) {
    match own {
        None => {}
        Some(Own::Tiers) => *value = None,
        Some(Own::Its(its)) => *value = Some(its),
    }
}

/// A tier, or that there is none.
#[derive(Debug, Clone, Copy)]
enum Agreed {
    Nothing,
    Tier(Tier),
}

/// Of an organization itself, or of its tier.
#[derive(Debug, Clone, Copy)]
enum Own<T> {
    Tiers,
    Its(T),
}

impl<T> Own<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Own<U> {
        match self {
            Self::Tiers => Own::Tiers,
            Self::Its(its) => Own::Its(change(its)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Retries(u32);

impl FromStr for Retries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count) if count <= RETRIES_MAX => Ok(Self(count)),
            _ => Err(format!("expected a number from 0 to {RETRIES_MAX}")),
        }
    }
}

fn tier(text: &str) -> Result<Agreed, String> {
    if text == "none" {
        return Ok(Agreed::Nothing);
    }
    text.parse().map(Agreed::Tier).map_err(|error| format!("{error}, or none"))
}

fn own<T: FromStr<Err: ToString>>(text: &str) -> Result<Own<T>, String> {
    if text == "tier" {
        return Ok(Own::Tiers);
    }
    text.parse().map(Own::Its).map_err(|error: T::Err| format!("{}, or `tier`", error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, error::ErrorKind};

    use super::*;

    fn terms(arguments: &[&str]) -> Result<Terms, clap::Error> {
        let command = Terms::augment_args(clap::Command::new("esl-server").no_binary_name(true));
        Terms::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    fn applied(arguments: &[&str], plan: Option<Plan>) -> Option<Plan> {
        terms(arguments).expect("it is well-formed").applied_to(plan).expect("it makes sense")
    }

    #[test]
    fn what_is_not_said_stays() {
        let mut plan = Plan::new(Tier::Free);
        plan.subscriptions = Some(Limit::Unlimited);
        assert_eq!(applied(&[], Some(plan)), Some(plan));
        assert_eq!(applied(&[], None), None);
        let other = applied(&["--tier", "enterprise", "--retries", "0"], Some(plan));
        assert_eq!(other, Some(Plan { tier: Tier::Enterprise, retries: Some(0), ..plan }));
        let numbers = ["--subscriptions", "tier", "--events-per-hour", "5"];
        let own = applied(&numbers, Some(plan)).expect("it has a plan");
        assert_eq!((own.subscriptions, own.events_per_hour), (None, Some(Limit::AtMost(5))));
        assert_eq!(applied(&["--tier", "none"], Some(plan)), None);
        assert_eq!(applied(&["--tier", "free"], None), Some(Plan::new(Tier::Free)));
    }

    #[test]
    fn numbers_need_a_tier() {
        let numbers = ["--retries", "1"];
        terms(&numbers).expect("it is well-formed").applied_to(None).expect_err("there is no tier");
        let both = ["--tier", "none", "--retries", "1"];
        let plan = Some(Plan::new(Tier::Free));
        terms(&both).expect("it is well-formed").applied_to(plan).expect_err("it makes no sense");
    }

    #[test]
    fn what_is_no_tier_and_no_number_is_refused() {
        for arguments in [
            ["--tier", "gold"],
            ["--subscriptions", "-1"],
            ["--subscriptions", "many"],
            ["--events-per-hour", ""],
            ["--retries", "101"],
            ["--retries", "unlimited"],
        ] {
            let error = terms(&arguments).expect_err("it is wrong");
            let kinds = [ErrorKind::ValueValidation, ErrorKind::UnknownArgument];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }
}
