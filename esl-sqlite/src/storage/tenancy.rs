//! Organizations, clients and tokens.

use async_trait::async_trait;
use esl_core::{
    Action, Actor, Client, Digest, Organization, OrganizationId, Plan, Revoked, Rotated, Rotation,
    Token, Usage,
    storage::{Change, Page, PageOf, StorageError, StorageErrorKind, Tenancy},
};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::storage::{
    SqliteStorage, audit,
    changes::News,
    damage::Place,
    error::Stop,
    plan::{SET_PLAN, plan, read_plan, set_plan, write_plan},
    readers::Snapshot,
    rows::{parsed, time},
    session::{Session, read_organization},
    subscriptions::page_of,
    tokens,
};

#[async_trait]
impl Tenancy for SqliteStorage {
    async fn create_organization(
        &self,
        organization: Organization,
        by: &Actor,
    ) -> Result<(), StorageError> {
        let by = by.clone();
        let work =
            move |session: &mut Session<'_>| create_organization(session, &organization, &by);
        self.writer().run(CREATE_ORGANIZATION, 1, work).await
    }

    async fn organization(&self, id: OrganizationId) -> Result<Option<Organization>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let sql = format!("{ORGANIZATION} WHERE id = ?1");
            let mut select = snapshot.connection.prepare_cached(&sql)?;
            Ok(select.query_row([id.to_bytes()], organization).optional()?)
        };
        self.readers().run("read an organization", work).await
    }

    async fn set_plan(
        &self,
        organization: OrganizationId,
        plan: Option<Plan>,
        by: &Actor,
    ) -> Result<(), StorageError> {
        let by = by.clone();
        let work = move |session: &mut Session<'_>| set_plan(session, organization, plan, &by);
        self.writer().run(SET_PLAN, 1, work).await
    }

    async fn usage(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<(Option<Plan>, Usage)>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let connection = snapshot.connection;
            let Some(row) = read_organization(connection, organization)? else { return Ok(None) };
            Ok(Some((read_plan(connection, row.key)?, row.usage.at(snapshot.now))))
        };
        self.readers().run("read an organization's usage", work).await
    }

    async fn organizations(&self) -> Result<Vec<Organization>, StorageError> {
        self.readers().run(LIST_ORGANIZATIONS, organizations).await
    }

    async fn create_client(&self, client: Client, by: &Actor) -> Result<(), StorageError> {
        let by = by.clone();
        let work = move |session: &mut Session<'_>| create_client(session, &client, &by);
        self.writer().run(CREATE_CLIENT, 1, work).await
    }

    async fn client(&self, id: &str) -> Result<Option<Client>, StorageError> {
        let id = id.to_owned();
        let work = move |snapshot: &Snapshot<'_>| {
            let mut select = snapshot.connection.prepare_cached(CLIENT)?;
            Ok(select.query_row([&id], client).optional()?)
        };
        self.readers().run("read a client", work).await
    }

    async fn client_of(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<Option<Client>, StorageError> {
        let id = id.to_owned();
        let work =
            move |snapshot: &Snapshot<'_>| Ok(client_of(snapshot.connection, organization, &id)?);
        self.readers().run("read a client", work).await
    }

    async fn clients(
        &self,
        organization: OrganizationId,
        page: Page<String>,
    ) -> Result<PageOf<Client>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let mut select = snapshot.connection.prepare_cached(CLIENTS)?;
            // Before the first comes the empty id, which is none.
            let after = page.after.unwrap_or_default();
            let rows = select.query((organization.to_bytes(), after))?;
            Ok(page_of(rows, page.limit, |row| client(row).map(Some))?)
        };
        self.readers().run("list clients", work).await
    }

    async fn rotate_client(
        &self,
        organization: OrganizationId,
        id: &str,
        secret: Digest,
        by: &Actor,
    ) -> Result<Client, StorageError> {
        let (id, by) = (id.to_owned(), by.clone());
        let work =
            move |session: &mut Session<'_>| rotate_client(session, organization, &id, secret, &by);
        self.writer().run(ROTATE_CLIENT, 1, work).await
    }

    async fn delete_client(
        &self,
        organization: OrganizationId,
        id: &str,
        by: &Actor,
    ) -> Result<(), StorageError> {
        let (id, by) = (id.to_owned(), by.clone());
        let work = move |session: &mut Session<'_>| delete_client(session, organization, &id, &by);
        self.writer().run(DELETE_CLIENT, 1, work).await
    }

    async fn store_tokens(&self, secret: &Digest, tokens: Vec<Token>) -> Result<(), StorageError> {
        let (secret, weight) = (*secret, tokens.len());
        let work = move |session: &mut Session<'_>| tokens::store(session, &secret, &tokens);
        self.writer().run(tokens::STORE, weight, work).await
    }

    async fn token(&self, digest: &Digest) -> Result<Option<Token>, StorageError> {
        let digest = *digest;
        let work = move |snapshot: &Snapshot<'_>| {
            let found = tokens::find(snapshot.connection, &digest, snapshot.now)?;
            Ok(found.filter(|found| !found.is_used).map(|found| found.token))
        };
        self.readers().run("read a token", work).await
    }

    async fn rotate_token(&self, rotation: Rotation) -> Result<Rotated, StorageError> {
        let work = move |session: &mut Session<'_>| tokens::rotate(session, &rotation);
        self.writer().run(tokens::ROTATE, 1, work).await
    }

    async fn revoke_token(
        &self,
        organization: OrganizationId,
        client: &str,
        digest: &Digest,
    ) -> Result<Revoked, StorageError> {
        let (client, digest) = (client.to_owned(), *digest);
        let work = move |session: &mut Session<'_>| {
            tokens::revoke(session, organization, &client, &digest)
        };
        self.writer().run(tokens::REVOKE, 1, work).await
    }
}

