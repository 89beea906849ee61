use std::sync::{Mutex, PoisonError};

use crate::Chance;

/// Chance that repeats itself: the same seed gives the same bits.
///
/// It prints its seed, so that a test that fails says how to make it fail again.
#[derive(Debug)]
pub struct SeededChance {
    generator: Mutex<fastrand::Rng>,
}

impl SeededChance {
    /// Chance from a known seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // What a test prints is shown when it fails.
        eprintln!("chance is seeded with {seed}");
        Self { generator: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }

    /// Chance from a seed that nobody chose.
    #[must_use]
    pub fn random() -> Self {
        Self::new(fastrand::u64(..))
    }
}

impl Chance for SeededChance {
    fn bits(&self) -> u64 {
        self.generator.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let bits = |seed| {
            let chance = SeededChance::new(seed);
            [chance.bits(), chance.bits(), chance.bits()]
        };
        assert_eq!(bits(7), bits(7));
        assert_ne!(bits(7), bits(8));
    }
}
