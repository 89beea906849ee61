//! Which engine is to have what, where several share a storage.
//!
//! Each thing goes to the engine that draws the highest number for it, and the numbers follow from the
//! ids alone. So all agree without a word, and when one comes or goes only its own things move
//! (rendezvous hashing). It is a wish and no ownership: who has a lane is storage's to say.

use crate::{LaneId, OrganizationId, WorkerId};

/// The engines that take lanes, as seen by one of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    own: Option<WorkerId>,
    /// This one included, if it does.
    all: Vec<WorkerId>,
}

impl Peers {
    pub(crate) const fn new(own: WorkerId, all: Vec<WorkerId>) -> Self {
        Self { own: Some(own), all }
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether a lane is to be this engine's.
    pub(crate) fn has_lane(&self, lane: LaneId) -> bool {
        self.has(lane.get())
    }

    /// Whether an organization's fan-outs are to be this engine's.
    pub(crate) fn has_organization(&self, organization: OrganizationId) -> bool {
        let (first, last) = halves(organization.to_bytes());
        self.has(mix(first) ^ last)
    }

    fn has(&self, key: u64) -> bool {
        match (&*self.all, self.own) {
            // The usual case: there is nobody else.
            ([only], own) => own == Some(*only),
            (all, own) => own.is_some() && preferred(key, all) == own,
        }
    }
}

/// Who of them has the highest number for this key.
fn preferred(key: u64, all: &[WorkerId]) -> Option<WorkerId> {
    let number = |worker: &WorkerId| {
        let (first, last) = halves(worker.to_bytes());
        (mix(mix(key ^ first) ^ last), *worker)
    };
    all.iter().map(number).max().map(|(_, worker)| worker)
}

fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let number = u128::from_be_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "each is one half of the bits")]
    let halves = ((number >> 64) as u64, number as u64);
    halves
}

/// SplitMix64: every bit of the result depends on every bit of the argument.
const fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Engines whose ids differ in little, as those that start in one moment.
    fn workers(count: u8) -> Vec<WorkerId> {
        (0..count).map(|number| WorkerId::from_bytes([number; 16])).collect()
    }

    /// How many of ten thousand lanes each has.
    fn lanes(all: &[WorkerId]) -> Vec<Vec<u64>> {
        let peers = all.iter().map(|own| Peers::new(*own, all.to_vec()));
        let of =
            |peers: Peers| (0..10_000).filter(|lane| peers.has_lane(LaneId::new(*lane))).collect();
        peers.map(of).collect()
    }

    #[test]
    fn each_lane_is_one_engines_and_all_have_about_as_many() {
        for count in 1..6 {
            let shares = lanes(&workers(count));
            assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), 10_000);
            let fair = 10_000 / usize::from(count);
            assert!(shares.iter().all(|share| share.len().abs_diff(fair) < fair / 5), "{count}");
        }
    }

    #[test]
    fn one_that_comes_takes_its_share_and_moves_nothing_else() {
        let (before, after) = (lanes(&workers(3)), lanes(&workers(4)));
        for (before, after) in before.iter().zip(&after) {
            assert!(after.iter().all(|lane| before.contains(lane)));
        }
    }

    #[test]
    fn whoever_takes_no_lanes_has_none() {
        let [own, other] = workers(2)[..] else { panic!("two") };
        let organization = OrganizationId::from_bytes([9; 16]);
        for peers in [Peers::default(), Peers::new(own, vec![]), Peers::new(own, vec![other])] {
            assert!(!peers.has_lane(LaneId::new(1)) && !peers.has_organization(organization));
        }
        assert!(Peers::new(own, vec![own]).has_lane(LaneId::new(1)));
    }
}