/// All that can be read. If there are some and none can, that is an error: an empty list would say that
/// nothing was set up yet.
fn organizations(snapshot: &Snapshot<'_>) -> Result<Vec<Organization>, Stop> {
    let sql = format!("{ORGANIZATION} WHERE deleted_at IS NULL ORDER BY key");
    let mut select = snapshot.connection.prepare_cached(&sql)?;
    let mut rows = select.query([])?;
    let (mut all, mut left_out) = (Vec::new(), false);
    while let Some(row) = rows.next()? {
        let id = row.get(0).ok().map(OrganizationId::from_bytes);
        let place = Place::Organization(row.get(7)?, id);
        match snapshot.readable(place, organization(row))? {
            Some(organization) => all.push(organization),
            None => left_out = true,
        }
    }
    if left_out && all.is_empty() {
        return Err(Stop::refused(StorageErrorKind::Corrupt, LIST_ORGANIZATIONS));
    }
    Ok(all)
}

const LIST_ORGANIZATIONS: &str = "list organizations";
const CREATE_ORGANIZATION: &str = "create an organization";
const CREATE_CLIENT: &str = "create a client";
const ROTATE_CLIENT: &str = "rotate a client";
const DELETE_CLIENT: &str = "delete a client";

fn create_organization(
    session: &mut Session<'_>,
    organization: &Organization,
    by: &Actor,
) -> Result<(), Stop> {
    let connection = session.connection;
    let (id, name) = (organization.id.to_bytes(), &organization.name);
    let is_taken = "SELECT 1 FROM esl_organizations WHERE id = ?1 OR name = ?2";
    if connection.prepare_cached(is_taken)?.exists((id, name))? {
        return Err(Stop::refused(StorageErrorKind::Conflict, CREATE_ORGANIZATION));
    }
    let sql = "INSERT INTO esl_organizations (id, name, created_at) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute((id, name, organization.created_at.as_millis()))?;
    write_plan(connection, organization.id, organization.plan)?;
    let subject = organization.id.to_string();
    audit::note(session, organization.id, by, Action::OrganizationCreated, &subject, &[])?;
    let anew = "DELETE FROM esl_deleted_organizations WHERE id = ?1";
    connection.prepare_cached(anew)?.execute([id])?;
    let is_waited_for = "SELECT 1 FROM esl_intake WHERE organization = ?1";
    if connection.prepare_cached(is_waited_for)?.exists([id])? {
        session.effects.changes.push(Change::Intake);
    }
    Ok(session.tell_others(News::Tenancy)?)
}

