//! The client that `ESL_BOOTSTRAP_CLIENT` names: there when the server has started.

use anyhow::{Context, bail};
use esl_core::{
    Actor, Client, Clock, Scopes,
    storage::{Storage, StorageError, StorageErrorKind},
};

use crate::{config::BootstrapClient, credentials};

/// What there was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bootstrapped {
    Made,
    WasThere,
}

/// Makes the client with every scope, in an organization named like it; does nothing if it is there.
///
/// A start that was cut off between the two leaves the organization, which the next one uses.
pub(crate) async fn ensure(
    storage: &dyn Storage,
    wanted: &BootstrapClient,
    clock: &dyn Clock,
) -> anyhow::Result<Bootstrapped> {
    if let Some(was_there) = look(storage, wanted).await? {
        return Ok(was_there);
    }
    let organization = credentials::organization(&wanted.id, clock);
    allow_conflict(storage.create_organization(organization, &Actor::Operator).await)?;
    let organizations = storage.organizations().await.context(READ)?;
    let organization =
        organizations.into_iter().find(|organization| organization.name == wanted.id).context(
            "the organization of ESL_BOOTSTRAP_CLIENT cannot be read, or was removed meanwhile",
        )?;
    let client = Client {
        id: wanted.id.clone(),
        organization: organization.id,
        secret: wanted.secret,
        scopes: Scopes::all(),
        created_at: clock.utc(),
    };
    // A conflict: somebody else has made it meanwhile.
    allow_conflict(storage.create_client(client, &Actor::Operator).await)?;
    let client = look_up(storage, wanted).await?.context("it was removed meanwhile")?;
    accept(&client, wanted)?;
    Ok(Bootstrapped::Made)
}

/// Whether the client is there; fails if it is there with another secret.
pub(crate) async fn look(
    storage: &dyn Storage,
    wanted: &BootstrapClient,
) -> anyhow::Result<Option<Bootstrapped>> {
    let client = look_up(storage, wanted).await?;
    client.map(|client| accept(&client, wanted)).transpose()
}

async fn look_up(
    storage: &dyn Storage,
    wanted: &BootstrapClient,
) -> anyhow::Result<Option<Client>> {
    storage.client(&wanted.id).await.context(READ)
}

fn accept(client: &Client, wanted: &BootstrapClient) -> anyhow::Result<Bootstrapped> {
    if client.secret.matches(&wanted.secret) {
        return Ok(Bootstrapped::WasThere);
    }
    bail!(
        "ESL_BOOTSTRAP_CLIENT names the client {id}, which is there with another secret; give that \
         one, or remove the client first: esl-server client delete --org {organization} {id}",
        id = client.id,
        organization = client.organization
    )
}

fn allow_conflict(result: Result<(), StorageError>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == StorageErrorKind::Conflict => Ok(()),
        result => result.context("could not make the client of ESL_BOOTSTRAP_CLIENT"),
    }
}

const READ: &str = "could not look for the client of ESL_BOOTSTRAP_CLIENT";

#[cfg(test)]
mod tests {
    use esl_core::{Digest, MemoryStorage, SystemClock, storage::Tenancy};

    use super::*;

    fn wanted(secret: &str) -> BootstrapClient {
        BootstrapClient { id: "shop".into(), secret: Digest::of(secret.as_bytes()) }
    }

    #[tokio::test]
    async fn it_is_made_once_and_refused_with_another_secret() {
        let clock = SystemClock::new();
        let storage = MemoryStorage::new();
        let made = ensure(&storage, &wanted("a"), &clock).await.expect("it is made");
        assert_eq!(made, Bootstrapped::Made);
        let again = ensure(&storage, &wanted("a"), &clock).await.expect("it is there");
        assert_eq!(again, Bootstrapped::WasThere);
        assert_eq!(storage.organizations().await.expect("organizations").len(), 1);
        let error = ensure(&storage, &wanted("b"), &clock).await.expect_err("another secret");
        assert!(error.to_string().contains("ESL_BOOTSTRAP_CLIENT"), "{error}");
    }

    #[tokio::test]
    async fn a_start_that_was_cut_off_half_way_is_completed() {
        let clock = SystemClock::new();
        let storage = MemoryStorage::new();
        let organization = credentials::organization("shop", &clock);
        storage
            .create_organization(organization.clone(), &Actor::Operator)
            .await
            .expect("an organization");
        ensure(&storage, &wanted("a"), &clock).await.expect("it is made");
        let client = storage.client("shop").await.expect("a read").expect("a client");
        assert_eq!(client.organization, organization.id);
        assert_eq!(client.scopes, Scopes::all());
    }
}
