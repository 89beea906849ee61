//! Retries.

use std::time::Duration;

use esl_core::{AfterFailure, Draw, RetryPolicy, Timestamp};
use proptest::{collection::vec, prelude::*};

use crate::config;

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..10_000_000_u64).prop_map(Duration::from_millis),
        (any::<u64>(), 0..1_000_000_000_u32)
            .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_doubling_delay_stays_within_a_fifth_of_its_cap(
        first in duration(),
        charged in prop_oneof![1..70_u32, any::<u32>()],
        draw in any::<u64>(),
    ) {
        let policy = RetryPolicy::default().with_first_delay(first);
        let [plain, next] = [charged, charged.saturating_add(1)].map(|n| policy.delay(n, Draw::MIDDLE));
        prop_assert!(plain <= next, "{:?} and then {:?}", plain, next);
        let delay = policy.delay(charged, Draw(draw));
        prop_assert!(delay <= RetryPolicy::DELAY_MAX);
        // A nanosecond for what the calculation rounds.
        let (low, high) = (plain.mul_f64(0.8), plain.mul_f64(1.2));
        let grain = Duration::from_nanos(1);
        prop_assert!(low <= delay + grain && delay <= high + grain, "{:?} of {:?}", delay, plain);
    }

    #[test]
    fn a_schedule_is_kept_whatever_is_drawn(
        schedule in vec(duration(), 0..8),
        charged in prop_oneof![1..12_u32, any::<u32>()],
        draw in any::<u64>(),
    ) {
        let policy = RetryPolicy::default().with_schedule(schedule.clone());
        let index = usize::try_from(charged.saturating_sub(1)).expect("a small number");
        let wanted = schedule.get(index).or(schedule.last()).copied().unwrap_or_default();
        prop_assert_eq!(policy.delay(charged, Draw(draw)), wanted.min(RetryPolicy::DELAY_MAX));
    }

    #[test]
    fn a_delivery_is_given_up_after_its_budget_and_never_tried_in_the_past(
        budget in any::<u32>(),
        charged in any::<u32>(),
        first in duration(),
        now in 0..=Timestamp::MAX.as_millis(),
        draw in any::<u64>(),
    ) {
        let policy = RetryPolicy::default().with_budget(budget).with_first_delay(first);
        let now = Timestamp::from_millis(now);
        match policy.after_failure(charged, now, Draw(draw)) {
            AfterFailure::RetryAt(at) => {
                prop_assert!(charged <= budget);
                prop_assert!(now <= at && at <= now + RetryPolicy::DELAY_MAX);
            }
            AfterFailure::Exhausted => prop_assert!(charged > budget),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
