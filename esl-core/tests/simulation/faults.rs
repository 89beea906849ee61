//! How much goes wrong in a world, in thousandths.

use crate::dice::Dice;

#[derive(Debug, Clone)]
pub(crate) struct Faults {
    pub(crate) storage: StorageFaults,
    /// Of each of the receivers; a subscription has one of them.
    pub(crate) receivers: Vec<ReceiverFaults>,
    /// Of each action.
    pub(crate) kill: u32,
    pub(crate) stall: u32,
    pub(crate) shutdown: u32,
    pub(crate) clock_jump: u32,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StorageFaults {
    pub(crate) busy: u32,
    pub(crate) fails_before: u32,
    pub(crate) fails_after: u32,
    pub(crate) slow: u32,
    pub(crate) slow_millis_max: u64,
    /// Renewals of epochs fail beyond that.
    pub(crate) renew_fails: u32,
    pub(crate) late_news: u32,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReceiverFaults {
    pub(crate) server_error: u32,
    pub(crate) retry_after: u32,
    pub(crate) gone: u32,
    pub(crate) refused: u32,
    pub(crate) reset: u32,
    pub(crate) timeout: u32,
    pub(crate) stale: u32,
    pub(crate) answer_lost: u32,
    pub(crate) unsent: u32,
    pub(crate) millis_max: u64,
}

pub(crate) const RECEIVERS: usize = 4;

impl Faults {
    pub(crate) fn draw(dice: &Dice) -> Self {
        let storage = match dice.below(4) {
            0 => StorageFaults::default(),
            1 => StorageFaults { slow: 200, slow_millis_max: 50, late_news: 300, ..rarely(dice) },
            2 => rarely(dice),
            _ => often(dice),
        };
        let receivers = (0..RECEIVERS).map(|_| ReceiverFaults::draw(dice)).collect();
        let some = |most| if dice.permille(500) { below(dice, most) } else { 0 };
        Self {
            storage,
            receivers,
            kill: some(60),
            stall: some(60),
            shutdown: some(40),
            clock_jump: some(60),
        }
    }
}

impl ReceiverFaults {
    fn draw(dice: &Dice) -> Self {
        let millis_max = *dice.pick(&[0, 5, 100, 3000]);
        match dice.below(5) {
            // Well.
            0 => Self { millis_max, ..Self::default() },
            // Dead for as long as there are faults.
            1 => Self { server_error: 500, refused: 500, millis_max, ..Self::default() },
            _ => {
                let some = |most| if dice.permille(400) { below(dice, most) } else { 0 };
                Self {
                    server_error: some(600),
                    retry_after: some(200),
                    gone: some(60),
                    refused: some(300),
                    reset: some(200),
                    timeout: some(200),
                    stale: some(200),
                    answer_lost: some(200),
                    unsent: some(100),
                    millis_max,
                }
            }
        }
    }
}

fn rarely(dice: &Dice) -> StorageFaults {
    StorageFaults {
        busy: below(dice, 15),
        fails_before: below(dice, 15),
        fails_after: below(dice, 15),
        slow: below(dice, 50),
        slow_millis_max: 500,
        renew_fails: below(dice, 100),
        late_news: below(dice, 200),
    }
}

fn often(dice: &Dice) -> StorageFaults {
    StorageFaults {
        busy: below(dice, 150),
        fails_before: below(dice, 150),
        fails_after: below(dice, 200),
        slow: below(dice, 300),
        slow_millis_max: *dice.pick(&[20, 1000, 20_000]),
        renew_fails: below(dice, 900),
        late_news: below(dice, 900),
    }
}

fn below(dice: &Dice, most: u64) -> u32 {
    u32::try_from(dice.below(most)).unwrap()
}

/// The longest that news of other engines' changes come late.
pub(crate) const NEWS_LATE_MILLIS_MAX: u64 = 20_000;
