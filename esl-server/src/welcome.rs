//! The first start: a first client, and what to do with it.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Context;
use esl_core::{Clock, Scopes, storage::Storage};

use crate::{config::Config, credentials};

/// If there is no organization yet, makes one with a client, and prints, once, what to do next.
///
/// On the standard output and not in the log, which is kept: the secret is shown here and never
/// again.
pub(crate) async fn greet(
    storage: &dyn Storage,
    config: &Config,
    address: SocketAddr,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    if !storage.organizations().await.context("could not list the organizations")?.is_empty() {
        return Ok(());
    }
    let organization = credentials::organization(ORGANIZATION, clock);
    let id = organization.id;
    storage.create_organization(organization).await.context("could not make an organization")?;
    let (client, secret) = credentials::client(None, id, Scopes::all(), clock);
    let text = text(address, &client.id, &secret, config.allow_private_callbacks);
    storage.create_client(client).await.context("could not make a client")?;
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("could not print the first client's secret")
}

/// Lines to be pasted into a shell as they are.
fn text(address: SocketAddr, client: &str, secret: &str, allow_private: bool) -> String {
    let base = format!("http://{}", reachable(address));
    let (callback, remark) = if allow_private {
        ("http://127.0.0.1:9000/webhooks", "A receiver on this machine, listening on port 9000:")
    } else {
        (
            "https://example.com/webhooks",
            "Put your own URL in. One on this machine (http://127.0.0.1:…) is accepted only after \
             a start\n# with ESL_ALLOW_PRIVATE_CALLBACKS=true.",
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

# 3. Publish
curl -X POST {base}/api/v1/events \
  -H "Authorization: Bearer ${{ACCESS_TOKEN}}" \
  -H "Content-Type: application/json" \
  -d '{{"type":"person.updated","data":{{"id":"person_1","name":"Ada"}}}}'

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
    use super::*;

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
