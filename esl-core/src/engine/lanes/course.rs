//! Whether lanes may take what this engine commits for them straight, without a look at storage.
//!
//! They may while storage can have nothing below it that they have not heard of. Other engines bring
//! such deliveries about in two ways. By **commits**: these leave a gap in the seqs. And by **slices** of
//! fan-outs, also of events that this engine has published: these leave none. But slices are made in one
//! order, and storage refuses one that is not next. So whoever knows which fan-outs there are, and finds
//! each slice of its own beginning where its last one ended, knows that nobody else has made any.

use std::collections::VecDeque;

use crate::{LaneId, Seq, storage::Expand};

/// How an event comes to be owed to its lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owed<'a> {
    /// To these, with its commit: no fan-out of the organization was open.
    Now(&'a [LaneId]),
    /// In slices, later.
    InSlices,
    /// To one alone and out of the order of seqs, or to nobody.
    Aside,
}

/// Who has to look in storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Nobody,
    /// The lanes of the slice.
    Its,
    /// Every lane of the organization.
    All,
}

/// What this engine knows of what its organization's lanes are given.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// The last of a row of commits without a gap, all of them ours; `None` if others may have committed
    /// since.
    seen: Option<Seq>,
    /// Whether the lanes have looked since the last slice of others, or of a fan-out from before that row.
    is_whole: bool,
    /// The fan-outs of that row that we have not expanded, as first and last of stretches.
    fan_outs: VecDeque<(Seq, Seq)>,
    /// Where we have left the first of them, if we have begun it.
    left_at: Option<LaneId>,
}

impl Course {
    /// An event was committed by this engine. True if the lanes have to look.
    pub(super) fn committed(&mut self, seq: Seq, owed: Owed<'_>) -> bool {
        let follows = self.seen.is_some_and(|seen| seen.next() == seq);
        let is_now = matches!(owed, Owed::Now(lanes) if !lanes.is_empty());
        // What is owed at once shows that no fan-out is open: one that we have not expanded, others have.
        let has_all = !is_now || (self.is_whole && self.fan_outs.is_empty());
        let is_straight = follows && has_all;
        if !is_straight {
            *self = Self { is_whole: is_now, ..Self::default() };
        }
        self.seen = Some(seq);
        if matches!(owed, Owed::InSlices) {
            self.add(seq);
        }
        !is_straight
    }

    /// A slice was committed by this engine.
    pub(super) fn expanded(&mut self, slice: &Expand) -> Look {
        let by_others = self.drop_before(slice.seq);
        let is_known = self.fan_outs.front().is_some_and(|(first, _)| *first == slice.seq);
        let left_at = self.left_at.unwrap_or(LaneId::new(0));
        let is_next = self.is_whole && !by_others && slice.after == left_at;
        self.is_whole = is_known;
        if !is_known {
            return Look::Its;
        }
        self.left_at = slice.next;
        if slice.next.is_none() {
            self.drop_before(slice.seq.next());
        }
        // All that comes before the slice is in storage by now, and so is found.
        if is_next { Look::Nobody } else { Look::All }
    }

    fn add(&mut self, seq: Seq) {
        match self.fan_outs.back_mut() {
            Some((_, last)) if last.next() == seq => *last = seq,
            Some(_) | None => self.fan_outs.push_back((seq, seq)),
        }
        if self.fan_outs.len() > STRETCHES_MAX {
            self.fan_outs.clear();
            self.is_whole = false;
        }
    }

    /// Drops the fan-outs before this one; true if there were some.
    fn drop_before(&mut self, seq: Seq) -> bool {
        let mut dropped = false;
        while let Some((first, last)) = self.fan_outs.front_mut().filter(|(first, _)| *first < seq)
        {
            dropped = true;
            if *last < seq {
                self.fan_outs.pop_front();
            } else {
                *first = seq;
            }
        }
        if dropped {
            self.left_at = None;
        }
        dropped
    }
}

