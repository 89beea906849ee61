//! Numbers that stand for something. None is ever given anew.

use std::time::Duration;

use crate::{AttemptError, DeliveryState, LaneId, ReplayOf, TokenKind, storage::Audience};

/// How a delivery has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ending {
    /// The receiver has it.
    Delivered = 0,
    /// All its attempts have failed.
    Exhausted = 1,
    /// It was owed for too long.
    Expired = 2,
    /// Its subscription or its event is gone.
    Cancelled = 3,
}

impl Ending {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Exhausted, Self::Expired, Self::Cancelled];

    /// What stands for it.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Reads [`number`](Self::number) back.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The state of such a delivery.
    #[must_use]
    pub const fn state(self) -> DeliveryState {
        match self {
            Self::Delivered => DeliveryState::Delivered,
            Self::Exhausted => DeliveryState::Exhausted,
            Self::Expired => DeliveryState::Expired,
            Self::Cancelled => DeliveryState::Cancelled,
        }
    }
}

const ATTEMPT_ERRORS: [(u8, AttemptError); 10] = [
    (1, AttemptError::Status),
    (2, AttemptError::RefusedAddress),
    (3, AttemptError::Dns),
    (4, AttemptError::Connect),
    (5, AttemptError::Tls),
    (6, AttemptError::Timeout),
    (7, AttemptError::Reset),
    (8, AttemptError::StaleConnection),
    (9, AttemptError::TooLarge),
    (10, AttemptError::Unsent),
];

/// What stands for an error of an attempt.
#[must_use]
pub fn attempt_error_number(error: AttemptError) -> u8 {
    let known = ATTEMPT_ERRORS.iter().find(|(_, known)| *known == error);
    known.expect("a test holds the table against AttemptError::ALL").0
}

/// Reads [`attempt_error_number`] back.
#[must_use]
pub fn attempt_error(number: u8) -> Option<AttemptError> {
    ATTEMPT_ERRORS.iter().find(|(known, _)| *known == number).map(|(_, error)| *error)
}

/// Nothing for all that match, a lane for all but that one, and the lane below zero for that one alone.
#[must_use]
pub const fn audience_number(audience: Audience) -> Option<i64> {
    match audience {
        Audience::Matching => None,
        Audience::Except(lane) => Some(lane.get().cast_signed()),
        Audience::Only(lane) => Some(-lane.get().cast_signed()),
    }
}

/// Reads [`audience_number`] back.
#[must_use]
pub fn audience(number: Option<i64>) -> Audience {
    let lane = |number: i64| LaneId::new(number.unsigned_abs());
    match number {
        None => Audience::Matching,
        Some(number) if number < 0 => Audience::Only(lane(number)),
        Some(number) => Audience::Except(lane(number)),
    }
}

const REPLAY_EXHAUSTED: u8 = 1;
const REPLAY_EXPIRED: u8 = 2;
const REPLAY_DELIVERED: u8 = 4;
const REPLAY_MISSING: u8 = 8;

/// What stands for that which a replay is of: a bit for each way in which its deliveries may have ended (1
/// exhausted, 2 expired, 4 delivered), or 8 for what is missing.
#[must_use]
pub fn replay_of_number(of: &ReplayOf) -> u8 {
    match *of {
        ReplayOf::Missing => REPLAY_MISSING,
        ReplayOf::Deliveries { exhausted, expired, delivered } => {
            let bits = [
                (exhausted, REPLAY_EXHAUSTED),
                (expired, REPLAY_EXPIRED),
                (delivered, REPLAY_DELIVERED),
            ];
            bits.into_iter().filter(|(is_chosen, _)| *is_chosen).map(|(_, bit)| bit).sum()
        }
    }
}

/// Reads [`replay_of_number`] back.
#[must_use]
pub fn replay_of(number: u8) -> Option<ReplayOf> {
    if number == REPLAY_MISSING {
        return Some(ReplayOf::Missing);
    }
    let has = |bit| number & bit != 0;
    let is_known = number & !(REPLAY_EXHAUSTED | REPLAY_EXPIRED | REPLAY_DELIVERED) == 0;
    is_known.then(|| ReplayOf::Deliveries {
        exhausted: has(REPLAY_EXHAUSTED),
        expired: has(REPLAY_EXPIRED),
        delivered: has(REPLAY_DELIVERED),
    })
}

const TOKEN_KINDS: [(u8, TokenKind); 2] = [(1, TokenKind::Access), (2, TokenKind::Refresh)];

/// What stands for a kind of token.
#[must_use]
pub fn token_kind_number(kind: TokenKind) -> u8 {
    let known = TOKEN_KINDS.iter().find(|(_, known)| *known == kind);
    known.expect("every kind has a number").0
}

/// Reads [`token_kind_number`] back.
#[must_use]
pub fn token_kind(number: u8) -> Option<TokenKind> {
    TOKEN_KINDS.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)
}

/// In nanoseconds; 292 years at most.
#[must_use]
pub fn duration_number(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_what_they_are_and_come_back() {
        let numbers = AttemptError::ALL.map(attempt_error_number);
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(numbers.map(attempt_error), AttemptError::ALL.map(Some));
        assert_eq!(Ending::ALL.map(Ending::number), [0, 1, 2, 3]);
        assert_eq!([0, 1, 2, 3].map(Ending::from_number), Ending::ALL.map(Some));
        let kinds = [TokenKind::Access, TokenKind::Refresh];
        assert_eq!(kinds.map(token_kind_number), [1, 2]);
        assert_eq!([1, 2].map(token_kind), kinds.map(Some));
        let lane = LaneId::new(7);
        for (kept, number) in [
            (Audience::Matching, None),
            (Audience::Except(lane), Some(7)),
            (Audience::Only(lane), Some(-7)),
        ] {
            assert_eq!((audience_number(kept), audience(number)), (number, kept));
        }
    }

    #[test]
    fn what_a_replay_is_of_is_a_set_of_bits() {
        for bits in 0..8 {
            let of = replay_of(bits).unwrap();
            assert_eq!(replay_of_number(&of), bits);
        }
        assert_eq!(replay_of_number(&ReplayOf::UNDELIVERED), 3);
        assert_eq!(replay_of(replay_of_number(&ReplayOf::Missing)), Some(ReplayOf::Missing));
    }

    #[test]
    fn what_stands_for_nothing_is_nothing() {
        assert_eq!([0, 11, 255].map(attempt_error), [None; 3]);
        assert_eq!([4, 255].map(Ending::from_number), [None; 2]);
        assert_eq!([0, 3].map(token_kind), [None; 2]);
        for number in [9, 12, 16, 255] {
            assert_eq!(replay_of(number), None, "{number}");
        }
    }

    #[test]
    fn the_longest_duration_is_kept_as_the_longest_that_fits() {
        assert_eq!(duration_number(Duration::from_micros(5)), 5000);
        assert_eq!(duration_number(Duration::MAX), i64::MAX);
    }
}