fn create_client(session: &mut Session<'_>, client: &Client, by: &Actor) -> Result<(), Stop> {
    let organization = session.organization(client.organization)?;
    let organization =
        organization.ok_or(Stop::refused(StorageErrorKind::NotFound, CREATE_CLIENT))?;
    let connection = session.connection;
    let is_taken = "SELECT 1 FROM esl_clients WHERE id = ?1";
    if connection.prepare_cached(is_taken)?.exists([&client.id])? {
        return Err(Stop::refused(StorageErrorKind::Conflict, CREATE_CLIENT));
    }
    let count = "SELECT count(*) FROM esl_clients WHERE organization = ?1";
    let count: i64 =
        connection.prepare_cached(count)?.query_row([organization.key], |row| row.get(0))?;
    if count.cast_unsigned() >= Client::PER_ORGANIZATION_MAX as u64 {
        return Err(Stop::refused(StorageErrorKind::OverLimit, CREATE_CLIENT));
    }
    let sql = "INSERT INTO esl_clients (id, organization, secret, scopes, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(sql)?.execute((
        &client.id,
        organization.key,
        client.secret.as_bytes(),
        client.scopes.to_string(),
        client.created_at.as_millis(),
    ))?;
    audit::note(session, client.organization, by, Action::ClientCreated, &client.id, &[])?;
    Ok(session.tell_others(News::Tenancy)?)
}

fn rotate_client(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: &str,
    secret: Digest,
    by: &Actor,
) -> Result<Client, Stop> {
    let not_found = || Stop::refused(StorageErrorKind::NotFound, ROTATE_CLIENT);
    let key = session.organization(organization)?.ok_or_else(not_found)?.key;
    let connection = session.connection;
    let sql = "UPDATE esl_clients SET secret = ?3 WHERE id = ?1 AND organization = ?2";
    if connection.prepare_cached(sql)?.execute((id, key, secret.as_bytes()))? == 0 {
        return Err(not_found());
    }
    tokens::remove_of(connection, key, id)?;
    let rotated = client_of(connection, organization, id)?.ok_or_else(not_found)?;
    audit::note(session, organization, by, Action::ClientSecretRotated, id, &[])?;
    session.tell_others(News::Tenancy)?;
    Ok(rotated)
}

fn delete_client(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: &str,
    by: &Actor,
) -> Result<(), Stop> {
    let not_found = || Stop::refused(StorageErrorKind::NotFound, DELETE_CLIENT);
    let row = session.organization(organization)?.ok_or_else(not_found)?;
    let sql = "DELETE FROM esl_clients WHERE id = ?1 AND organization = ?2";
    if session.connection.prepare_cached(sql)?.execute((id, row.key))? == 0 {
        return Err(not_found());
    }
    tokens::remove_of(session.connection, row.key, id)?;
    audit::note(session, organization, by, Action::ClientDeleted, id, &[])?;
    Ok(session.tell_others(News::Tenancy)?)
}

fn organization(row: &Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: OrganizationId::from_bytes(row.get(0)?),
        name: row.get(1)?,
        created_at: time(row, 2)?,
        plan: plan(row, 3)?,
    })
}

const ORGANIZATION: &str = "SELECT id, name, created_at, tier, subscriptions_max, events_per_hour,
    retries, key FROM esl_organizations";

fn client_of(
    connection: &Connection,
    organization: OrganizationId,
    id: &str,
) -> rusqlite::Result<Option<Client>> {
    let mut select = connection.prepare_cached(CLIENT_OF)?;
    select.query_row((id, organization.to_bytes()), client).optional()
}

fn client(row: &Row<'_>) -> rusqlite::Result<Client> {
    Ok(Client {
        id: row.get(0)?,
        organization: OrganizationId::from_bytes(row.get(1)?),
        secret: Digest::from_bytes(row.get(2)?),
        scopes: parsed(row, 3)?,
        created_at: time(row, 4)?,
    })
}

const CLIENT: &str = "
SELECT c.id, o.id, c.secret, c.scopes, c.created_at
FROM esl_clients c JOIN esl_organizations o ON o.key = c.organization
WHERE c.id = ?1";

const CLIENT_OF: &str = "
SELECT c.id, o.id, c.secret, c.scopes, c.created_at
FROM esl_clients c JOIN esl_organizations o ON o.key = c.organization
WHERE c.id = ?1 AND o.id = ?2";

const CLIENTS: &str = "
SELECT c.id, o.id, c.secret, c.scopes, c.created_at
FROM esl_organizations o JOIN esl_clients c ON c.organization = o.key
WHERE o.id = ?1 AND c.id > ?2
ORDER BY c.id";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn a_page_of_clients_is_found_by_search_and_needs_no_sorting() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let steps = [
            "SEARCH o USING COVERING INDEX sqlite_autoindex_esl_organizations_1 (id=?)",
            "SEARCH c USING INDEX esl_clients_by_organization (organization=? AND id>?)",
        ];
        assert_plan(&connection, CLIENTS, &steps);
    }
}