/// So much is remembered of fan-outs that wait; with more of them the lanes look once more than they
/// need to.
const STRETCHES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OrganizationId, storage::RouteVersion};

    const LANES: &[LaneId] = &[LaneId::new(1)];
    const NOW: Owed<'_> = Owed::Now(LANES);

    fn slice(seq: u64, after: u64, next: Option<u64>) -> Expand {
        Expand {
            organization: OrganizationId::from_bytes([1; 16]),
            seq: Seq::new(seq),
            route_version: RouteVersion(1),
            after: LaneId::new(after),
            lanes: LANES.into(),
            next: next.map(LaneId::new),
        }
    }

    /// A course that has committed these, from 1 on.
    fn course(owed: &[Owed<'_>]) -> Course {
        let mut course = Course::default();
        for (seq, owed) in (1..).zip(owed) {
            course.committed(Seq::new(seq), *owed);
        }
        course
    }

    #[test]
    fn a_row_of_own_commits_needs_no_look() {
        let mut course = course(&[NOW]);
        for seq in 2..5 {
            assert!(!course.committed(Seq::new(seq), NOW));
        }
        assert!(course.committed(Seq::new(6), NOW), "another engine has 5");
        assert!(!course.committed(Seq::new(7), NOW));
    }

    #[test]
    fn own_slices_one_after_the_other_need_no_look() {
        let mut course =
            course(&[NOW, Owed::InSlices, Owed::Aside, Owed::InSlices, Owed::InSlices]);
        let slices = [
            slice(2, 0, Some(250)),
            slice(2, 250, Some(500)),
            slice(2, 500, None),
            slice(4, 0, None),
            slice(5, 0, None),
        ];
        for slice in slices {
            assert_eq!(course.expanded(&slice), Look::Nobody, "{slice:?}");
        }
        assert!(!course.committed(Seq::new(6), NOW));
    }

    #[test]
    fn what_others_have_expanded_is_looked_for() {
        let begun = [NOW, Owed::InSlices, Owed::InSlices];
        // All of it, as a commit shows.
        assert!(course(&begun).committed(Seq::new(4), NOW));
        // The first fan-out, the beginning of one, a part in the middle, the end.
        let cases: [&[Expand]; 4] = [
            &[slice(3, 0, None)],
            &[slice(2, 9, None)],
            &[slice(2, 0, Some(9)), slice(2, 18, Some(27))],
            &[slice(2, 0, Some(9)), slice(3, 0, None)],
        ];
        for slices in cases {
            let mut course = course(&begun);
            let looks: Vec<Look> = slices.iter().map(|slice| course.expanded(slice)).collect();
            assert_eq!(looks.last(), Some(&Look::All), "{slices:?}");
        }
        let mut course = course(&begun);
        course.expanded(&slice(2, 0, None));
        assert!(course.committed(Seq::new(4), NOW), "the second was not ours");
    }

    #[test]
    fn after_a_look_own_slices_need_none() {
        let mut course = course(&[NOW, Owed::InSlices, Owed::InSlices]);
        assert_eq!(course.expanded(&slice(2, 9, Some(18))), Look::All);
        assert_eq!(course.expanded(&slice(2, 18, None)), Look::Nobody);
        assert_eq!(course.expanded(&slice(3, 0, None)), Look::Nobody);
        assert!(!course.committed(Seq::new(4), NOW));
    }

    #[test]
    fn of_fan_outs_from_before_each_lane_looks() {
        let mut course = Course::default();
        assert_eq!(course.expanded(&slice(1, 0, None)), Look::Its);
        // It follows nothing, and what is before it may still be open.
        assert!(course.committed(Seq::new(4), Owed::InSlices));
        assert_eq!(course.expanded(&slice(2, 0, None)), Look::Its);
        assert_eq!(course.expanded(&slice(4, 0, None)), Look::All);
        assert!(!course.committed(Seq::new(5), NOW));
    }

    #[test]
    fn fan_outs_that_nobody_has_counted_are_looked_for() {
        let mut course = course(&[NOW]);
        for seq in 1..=STRETCHES_MAX as u64 + 1 {
            course.committed(Seq::new(2 * seq), Owed::InSlices);
            course.committed(Seq::new(2 * seq + 1), Owed::Aside);
        }
        assert_eq!(course.expanded(&slice(2, 0, None)), Look::Its);
        assert!(course.committed(Seq::new(2 * STRETCHES_MAX as u64 + 4), NOW));
    }
}
