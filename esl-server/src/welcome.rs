//! The first start: a first client, and what to do with it.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Context;
use esl_core::{
    Actor, Client, Clock, OrganizationId, Scopes,
    storage::{Page, Storage, StorageErrorKind},
};

use crate::{config::Config, credentials};

/// If nothing was set up yet, makes an organization with a client, and prints, once, what to do
/// next.
///
/// On the standard output and not in the log, which is kept: the secret is shown here and never
/// again. So it is shown before the client is made, and a start that is cut off between the two
/// leaves it to the next one.
pub(crate) async fn greet(
    storage: &dyn Storage,
    config: &Config,
    address: SocketAddr,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let Some(organization) = first_organization(storage, clock).await? else { return Ok(()) };
    let (client, secret) = Client::generate(None, organization, Scopes::all(), clock.utc());
    let text = text(address, &client.id, secret.expose(), config.allow_private_callbacks);
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("could not print the first client's secret")?;
    storage.create_client(client, &Actor::Operator).await.context("could not make the first client")
}

/// The organization of a first start, made now or at one that was cut off; `None` if this is not a
/// first start.
async fn first_organization(
    storage: &dyn Storage,
    clock: &dyn Clock,
) -> anyhow::Result<Option<OrganizationId>> {
    const READ: &str = "could not read the organizations";
    let organizations = match storage.organizations().await {
        // There are some, and none can be read.
        Err(error) if error.kind() == StorageErrorKind::Corrupt => return Ok(None),
        organizations => organizations.context(READ)?,
    };
    match &organizations[..] {
        [] => {
            let organization = credentials::organization(ORGANIZATION, clock);
            let id = organization.id;
            match storage.create_organization(organization, &Actor::Operator).await {
                Ok(()) => Ok(Some(id)),
                // Another node has its first start at this moment.
                Err(error) if error.kind() == StorageErrorKind::Conflict => Ok(None),
                Err(error) => Err(error).context("could not make the first organization"),
            }
        }
        [only] if only.name == ORGANIZATION => {
            let first = Page { after: None, limit: 1 };
            let clients = storage.clients(only.id, first).await.context(READ)?;
            Ok(clients.items.is_empty().then_some(only.id))
        }
        _ => Ok(None),
    }
}

/// Lines to be pasted into a shell as they are.
fn text(address: SocketAddr, client: &str, secret: &str, allow_private: bool) -> String {
    let base = format!("http://{}", reachable(address));
    let (callback, remark) = if allow_private {
        (
            "http://127.0.0.1:9000/webhooks/sapien",
            "A receiver on this machine, listening on port 9000:",
        )
    } else {
        (
            "https://example.com/webhooks/sapien",
            "Put your own URL in.\n# One on this machine (http://127.0.0.1:…) needs a start with \
             ESL_ALLOW_PRIVATE_CALLBACKS=true.",
        )
    };
    format!(
        r#"
This is the first start, so there is a first client now, in the organization "{ORGANIZATION}".
Its secret is not shown again:

  client_id      {client}
  client_secret  {secret}

What to do next:

# 1. Get a token
ACCESS_TOKEN=$(curl -s -X POST {base}/oauth/token \
  -d "grant_type=client_credentials&client_id={client}&client_secret={secret}" \
  | sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')

# 2. Subscribe. {remark}
curl -X POST {base}/api/v1/subscriptions \
  -H "Authorization: Bearer ${{ACCESS_TOKEN}}" \
  -H "Content-Type: application/json" \
  -d '{{"callback_url":"{callback}","events":["person.*"],"secret":"my-secret-123"}}'

# 3. Make a person, which publishes person.created
curl -X POST {base}/api/persons \
  -H "Authorization: Bearer ${{ACCESS_TOKEN}}" \
  -H "Content-Type: application/json" \
  -d '{{"name":"Ada","email":"ada@example.com"}}'

# Events of your own are published at {base}/api/v1/events.

"#
    )
}

/// Where this machine reaches what is listened on.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

const ORGANIZATION: &str = "default";

#[cfg(test)]
mod tests {
    use esl_core::{MemoryStorage, SystemClock, storage::Tenancy};

    use super::*;

    #[tokio::test]
    async fn only_a_first_start_makes_a_client_and_one_that_was_cut_off_is_made_up_for() {
        let clock = SystemClock::new();
        let storage = MemoryStorage::new();
        let first = async || first_organization(&storage, &clock).await.expect("memory works");
        let made = first().await.expect("nothing was set up");
        assert_eq!(first().await, Some(made), "its client is missing");
        let (client, _) = Client::generate(None, made, Scopes::all(), clock.utc());
        storage.create_client(client, &Actor::Operator).await.expect("a client");
        assert_eq!(first().await, None);

        let storage = MemoryStorage::new();
        let acme = credentials::organization("Acme", &clock);
        storage.create_organization(acme, &Actor::Operator).await.expect("an organization");
        assert_eq!(first_organization(&storage, &clock).await.expect("memory works"), None);
    }

    #[test]
    fn an_address_that_means_all_is_called_on_loopback() {
        for (address, expected) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(reachable(address).to_string(), expected);
        }
    }

    #[test]
    fn a_receiver_on_this_machine_is_offered_only_where_it_is_allowed() {
        let address = "127.0.0.1:8080".parse().expect("an address");
        let public = text(address, "id", "secret", false);
        assert!(public.contains(r#""callback_url":"https://example.com"#), "{public}");
        assert!(public.contains("ESL_ALLOW_PRIVATE_CALLBACKS=true"), "{public}");
        let private = text(address, "id", "secret", true);
        assert!(private.contains(r#""callback_url":"http://127.0.0.1:9000"#), "{private}");
    }
}
