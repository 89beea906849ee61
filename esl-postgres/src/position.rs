//! How far a listener has read tables whose rows become visible in another order than that of their numbers.

use std::time::{Duration, Instant};

/// What a look saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    /// As the server writes it: which transactions were over.
    pub(crate) snapshot: String,
    /// All transactions before this one were over.
    pub(crate) xmin: i64,
    /// None from this one on had begun.
    pub(crate) xmax: i64,
    pub(crate) at: Instant,
}

/// Up to which number of a table every row was seen that ever will be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    low: i64,
    /// The largest number that was seen.
    seen: i64,
    /// What `low` becomes once all transactions are over that ran when it was seen.
    next: Next,
}

#[derive(Debug, Clone, Copy)]
struct Next {
    low: i64,
    xmax: i64,
    at: Instant,
}

impl Mark {
    /// Where the largest number is known as of a moment.
    pub(crate) const fn new(seen: i64, moment: &Moment) -> Self {
        let next = Next { low: seen, xmax: moment.xmax, at: moment.at };
        Self { low: 0, seen, next }
    }

    /// Rows up to here need not be looked at.
    pub(crate) const fn low(&self) -> i64 {
        self.low
    }

    pub(crate) const fn seen(&self) -> i64 {
        self.seen
    }

    /// Notes a look, and the largest number that it saw.
    ///
    /// A number that is lower than one that was seen was drawn before that one was. Its transaction ran by
    /// then, and if it is over now, its row was seen or never will be. (Where a row draws its number before
    /// its transaction has one, it is a moment before. So much time is left for it.)
    pub(crate) fn look(&mut self, moment: &Moment, seen: Option<i64>) {
        self.seen = self.seen.max(seen.unwrap_or_default());
        if moment.xmin >= self.next.xmax
            && moment.at.saturating_duration_since(self.next.at) >= REST
        {
            self.low = self.next.low;
            self.next = Next { low: self.seen, xmax: moment.xmax, at: moment.at };
        }
    }
}

const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_looked_for_until_whoever_may_bring_it_is_gone() {
        let begin = Instant::now();
        let moment = |second, xmin, xmax| {
            let at = begin + Duration::from_secs(second);
            Moment { snapshot: String::new(), xmin, xmax, at }
        };
        let mut mark = Mark::new(10, &moment(0, 100, 105));
        assert_eq!(mark.low(), 0, "a transaction from 100 on may have drawn 9");
        for (second, xmin, xmax, seen, low) in [
            (1, 104, 110, Some(12), 0),
            (2, 105, 111, None, 10),
            // Those up to 110 may have drawn 11.
            (3, 110, 112, Some(20), 10),
            (4, 112, 113, None, 12),
            // All are over, but only just.
            (4, 113, 113, None, 12),
            (5, 113, 113, None, 20),
        ] {
            mark.look(&moment(second, xmin, xmax), seen);
            assert_eq!(mark.low(), low, "after {second} s");
        }
        assert_eq!(mark.seen(), 20);
    }
}
