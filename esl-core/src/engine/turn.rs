//! Whose turn it is: round the organizations, and within each round its lanes.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{LaneId, OrganizationId};

/// The lanes that wait for something, each at most once; the caller sees to that.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    organizations: VecDeque<OrganizationId>,
    rows: HashMap<OrganizationId, Row>,
    /// Those that have as much as they may; they are passed over.
    full: HashSet<OrganizationId>,
}

/// The lanes of an organization that wait.
#[derive(Debug, Default)]
struct Row {
    lanes: VecDeque<LaneId>,
    /// Whether the organization is in the round; one that was passed over is not.
    is_listed: bool,
}

impl Turn {
    /// Puts a lane at the end of its organization's row.
    pub(crate) fn push(&mut self, organization: OrganizationId, lane: LaneId) {
        let row = self.rows.entry(organization).or_default();
        row.lanes.push_back(lane);
        if !row.is_listed && !self.full.contains(&organization) {
            row.is_listed = true;
            self.organizations.push_back(organization);
        }
    }

    /// Leaves an organization out until it is let in again.
    pub(crate) fn leave_out(&mut self, organization: OrganizationId) {
        self.full.insert(organization);
    }

    /// Lets an organization take its turns again.
    pub(crate) fn let_in(&mut self, organization: OrganizationId) {
        if self.full.remove(&organization)
            && let Some(row) = self.rows.get_mut(&organization)
            && !row.is_listed
        {
            row.is_listed = true;
            self.organizations.push_back(organization);
        }
    }

    /// Takes the next lane out; its organization goes to the end.
    pub(crate) fn pop(&mut self) -> Option<LaneId> {
        loop {
            let organization = self.organizations.pop_front()?;
            let row = self.rows.get_mut(&organization).expect("a row stands behind every entry");
            if self.full.contains(&organization) {
                row.is_listed = false;
                continue;
            }
            let lane = row.lanes.pop_front().expect("an entry's row is not empty");
            if row.lanes.is_empty() {
                self.rows.remove(&organization);
            } else {
                self.organizations.push_back(organization);
            }
            return Some(lane);
        }
    }

    /// How many lanes of an organization wait.
    pub(crate) fn waiting(&self, organization: OrganizationId) -> usize {
        self.rows.get(&organization).map_or(0, |row| row.lanes.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_that_is_left_out_loses_none_of_its_lanes() {
        let (one, other) =
            (OrganizationId::from_bytes([1; 16]), OrganizationId::from_bytes([2; 16]));
        let mut turn = Turn::default();
        turn.push(one, LaneId::new(1));
        turn.push(other, LaneId::new(9));
        turn.leave_out(one);
        turn.push(one, LaneId::new(2));
        assert_eq!((turn.pop(), turn.pop()), (Some(LaneId::new(9)), None));
        turn.push(one, LaneId::new(3));
        assert_eq!((turn.pop(), turn.waiting(one)), (None, 3));
        turn.let_in(one);
        turn.let_in(other);
        assert_eq!((turn.pop(), turn.pop()), (Some(LaneId::new(1)), Some(LaneId::new(2))));
        turn.leave_out(one);
        turn.let_in(one);
        assert_eq!((turn.pop(), turn.pop()), (Some(LaneId::new(3)), None));
        assert!(turn.is_empty());
    }

    #[test]
    fn an_organization_with_many_lanes_gets_no_more_turns_than_one_with_few() {
        let (many, few) =
            (OrganizationId::from_bytes([1; 16]), OrganizationId::from_bytes([2; 16]));
        let mut turn = Turn::default();
        for lane in 1..=4 {
            turn.push(many, LaneId::new(lane));
        }
        turn.push(few, LaneId::new(9));
        let mut order = vec![];
        for _ in 0..7 {
            let lane = turn.pop().expect("a lane");
            order.push(lane.get());
            turn.push(if lane.get() == 9 { few } else { many }, lane);
        }
        assert_eq!(order, [1, 9, 2, 9, 3, 9, 4]);
    }
}
