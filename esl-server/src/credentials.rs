//! Machine-made ids.

use esl_core::{Clock, Organization, OrganizationId, Plan, Tier};
use ulid::Ulid;

/// A new organization, of the tier that organizations begin with.
pub(crate) fn organization(name: &str, clock: &dyn Clock) -> Organization {
    let now = clock.utc();
    let id = Ulid::from_parts(now.as_millis_u64(), u128::from_be_bytes(random()));
    let organization = Organization::new(OrganizationId::from_ulid(id), name, now);
    organization.with_plan(Plan::new(Tier::Standard))
}

/// Random bits for an id.
pub(crate) fn random() -> [u8; 16] {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system has random bits");
    random
}
