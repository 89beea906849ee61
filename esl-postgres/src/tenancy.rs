//! Organizations, clients and tokens.

use async_trait::async_trait;
use esl_core::{
    Action, Actor, Client, Digest, Hour, Organization, OrganizationId, Plan, Revoked, Rotated,
    Rotation, Token, Usage,
    storage::{Change, Page, PageOf, StorageError, StorageErrorKind, Tenancy},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, audit,
    changes::News,
    clients,
    damage::Place,
    error::{Damage, refused},
    id::Id16,
    parameters::parameters,
    plan::{PLAN, PlanColumns, plan, set_plan},
    rows::{self, strangers_text, time, whole},
    tokens,
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
        organization: OrganizationId,
        plan: Option<Plan>,
        by: &Actor,
    ) -> Result<(), StorageError> {
        set_plan(self, organization, plan, by).await
    }

    async fn usage(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<(Option<Plan>, Usage)>, StorageError> {
        let operation = "read an organization's usage";
        let text = format!(
            "SELECT g.used_hour, g.used_events, esl.now_1($1), {PLAN} FROM esl.organizations g
             WHERE g.id = $2 AND g.deleted_at IS NULL"
        );
        let values = parameters![self.suite_time(), Id16::from(organization)];
        let row = self.database().query_opt(operation, &text, values).await?;
        whole(operation, row.map(|row| usage(&row)).transpose())
    }

    async fn organizations(&self) -> Result<Vec<Organization>, StorageError> {
        organizations(self).await
    }

    async fn create_client(&self, client: Client, by: &Actor) -> Result<(), StorageError> {
        clients::create(self, &client, by).await
    }

    async fn client(&self, id: &str) -> Result<Option<Client>, StorageError> {
        clients::by_id(self, id).await
    }

    async fn client_of(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<Option<Client>, StorageError> {
        clients::of_organization(self, organization, id).await
    }

    async fn clients(
        &self,
        organization: OrganizationId,
        page: Page<String>,
    ) -> Result<PageOf<Client>, StorageError> {
        clients::list(self, organization, page).await
    }

    async fn rotate_client(
        &self,
        organization: OrganizationId,
        id: &str,
        secret: Digest,
        by: &Actor,
    ) -> Result<Client, StorageError> {
        clients::rotate(self, organization, id, secret, by).await
    }

    async fn delete_client(
        &self,
        organization: OrganizationId,
        id: &str,
        by: &Actor,
    ) -> Result<(), StorageError> {
        clients::delete(self, organization, id, by).await
    }

    async fn store_tokens(&self, secret: &Digest, tokens: Vec<Token>) -> Result<(), StorageError> {
        tokens::store(self, secret, &tokens).await
    }

    async fn token(&self, digest: &Digest) -> Result<Option<Token>, StorageError> {
        tokens::read(self, digest).await
    }

    async fn rotate_token(&self, rotation: Rotation) -> Result<Rotated, StorageError> {
        tokens::rotate(self, &rotation).await
    }

    async fn revoke_token(
        &self,
        organization: OrganizationId,
        client: &str,
        digest: &Digest,
    ) -> Result<Revoked, StorageError> {
        tokens::revoke(self, organization, client, digest).await
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

/// All that can be read. If there are some and none can, that is an error: an empty list would say that
/// nothing was set up yet.
async fn organizations(storage: &PostgresStorage) -> Result<Vec<Organization>, StorageError> {
    let operation = "list organizations";
    let text = format!(
        "SELECT g.id, g.name, g.created_at, {PLAN}, g.key FROM esl.organizations g
         WHERE g.deleted_at IS NULL ORDER BY g.key"
    );
    let rows = storage.database().query(operation, &text, &[]).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let key = whole(operation, rows::get(row, 7))?;
        let place = Place::Organization(key, rows::id(row, 0).ok());
        all.extend(storage.damages().readable(place, organization(row)));
    }
    if all.is_empty() && !rows.is_empty() {
        return Err(refused(StorageErrorKind::Corrupt, operation));
    }
    Ok(all)
}

/// Reads `used_hour`, `used_events`, the time and [`PLAN`].
fn usage(row: &Row) -> Result<(Option<Plan>, Usage), Damage> {
    let used = Usage {
        hour: Hour::from_number(rows::get(row, 0)?),
        events: rows::get::<i64>(row, 1)?.cast_unsigned(),
    };
    Ok((plan(row, 3)?, used.at(time(row, 2)?)))
}

/// Reads id, name, `created_at` and [`PLAN`].
fn organization(row: &Row) -> Result<Organization, Damage> {
    Ok(Organization {
        id: rows::id(row, 0)?,
        name: strangers_text(row, 1)?,
        created_at: time(row, 2)?,
        plan: plan(row, 3)?,
    })
}
