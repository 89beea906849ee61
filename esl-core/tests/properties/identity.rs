//! Ids and times.

use esl_core::{DeliveryId, EventId, LaneId, OrganizationId, Seq, Timestamp};
use proptest::prelude::*;

use crate::config;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_id_is_read_back_and_ordered_as_its_bytes(one in any::<[u8; 16]>(), other in any::<[u8; 16]>()) {
        let [a, b] = [one, other].map(EventId::from_bytes);
        prop_assert_eq!(a.to_string().parse(), Ok(a));
        prop_assert_eq!(a.to_bytes(), one);
        prop_assert_eq!(a.cmp(&b), one.cmp(&other));
        prop_assert_eq!(a.to_string().cmp(&b.to_string()), one.cmp(&other));
        prop_assert!(a.to_string().parse::<OrganizationId>().is_err());
    }

    #[test]
    fn an_id_has_one_spelling(text in prop_oneof!["evt_[0-9A-Za-z]{26}", "\\PC{0,32}"]) {
        if let Ok(id) = text.parse::<EventId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn a_delivery_leads_back_to_its_parts(event in any::<[u8; 16]>(), seq in 0..1_u64 << 40, lane in 0..1_u64 << 40) {
        let event = EventId::from_bytes(event);
        let delivery = DeliveryId::new(event, Seq::new(seq), LaneId::new(lane));
        prop_assert_eq!((delivery.seq().get(), delivery.lane().get()), (seq, lane));
        prop_assert!(delivery.is_of(event));
        prop_assert_eq!(delivery.to_string().parse(), Ok(delivery));
    }

    #[test]
    fn a_time_is_read_back_and_ordered_as_its_text(one in any::<i64>(), other in 0..=Timestamp::MAX.as_millis()) {
        let [a, b] = [one, other].map(Timestamp::from_millis);
        prop_assert_eq!(a.to_string().parse(), Ok(a));
        prop_assert_eq!(b.to_string().parse(), Ok(b));
        prop_assert_eq!(b.as_millis(), other);
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }

    #[test]
    fn any_time_that_is_read_is_one_that_can_be_written(
        text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,12})?(Z|[+-][0-2][0-9]:[0-5][0-9])"
    ) {
        if let Ok(time) = text.parse::<Timestamp>() {
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
