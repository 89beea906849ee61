//! Machine-made ids and secrets.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use esl_core::{Client, Clock, Digest, Organization, OrganizationId, Plan, Scopes, Tier};
use ulid::Ulid;

/// A new organization, of the tier that organizations begin with.
pub(crate) fn organization(name: &str, clock: &dyn Clock) -> Organization {
    let id = OrganizationId::from_ulid(ulid(clock));
    Organization::new(id, name, clock.utc()).with_plan(Plan::new(Tier::Standard))
}

/// A new client, and the secret that it is shown with once.
pub(crate) fn client(
    id: Option<String>,
    organization: OrganizationId,
    scopes: Scopes,
    clock: &dyn Clock,
) -> (Client, String) {
    let secret = URL_SAFE_NO_PAD.encode(random::<32>());
    let client = Client {
        id: id.unwrap_or_else(|| format!("client_{}", ulid(clock))),
        organization,
        secret: Digest::of(secret.as_bytes()),
        scopes,
        created_at: clock.utc(),
    };
    (client, secret)
}

fn ulid(clock: &dyn Clock) -> Ulid {
    let random = u128::from_be_bytes(random());
    Ulid::from_parts(clock.utc().as_millis_u64(), random)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bits");
    bytes
}

#[cfg(test)]
mod tests {
    use esl_core::SystemClock;

    use super::*;
    use crate::config;

    #[test]
    fn secrets_have_256_bits_and_are_not_kept() {
        let clock = SystemClock::new();
        let organization = organization("name", &clock);
        let (one, secret) = client(None, organization.id, Scopes::all(), &clock);
        let (other, other_secret) = client(None, organization.id, Scopes::all(), &clock);
        assert_eq!(secret.len(), 43);
        assert!(one.secret.matches(&Digest::of(secret.as_bytes())));
        assert!(one.id != other.id && secret != other_secret);
        assert!(config::is_client_id(&one.id));
    }
}
