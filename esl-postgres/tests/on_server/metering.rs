//! The rule of limits is in core, and once more in SQL: they say the same.

use std::collections::HashMap;

use esl_core::{
    Hour, Limit, OrganizationId, Threshold, Usage,
    storage::{Metering, Notices, Publish, Refused, RouteVersion, Routed, Unit},
};

use crate::publishing::{CommitAll, Publisher, event, publish};

/// Draws from a seed, so that a failure can be repeated.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}

/// A unit under a limit that may be close, with some of the notices that it may need.
fn unit(
    draw: &mut Draw,
    organization: OrganizationId,
    version: RouteVersion,
    now: Hour,
) -> Publish {
    let count = 1 + draw.below(4);
    let mut publish = publish(organization, version, usize::try_from(count).expect("few"), &[]);
    let limit = match draw.below(6) {
        0 => Limit::Unlimited,
        1 => Limit::AtMost(draw.below(3)),
        _ => Limit::AtMost(draw.below(60)),
    };
    let mut notices = Vec::new();
    for hour in [now, now.next(), Hour::from_number(0)] {
        let thresholds = [Threshold::Warning, Threshold::Exceeded];
        let told = thresholds.into_iter().filter(|_| draw.below(4) > 0);
        let events = told.map(|threshold| (threshold, Routed::new(event(organization), [].into())));
        notices.push(Notices { hour, events: events.collect() });
    }
    publish.metering = Some(Metering { limit, refuses: draw.below(3) > 0, notices });
    publish
}

#[tokio::test]
async fn limits_are_decided_in_sql_as_in_core() {
    let world = Publisher::new().await;
    let observer = crate::cluster::Observer::connect().await;
    let statement = format!("SELECT {}.now_1(NULL)", world.schema);
    for seed in 0..8 {
        let mut draw = Draw(seed);
        let organizations = [world.organization().await, world.organization().await];
        let now: i64 = observer.number(&statement, &[]).await;
        let now = Hour::of(esl_core::Timestamp::from_millis(now));
        let mut used: HashMap<OrganizationId, Usage> = HashMap::new();
        for _ in 0..4 {
            let units: Vec<_> = (0..40)
                .map(|_| {
                    let organization = organizations[usize::from(draw.below(2) == 0)];
                    unit(&mut draw, organization, RouteVersion(0), now)
                })
                .collect();
            let results =
                world.storage.commit_all(units.iter().cloned().map(Unit::publish).collect()).await;
            for (publish, result) in units.iter().zip(results) {
                let before = used.get(&publish.organization).copied();
                // Where the hour turns meanwhile, storage's is the one that counts.
                let hour = match &result {
                    Ok(committed) => committed.usage.expect("it is metered").hour,
                    Err(Refused::OverLimit(usage) | Refused::Crosses(usage)) => usage.hour,
                    Err(other) => panic!("{other}"),
                };
                let before = before.filter(|usage| usage.hour == hour);
                let before = before.unwrap_or(Usage { hour, events: 0 });
                let metering = publish.metering.as_ref().expect("it is metered");
                let expected = metering.meter(before, publish.events.len());
                let crossed = match (expected, result) {
                    (Ok((usage, crossed)), Ok(committed)) => {
                        assert_eq!(committed.usage, Some(usage), "seed {seed}");
                        used.insert(publish.organization, usage);
                        let told: Vec<_> =
                            committed.notices.iter().map(|(threshold, _)| *threshold).collect();
                        Some((crossed, told))
                    }
                    (Err(expected), Err(refused)) => {
                        assert_eq!(refused, expected, "seed {seed}");
                        None
                    }
                    (expected, result) => panic!("seed {seed}: {expected:?}, not {result:?}"),
                };
                if let Some((crossed, told)) = crossed {
                    for threshold in [Threshold::Warning, Threshold::Exceeded] {
                        assert_eq!(crossed.has(threshold), told.contains(&threshold));
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn plain_groups_come_to_the_same_as_their_units() {
    let world = Publisher::new().await;
    let observer = crate::cluster::Observer::connect().await;
    let statement = format!("SELECT {}.now_1(NULL)", world.schema);
    for seed in 0..40 {
        let mut draw = Draw(seed);
        let organization = world.organization().await;
        let limit = Limit::AtMost(draw.below(40));
        let now: i64 = observer.number(&statement, &[]).await;
        let mut used = Usage { hour: Hour::of(esl_core::Timestamp::from_millis(now)), events: 0 };
        let mut last = 0;
        for _ in 0..8 {
            let metered = |count: u64, refuses| {
                let count = usize::try_from(count).expect("few");
                let mut publish = publish(organization, RouteVersion(0), count, &[]);
                // What does not count is among what does.
                publish.metering =
                    (count != 2).then_some(Metering { limit, refuses, notices: Vec::new() });
                publish
            };
            let publishes: Vec<_> =
                (0..3).map(|_| metered(1 + draw.below(3), draw.below(4) > 0)).collect();
            let units = publishes.iter().cloned().map(Unit::publish).collect();
            for (publish, result) in publishes.iter().zip(world.storage.commit_all(units).await) {
                let count = publish.events.len();
                let decided = publish.metering.as_ref().map(|metering| metering.meter(used, count));
                match (decided.transpose(), result) {
                    (Ok(metered), Ok(committed)) => {
                        let seqs = committed.events.iter().map(|accepted| accepted.seq.get());
                        assert!(seqs.eq(last + 1..=last + count as u64), "seed {seed}");
                        last += count as u64;
                        if let Some(usage) = committed.usage {
                            // Where the hour turns meanwhile, storage's is the one that counts.
                            let expected = metered.expect("it is metered").0;
                            assert!(usage.hour != used.hour || usage == expected, "seed {seed}");
                            used = usage;
                        }
                    }
                    (Err(expected), Err(refused)) => assert_eq!(refused, expected, "seed {seed}"),
                    (expected, result) => panic!("seed {seed}: {expected:?}, not {result:?}"),
                }
            }
        }
    }
}
