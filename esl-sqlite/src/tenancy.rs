//! Organizations, clients and tokens.

use async_trait::async_trait;
use esl_core::{
    Client, Digest, Organization, OrganizationId, Plan, Token, TokenKind, Usage,
    storage::{Change, StorageError, StorageErrorKind, Tenancy},
};
use rusqlite::{OptionalExtension, Row, types::Type};

use crate::{
    SqliteStorage,
    changes::News,
    error::Stop,
    plan::{plan, set_plan, write_plan},
    readers::Snapshot,
    rows::{damaged, parsed, time},
    session::{Session, read_organization},
};

#[async_trait]
impl Tenancy for SqliteStorage {
    async fn create_organization(&self, organization: Organization) -> Result<(), StorageError> {
        let work = move |session: &mut Session<'_>| create_organization(session, &organization);
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
    ) -> Result<(), StorageError> {
        let work = move |session: &mut Session<'_>| match set_plan(session, organization, plan)? {
            true => Ok(()),
            false => Err(Stop::refused(StorageErrorKind::NotFound, SET_PLAN)),
        };
        self.writer().run(SET_PLAN, 1, work).await
    }

    async fn usage(&self, organization: OrganizationId) -> Result<Option<Usage>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let row = read_organization(snapshot.connection, organization)?;
            Ok(row.map(|row| row.usage.at(snapshot.now)))
        };
        self.readers().run("read an organization's usage", work).await
    }

    async fn organizations(&self) -> Result<Vec<Organization>, StorageError> {
        let work = |snapshot: &Snapshot<'_>| {
            let sql = format!("{ORGANIZATION} WHERE deleted_at IS NULL ORDER BY key");
            let mut select = snapshot.connection.prepare_cached(&sql)?;
            let organizations = select.query_map([], organization)?.collect::<Result<_, _>>()?;
            Ok(organizations)
        };
        self.readers().run("list organizations", work).await
    }

    async fn create_client(&self, client: Client) -> Result<(), StorageError> {
        let work = move |session: &mut Session<'_>| create_client(session, &client);
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

    async fn clients(&self, organization: OrganizationId) -> Result<Vec<Client>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let mut select = snapshot.connection.prepare_cached(CLIENTS)?;
            let clients = select.query_map([organization.to_bytes()], client)?;
            Ok(clients.collect::<Result<_, _>>()?)
        };
        self.readers().run("list clients", work).await
    }

    async fn delete_client(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<(), StorageError> {
        let id = id.to_owned();
        let work = move |session: &mut Session<'_>| delete_client(session, organization, &id);
        self.writer().run(DELETE_CLIENT, 1, work).await
    }

    async fn store_tokens(&self, tokens: Vec<Token>) -> Result<(), StorageError> {
        let weight = tokens.len();
        let work = move |session: &mut Session<'_>| store_tokens(session, &tokens);
        self.writer().run(STORE_TOKENS, weight, work).await
    }

    async fn token(&self, digest: &Digest) -> Result<Option<Token>, StorageError> {
        let digest = *digest;
        let work = move |snapshot: &Snapshot<'_>| {
            let mut select = snapshot.connection.prepare_cached(TOKEN)?;
            let parameters = (digest.as_bytes(), snapshot.now.as_millis());
            Ok(select.query_row(parameters, token).optional()?)
        };
        self.readers().run("read a token", work).await
    }
}

const CREATE_ORGANIZATION: &str = "create an organization";
const SET_PLAN: &str = "set a plan";
const CREATE_CLIENT: &str = "create a client";
const DELETE_CLIENT: &str = "delete a client";
const STORE_TOKENS: &str = "store tokens";

fn create_organization(session: &mut Session<'_>, organization: &Organization) -> Result<(), Stop> {
    let connection = session.connection;
    let (id, name) = (organization.id.to_bytes(), &organization.name);
    let is_taken = "SELECT 1 FROM esl_organizations WHERE id = ?1 OR name = ?2";
    if connection.prepare_cached(is_taken)?.exists((id, name))? {
        return Err(Stop::refused(StorageErrorKind::Conflict, CREATE_ORGANIZATION));
    }
    let sql = "INSERT INTO esl_organizations (id, name, created_at) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute((id, name, organization.created_at.as_millis()))?;
    write_plan(connection, organization.id, organization.plan)?;
    let anew = "DELETE FROM esl_deleted_organizations WHERE id = ?1";
    connection.prepare_cached(anew)?.execute([id])?;
    let is_waited_for = "SELECT 1 FROM esl_intake WHERE organization = ?1";
    if connection.prepare_cached(is_waited_for)?.exists([id])? {
        session.effects.changes.push(Change::Intake);
    }
    Ok(session.tell_others(News::Tenancy)?)
}

