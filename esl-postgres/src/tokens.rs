//! Tokens: giving them out, trading them, and revoking them.

use esl_core::{
    Digest, OrganizationId, Revoked, Rotated, Rotation, Scopes, Token, TokenFamily, TokenKind,
    storage::{StorageError, StorageErrorKind, encoding},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    changes::News,
    error::{Damage, refused},
    id::Id16,
    parameters::parameters,
    rows::{self, get, parsed, strangers_text, time, whole},
    session::Session,
};

const READ: &str = "read a token";
const STORE: &str = "store tokens";
const ROTATE: &str = "rotate a token";
const REVOKE: &str = "revoke a token";

pub(crate) async fn read(
    storage: &PostgresStorage,
    digest: &Digest,
) -> Result<Option<Token>, StorageError> {
    let values = parameters![&digest.as_bytes()[..], storage.suite_time()];
    let row = storage.database().query_opt(READ, TOKEN, values).await?;
    let found = whole(READ, row.map(|row| found(&row)).transpose())?;
    Ok(found.filter(|found| !found.is_used).map(|found| found.token))
}

pub(crate) async fn store(
    storage: &PostgresStorage,
    secret: &Digest,
    tokens: &[Token],
) -> Result<(), StorageError> {
    if tokens.is_empty() {
        return Ok(());
    }
    let each = || tokens.iter();
    let digests: Vec<&[u8]> = each().map(|token| &token.digest.as_bytes()[..]).collect();
    let kinds: Vec<i16> =
        each().map(|token| i16::from(encoding::token_kind_number(token.kind))).collect();
    let clients: Vec<&[u8]> = each().map(|token| token.client.as_bytes()).collect();
    let organizations: Vec<Id16> = each().map(|token| token.organization.into()).collect();
    let families: Vec<&[u8]> = each().map(|token| &token.family.as_bytes()[..]).collect();
    let scopes: Vec<String> = each().map(|token| token.scopes.to_string()).collect();
    let expire_at: Vec<i64> = each().map(|token| token.expires_at.as_millis()).collect();
    let values = parameters![
        storage.suite_time(),
        storage.handle(),
        &secret.as_bytes()[..],
        digests,
        kinds,
        clients,
        organizations,
        families,
        scopes,
        expire_at,
    ];
    let row = storage.database().query_one(STORE, STORE_TOKENS, values).await?;
    if whole(STORE, get(&row, 0))? {
        Ok(())
    } else {
        Err(refused(StorageErrorKind::NotFound, STORE))
    }
}

const STORE_TOKENS: &str = "SELECT esl.store_tokens_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Does what [`Rotation::decide`] says of the token as this transaction sees it. Trades of one client come
/// one after the other.
pub(crate) async fn rotate(
    storage: &PostgresStorage,
    rotation: &Rotation,
) -> Result<Rotated, StorageError> {
    let mut lease = storage.database().lease(ROTATE).await?;
    let mut session = storage.begin(&mut lease, ROTATE).await?;
    let (client, organization) = (rotation.client.as_bytes(), Id16::from(rotation.organization));
    let held = session.query_opt(LOCK_CLIENT, parameters![client, organization]).await?;
    let held = whole(ROTATE, held.map(|row| parsed::<Scopes>(&row, 0)).transpose())?;
    let values = parameters![&rotation.shown.as_bytes()[..], storage.suite_time()];
    let row = session.query_opt(TOKEN, values).await?;
    let found = whole(ROTATE, row.map(|row| found(&row)).transpose())?;
    let shown = found.as_ref().map(|found| (&found.token, found.is_used));
    let rotated = rotation.decide(shown, held.unwrap_or_default());
    match (&rotated, &found) {
        (Rotated::Renewed(renewed), Some(found)) => {
            let used = parameters![
                &rotation.shown.as_bytes()[..],
                found.organization,
                session.now().as_millis()
            ];
            session.execute(USE_UP, used).await?;
            insert(&session, found.organization, &renewed.access).await?;
            insert(&session, found.organization, &renewed.refresh).await?;
        }
        (Rotated::Reused, Some(found)) => {
            let client = found.token.client.as_bytes();
            let family = &found.token.family.as_bytes()[..];
            session.execute(FAMILY, parameters![found.organization, client, family]).await?;
        }
        _ => return Ok(rotated),
    }
    session.tell_others(News::Tenancy);
    session.commit().await?;
    Ok(rotated)
}

const LOCK_CLIENT: &str = "
SELECT c.scopes FROM esl.clients c JOIN esl.organizations g ON g.key = c.organization
WHERE c.id = $1 AND g.id = $2 AND g.deleted_at IS NULL
FOR NO KEY UPDATE OF c";

const USE_UP: &str = "UPDATE esl.tokens SET used_at = $3 WHERE digest = $1 AND organization = $2";

const FAMILY: &str =
    "DELETE FROM esl.tokens WHERE organization = $1 AND client = $2 AND family = $3";

async fn insert(
    session: &Session<'_>,
    organization: i32,
    token: &Token,
) -> Result<(), StorageError> {
    let values = parameters![
        &token.digest.as_bytes()[..],
        i16::from(encoding::token_kind_number(token.kind)),
        token.client.as_bytes(),
        organization,
        &token.family.as_bytes()[..],
        token.scopes.to_string(),
        token.expires_at.as_millis(),
    ];
    session.execute(INSERT, values).await.map(drop)
}

const INSERT: &str = "
INSERT INTO esl.tokens (digest, kind, client, organization, family, scopes, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (digest) DO UPDATE SET kind = excluded.kind, client = excluded.client,
    organization = excluded.organization, family = excluded.family, scopes = excluded.scopes,
    expires_at = excluded.expires_at, used_at = NULL";

pub(crate) async fn revoke(
    storage: &PostgresStorage,
    organization: OrganizationId,
    client: &str,
    digest: &Digest,
) -> Result<Revoked, StorageError> {
    let values = parameters![
        storage.suite_time(),
        storage.handle(),
        Id16::from(organization),
        client.as_bytes(),
        &digest.as_bytes()[..],
        i16::from(encoding::token_kind_number(TokenKind::Refresh)),
    ];
    let row = storage.database().query_one(REVOKE, REVOKE_TOKEN, values).await?;
    Ok(match whole(REVOKE, get::<i32>(&row, 0))? {
        0 => Revoked::Unknown,
        1 => Revoked::OfAnother,
        _ => Revoked::Done,
    })
}

const REVOKE_TOKEN: &str = "SELECT esl.revoke_token_1($1, $2, $3, $4, $5, $6)";

/// A token that has not expired.
struct Found {
    token: Token,
    /// Of a refresh token: whether it was traded for another one.
    is_used: bool,
    organization: i32,
}

fn found(row: &Row) -> Result<Found, Damage> {
    let token = Token {
        digest: Digest::from_bytes(rows::bytes(row, 0)?),
        kind: rows::token_kind(row, 1)?,
        client: strangers_text(row, 2)?,
        organization: rows::id(row, 3)?,
        family: TokenFamily::from_bytes(rows::bytes(row, 4)?),
        scopes: parsed(row, 5)?,
        expires_at: time(row, 6)?,
    };
    Ok(Found { token, is_used: get(row, 7)?, organization: get(row, 8)? })
}

const TOKEN: &str = "
SELECT t.digest, t.kind, t.client, g.id, t.family, t.scopes, t.expires_at,
    t.used_at IS NOT NULL, t.organization
FROM esl.tokens t JOIN esl.organizations g ON g.key = t.organization
WHERE t.digest = $1 AND t.expires_at > esl.now_1($2) AND g.deleted_at IS NULL";
