//! Clients: the programs that act for organizations.
//!
//! Whoever changes one holds its row, and then touches its tokens: whoever gives tokens out or trades them
//! holds that row, too, so that none of a secret that is over comes to be.

use esl_core::{
    Action, Actor, Client, Digest, OrganizationId,
    storage::{Page, PageOf, StorageError, StorageErrorKind},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, audit,
    changes::News,
    error::Damage,
    id::Id16,
    pages::PageReader,
    parameters::parameters,
    rows::{self, get, parsed, strangers_text, time, whole},
    session::Session,
};

const CREATE: &str = "create a client";
const READ: &str = "read a client";
const ROTATE: &str = "rotate a client";
const DELETE: &str = "delete a client";

pub(crate) async fn create(
    storage: &PostgresStorage,
    client: &Client,
    by: &Actor,
) -> Result<(), StorageError> {
    let mut lease = storage.database().lease(CREATE).await?;
    let mut session = storage.begin(&mut lease, CREATE).await?;
    let organization = session.organization(client.organization).await?;
    let values = parameters![
        client.id.as_bytes(),
        organization.key,
        &client.secret.as_bytes()[..],
        client.scopes.to_string(),
        client.created_at.as_millis(),
    ];
    // Nothing is inserted if its id is taken, also by one whose transaction is under way: it is waited for.
    if session.execute(INSERT, values).await? == 0 {
        return Err(session.refused(StorageErrorKind::Conflict));
    }
    let row = session.query_one(COUNT, parameters![organization.key]).await?;
    let count = whole(CREATE, get::<i64>(&row, 0))?;
    if count.cast_unsigned() > Client::PER_ORGANIZATION_MAX as u64 {
        return Err(session.refused(StorageErrorKind::OverLimit));
    }
    finish(session, client.organization, by, Action::ClientCreated, &client.id).await
}

const INSERT: &str = "
INSERT INTO esl.clients (id, organization, secret, scopes, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO NOTHING";

const COUNT: &str = "SELECT count(*) FROM esl.clients WHERE organization = $1";

pub(crate) async fn by_id(
    storage: &PostgresStorage,
    id: &str,
) -> Result<Option<Client>, StorageError> {
    let row = storage.database().query_opt(READ, BY_ID, parameters![id.as_bytes()]).await?;
    whole(READ, row.map(|row| client(&row)).transpose())
}

pub(crate) async fn of_organization(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: &str,
) -> Result<Option<Client>, StorageError> {
    let values = parameters![id.as_bytes(), Id16::from(organization)];
    let row = storage.database().query_opt(READ, OF_ORGANIZATION, values).await?;
    whole(READ, row.map(|row| client(&row)).transpose())
}

pub(crate) async fn list(
    storage: &PostgresStorage,
    organization: OrganizationId,
    page: Page<String>,
) -> Result<PageOf<Client>, StorageError> {
    let operation = "list clients";
    // Before the first comes the empty id, which is none.
    let after = page.after.unwrap_or_default();
    let mut reader = PageReader::new(page.limit);
    let values = parameters![Id16::from(organization), after.as_bytes(), reader.ask()];
    for row in storage.database().query(operation, LIST, values).await? {
        reader.take(Some(whole(operation, client(&row))?));
    }
    Ok(reader.into_page())
}

/// Gives a client another secret, and removes its tokens.
pub(crate) async fn rotate(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: &str,
    secret: Digest,
    by: &Actor,
) -> Result<Client, StorageError> {
    let mut lease = storage.database().lease(ROTATE).await?;
    let mut session = storage.begin(&mut lease, ROTATE).await?;
    let key = session.organization(organization).await?.key;
    let values = parameters![id.as_bytes(), key, &secret.as_bytes()[..], Id16::from(organization)];
    let row = session.query_opt(SET_SECRET, values).await?;
    let row = row.ok_or_else(|| session.refused(StorageErrorKind::NotFound))?;
    let rotated = whole(ROTATE, client(&row))?;
    session.execute(REMOVE_TOKENS, parameters![key, id.as_bytes()]).await?;
    finish(session, organization, by, Action::ClientSecretRotated, id).await?;
    Ok(rotated)
}

const SET_SECRET: &str = "
UPDATE esl.clients SET secret = $3 WHERE id = $1 AND organization = $2
RETURNING id, $4, secret, scopes, created_at";

pub(crate) async fn delete(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: &str,
    by: &Actor,
) -> Result<(), StorageError> {
    let mut lease = storage.database().lease(DELETE).await?;
    let mut session = storage.begin(&mut lease, DELETE).await?;
    let key = session.organization(organization).await?.key;
    if session.execute(REMOVE, parameters![id.as_bytes(), key]).await? == 0 {
        return Err(session.refused(StorageErrorKind::NotFound));
    }
    session.execute(REMOVE_TOKENS, parameters![key, id.as_bytes()]).await?;
    finish(session, organization, by, Action::ClientDeleted, id).await
}

const REMOVE: &str = "DELETE FROM esl.clients WHERE id = $1 AND organization = $2";

/// All that a client was given.
const REMOVE_TOKENS: &str = "DELETE FROM esl.tokens WHERE organization = $1 AND client = $2";

async fn finish(
    mut session: Session<'_>,
    organization: OrganizationId,
    by: &Actor,
    action: Action,
    id: &str,
) -> Result<(), StorageError> {
    audit::note(&session, organization, by, action, id, &[]).await?;
    session.tell_others(News::Tenancy);
    session.commit().await
}

fn client(row: &Row) -> Result<Client, Damage> {
    Ok(Client {
        id: strangers_text(row, 0)?,
        organization: rows::id(row, 1)?,
        secret: Digest::from_bytes(rows::bytes(row, 2)?),
        scopes: parsed(row, 3)?,
        created_at: time(row, 4)?,
    })
}

const BY_ID: &str = "
SELECT c.id, g.id, c.secret, c.scopes, c.created_at
FROM esl.clients c JOIN esl.organizations g ON g.key = c.organization
WHERE c.id = $1 AND g.deleted_at IS NULL";

const OF_ORGANIZATION: &str = "
SELECT c.id, g.id, c.secret, c.scopes, c.created_at
FROM esl.clients c JOIN esl.organizations g ON g.key = c.organization
WHERE c.id = $1 AND g.id = $2 AND g.deleted_at IS NULL";

const LIST: &str = "
SELECT c.id, g.id, c.secret, c.scopes, c.created_at
FROM esl.organizations g JOIN esl.clients c ON c.organization = g.key
WHERE g.id = $1 AND g.deleted_at IS NULL AND c.id > $2
ORDER BY c.id LIMIT $3";