fn create_client(session: &mut Session<'_>, client: &Client) -> Result<(), Stop> {
    let organization = session.organization(client.organization)?;
    let organization =
        organization.ok_or(Stop::refused(StorageErrorKind::NotFound, CREATE_CLIENT))?;
    let connection = session.connection;
    let is_taken = "SELECT 1 FROM esl_clients WHERE id = ?1";
    if connection.prepare_cached(is_taken)?.exists([&client.id])? {
        return Err(Stop::refused(StorageErrorKind::Conflict, CREATE_CLIENT));
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
    Ok(session.tell_others(News::Tenancy)?)
}

fn delete_client(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: &str,
) -> Result<(), Stop> {
    let not_found = || Stop::refused(StorageErrorKind::NotFound, DELETE_CLIENT);
    let organization = session.organization(organization)?.ok_or_else(not_found)?;
    let sql = "DELETE FROM esl_clients WHERE id = ?1 AND organization = ?2";
    if session.connection.prepare_cached(sql)?.execute((id, organization.key))? == 0 {
        return Err(not_found());
    }
    let tokens = "DELETE FROM esl_tokens WHERE organization = ?1 AND client = ?2";
    session.connection.prepare_cached(tokens)?.execute((organization.key, id))?;
    Ok(session.tell_others(News::Tenancy)?)
}

fn store_tokens(session: &mut Session<'_>, tokens: &[Token]) -> Result<(), Stop> {
    let connection = session.connection;
    let mut organizations = Vec::with_capacity(tokens.len());
    for token in tokens {
        let not_found = || Stop::refused(StorageErrorKind::NotFound, STORE_TOKENS);
        let organization = read_organization(connection, token.organization)?;
        let organization = organization.ok_or_else(not_found)?.key;
        let is_given = "SELECT 1 FROM esl_clients WHERE id = ?1 AND organization = ?2";
        if !connection.prepare_cached(is_given)?.exists((&token.client, organization))? {
            return Err(not_found());
        }
        organizations.push(organization);
    }
    for (token, organization) in tokens.iter().zip(organizations) {
        let sql = "INSERT OR REPLACE INTO esl_tokens
                       (digest, kind, client, organization, scopes, expires_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        connection.prepare_cached(sql)?.execute((
            token.digest.as_bytes(),
            kind_number(token.kind),
            &token.client,
            organization,
            token.scopes.to_string(),
            token.expires_at.as_millis(),
        ))?;
    }
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
    retries FROM esl_organizations";

fn client(row: &Row<'_>) -> rusqlite::Result<Client> {
    Ok(Client {
        id: row.get(0)?,
        organization: OrganizationId::from_bytes(row.get(1)?),
        secret: Digest::from_bytes(row.get(2)?),
        scopes: parsed(row, 3)?,
        created_at: time(row, 4)?,
    })
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        digest: Digest::from_bytes(row.get(0)?),
        kind: kind(row, 1)?,
        client: row.get(2)?,
        organization: OrganizationId::from_bytes(row.get(3)?),
        scopes: parsed(row, 4)?,
        expires_at: time(row, 5)?,
    })
}

/// Numbers are never given anew.
const KINDS: [(u8, TokenKind); 2] = [(1, TokenKind::Access), (2, TokenKind::Refresh)];

fn kind_number(kind: TokenKind) -> u8 {
    let known = KINDS.iter().find(|(_, known)| *known == kind);
    known.expect("every kind has a number").0
}

fn kind(row: &Row<'_>, index: usize) -> rusqlite::Result<TokenKind> {
    let number: u8 = row.get(index)?;
    let known = KINDS.iter().find(|(known, _)| *known == number);
    known.map(|(_, kind)| *kind).ok_or_else(|| damaged(index, Type::Integer, "not a kind of token"))
}

const CLIENT: &str = "
SELECT c.id, o.id, c.secret, c.scopes, c.created_at
FROM esl_clients c JOIN esl_organizations o ON o.key = c.organization
WHERE c.id = ?1";

const CLIENTS: &str = "
SELECT c.id, o.id, c.secret, c.scopes, c.created_at
FROM esl_organizations o JOIN esl_clients c ON c.organization = o.key
WHERE o.id = ?1
ORDER BY c.id";

const TOKEN: &str = "
SELECT t.digest, t.kind, t.client, o.id, t.scopes, t.expires_at
FROM esl_tokens t JOIN esl_organizations o ON o.key = t.organization
WHERE t.digest = ?1 AND t.expires_at > ?2 AND o.deleted_at IS NULL";
