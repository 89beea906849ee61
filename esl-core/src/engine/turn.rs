//! Whose turn it is: round the organizations, and within each round its lanes.

use std::collections::{HashMap, VecDeque};

use crate::{LaneId, OrganizationId};

/// The lanes that have something to send, each at most once; the caller sees to that.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    organizations: VecDeque<OrganizationId>,
    lanes: HashMap<OrganizationId, VecDeque<LaneId>>,
}

impl Turn {
    /// Puts a lane at the end of its organization's row.
    pub(crate) fn push(&mut self, organization: OrganizationId, lane: LaneId) {
        let row = self.lanes.entry(organization).or_default();
        if row.is_empty() {
            self.organizations.push_back(organization);
        }
        row.push_back(lane);
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
