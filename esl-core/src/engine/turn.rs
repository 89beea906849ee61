//! Whose turn it is: round the organizations, and within each round its lanes.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{LaneId, OrganizationId};

/// The lanes that have something to send, each at most once; the caller sees to that.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    organizations: VecDeque<OrganizationId>,
    lanes: HashMap<OrganizationId, VecDeque<LaneId>>,
    /// Those that have as much under way as they may; they are left out of the round.
    full: HashSet<OrganizationId>,
}

impl Turn {
    /// Puts a lane at the end of its organization's row.
    pub(crate) fn push(&mut self, organization: OrganizationId, lane: LaneId) {
        let row = self.lanes.entry(organization).or_default();
        if row.is_empty() && !self.full.contains(&organization) {
            self.organizations.push_back(organization);
        }
        row.push_back(lane);
    }

    /// Leaves an organization out until it is let in again.
    pub(crate) fn leave_out(&mut self, organization: OrganizationId) {
        if self.full.insert(organization) {
            self.organizations.retain(|other| *other != organization);
        }
    }

    /// Lets an organization take its turns again.
    pub(crate) fn let_in(&mut self, organization: OrganizationId) {
        if self.full.remove(&organization) && self.lanes.contains_key(&organization) {
            self.organizations.push_back(organization);
        }
    }

    /// Takes the next lane out; its organization goes to the end.
    pub(crate) fn pop(&mut self) -> Option<LaneId> {
        let organization = self.organizations.pop_front()?;
        let row = self.lanes.get_mut(&organization).expect("a row stands behind every entry");
        let lane = row.pop_front().expect("an entry's row is not empty");
        if row.is_empty() {
            self.lanes.remove(&organization);
        } else {
            self.organizations.push_back(organization);
        }
        Some(lane)
    }

    pub(crate) fn clear(&mut self) {
        self.organizations.clear();
        self.lanes.clear();
        self.full.clear();
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
        turn.let_in(one);
        turn.let_in(other);
        assert_eq!((turn.pop(), turn.pop()), (Some(LaneId::new(1)), Some(LaneId::new(2))));
        turn.leave_out(one);
        turn.let_in(one);
        assert_eq!(turn.pop(), None);
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
