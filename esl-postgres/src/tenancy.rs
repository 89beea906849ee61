//! Organizations, clients and tokens.

use async_trait::async_trait;
use esl_core::{
    Action, Actor, Client, Digest, Organization, OrganizationId, Plan, Revoked, Rotated, Rotation,
    Token, Usage,
    storage::{Change, Page, PageOf, StorageError, StorageErrorKind, Tenancy},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, audit,
    changes::News,
    error::Damage,
    id::Id16,
    parameters::parameters,
    plan::{PLAN, PlanColumns, plan},
    rows::{self, strangers_text, time, whole},
};

#[async_trait]
impl Tenancy for PostgresStorage {
    async fn create_organization(
        &self,
        organization: Organization,
        by: &Actor,
    ) -> Result<(), StorageError> {
        create_organization(self, &organization, by).await
    }

    async fn organization(&self, id: OrganizationId) -> Result<Option<Organization>, StorageError> {
        let operation = "read an organization";
        let text = format!(
            "SELECT g.id, g.name, g.created_at, {PLAN} FROM esl.organizations g
             WHERE g.id = $1 AND g.deleted_at IS NULL"
        );
        let row = self.database().query_opt(operation, &text, parameters![Id16::from(id)]).await?;
        whole(operation, row.map(|row| organization(&row)).transpose())
    }

    async fn set_plan(
        &self,
        _organization: OrganizationId,
        _plan: Option<Plan>,
        _by: &Actor,
    ) -> Result<(), StorageError> {
        unimplemented!("a plan is set")
    }

    async fn usage(
        &self,
        _organization: OrganizationId,
    ) -> Result<Option<(Option<Plan>, Usage)>, StorageError> {
        unimplemented!("usage is read")
    }

    async fn organizations(&self) -> Result<Vec<Organization>, StorageError> {
        unimplemented!("organizations are listed")
    }

    async fn create_client(&self, _client: Client, _by: &Actor) -> Result<(), StorageError> {
        unimplemented!("a client is created")
    }

    async fn client(&self, _id: &str) -> Result<Option<Client>, StorageError> {
        unimplemented!("a client is read")
    }

    async fn client_of(
        &self,
        _organization: OrganizationId,
        _id: &str,
    ) -> Result<Option<Client>, StorageError> {
        unimplemented!("a client is read")
    }

    async fn clients(
        &self,
        _organization: OrganizationId,
        _page: Page<String>,
    ) -> Result<PageOf<Client>, StorageError> {
        unimplemented!("clients are listed")
    }

    async fn rotate_client(
        &self,
        _organization: OrganizationId,
        _id: &str,
        _secret: Digest,
        _by: &Actor,
    ) -> Result<Client, StorageError> {
        unimplemented!("a client is rotated")
    }

    async fn delete_client(
        &self,
        _organization: OrganizationId,
        _id: &str,
        _by: &Actor,
    ) -> Result<(), StorageError> {
        unimplemented!("a client is deleted")
    }

    async fn store_tokens(
        &self,
        _secret: &Digest,
        _tokens: Vec<Token>,
    ) -> Result<(), StorageError> {
        unimplemented!("tokens are stored")
    }

    async fn token(&self, _digest: &Digest) -> Result<Option<Token>, StorageError> {
        unimplemented!("a token is read")
    }

    async fn rotate_token(&self, _rotation: Rotation) -> Result<Rotated, StorageError> {
        unimplemented!("a token is rotated")
    }

    async fn revoke_token(
        &self,
        _organization: OrganizationId,
        _client: &str,
        _digest: &Digest,
    ) -> Result<Revoked, StorageError> {
        unimplemented!("a token is revoked")
    }
}

const CREATE_ORGANIZATION: &str = "create an organization";

async fn create_organization(
    storage: &PostgresStorage,
    organization: &Organization,
    by: &Actor,
) -> Result<(), StorageError> {
    let mut lease = storage.database().lease(CREATE_ORGANIZATION).await?;
    let mut session = storage.begin(&mut lease, CREATE_ORGANIZATION).await?;
    let id = Id16::from(organization.id);
    let plan = PlanColumns::of(organization.plan);
    let values = parameters![
        id,
        organization.name.as_bytes(),
        organization.created_at.as_millis(),
        plan.tier,
        plan.subscriptions_max,
        plan.events_per_hour,
        plan.retries,
    ];
    // Nothing is inserted if its id or name is taken, also by one whose transaction is under way: it is
    // waited for.
    if session.execute(INSERT, values).await? == 0 {
        return Err(session.refused(StorageErrorKind::Conflict));
    }
    let subject = organization.id.to_string();
    audit::note(&session, organization.id, by, Action::OrganizationCreated, &subject, &[]).await?;
    session.execute(ANEW, parameters![id]).await?;
    let is_waited_for = session.query_opt(IS_WAITED_FOR, parameters![id]).await?.is_some();
    session.tell_others(News::Tenancy);
    if is_waited_for {
        session.tell_others(News::Intake);
    }
    session.commit().await?;
    if is_waited_for {
        storage.changes().tell(Change::Intake);
    }
    Ok(())
}

const INSERT: &str = "
INSERT INTO esl.organizations
    (id, name, created_at, tier, subscriptions_max, events_per_hour, retries)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING";

const ANEW: &str = "DELETE FROM esl.deleted_organizations WHERE id = $1";

const IS_WAITED_FOR: &str = "SELECT 1 FROM esl.intake WHERE organization = $1 LIMIT 1";

/// Reads id, name, `created_at` and [`PLAN`].
fn organization(row: &Row) -> Result<Organization, Damage> {
    Ok(Organization {
        id: rows::id(row, 0)?,
        name: strangers_text(row, 1)?,
        created_at: time(row, 2)?,
        plan: plan(row, 3)?,
    })
}
