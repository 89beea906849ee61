//! Tokens: giving them out, trading them, and revoking them.

use esl_core::{
    Digest, OrganizationId, Revoked, Rotated, Rotation, Scopes, Timestamp, Token, TokenFamily,
    TokenKind,
    storage::{StorageErrorKind, encoding},
};
use rusqlite::{Connection, OptionalExtension, Row, types::Type};

use crate::storage::{
    changes::News,
    error::Stop,
    rows::{damaged, parsed, time},
    session::{Session, read_organization},
};

pub(crate) const STORE: &str = "store tokens";
pub(crate) const ROTATE: &str = "rotate a token";
pub(crate) const REVOKE: &str = "revoke a token";

/// A token that has not expired.
pub(crate) struct Found {
    pub(crate) token: Token,
    /// Of a refresh token: whether it was traded for another one.
    pub(crate) is_used: bool,
    organization: i64,
}

pub(crate) fn find(
    connection: &Connection,
    digest: &Digest,
    now: Timestamp,
) -> rusqlite::Result<Option<Found>> {
    let mut select = connection.prepare_cached(TOKEN)?;
    select.query_row((digest.as_bytes(), now.as_millis()), found).optional()
}

pub(crate) fn store(
    session: &mut Session<'_>,
    secret: &Digest,
    tokens: &[Token],
) -> Result<(), Stop> {
    let connection = session.connection;
    let mut organizations = Vec::with_capacity(tokens.len());
    for token in tokens {
        let not_found = || Stop::refused(StorageErrorKind::NotFound, STORE);
        let organization = read_organization(connection, token.organization)?;
        let organization = organization.ok_or_else(not_found)?.key;
        let is_given = "SELECT 1 FROM esl_clients
                        WHERE id = ?1 AND organization = ?2 AND secret = ?3";
        let given = (&token.client, organization, secret.as_bytes());
        if !connection.prepare_cached(is_given)?.exists(given)? {
            return Err(not_found());
        }
        organizations.push(organization);
    }
    for (token, organization) in tokens.iter().zip(organizations) {
        insert(connection, organization, token)?;
    }
    Ok(session.tell_others(News::Tenancy)?)
}

/// Does what [`Rotation::decide`] says of the token as this transaction sees it.
pub(crate) fn rotate(session: &mut Session<'_>, rotation: &Rotation) -> Result<Rotated, Stop> {
    let connection = session.connection;
    let found = find(connection, &rotation.shown, session.now)?;
    let held = match &found {
        Some(found) => held(connection, found.organization, &rotation.client)?,
        None => Scopes::NONE,
    };
    let shown = found.as_ref().map(|found| (&found.token, found.is_used));
    let rotated = rotation.decide(shown, held);
    match (&rotated, &found) {
        (Rotated::Renewed(renewed), Some(found)) => {
            let use_up =
                "UPDATE esl_tokens SET used_at = ?3 WHERE digest = ?1 AND organization = ?2";
            let used = (rotation.shown.as_bytes(), found.organization, session.now.as_millis());
            connection.prepare_cached(use_up)?.execute(used)?;
            insert(connection, found.organization, &renewed.access)?;
            insert(connection, found.organization, &renewed.refresh)?;
        }
        (Rotated::Reused, Some(found)) => remove_family(connection, found)?,
        _ => return Ok(rotated),
    }
    session.tell_others(News::Tenancy)?;
    Ok(rotated)
}

pub(crate) fn revoke(
    session: &mut Session<'_>,
    organization: OrganizationId,
    client: &str,
    digest: &Digest,
) -> Result<Revoked, Stop> {
    let connection = session.connection;
    let found = find(connection, digest, session.now)?;
    let Some(found) = found.filter(|found| found.token.organization == organization) else {
        return Ok(Revoked::Unknown);
    };
    if found.token.client != client {
        return Ok(Revoked::OfAnother);
    }
    if found.token.kind == TokenKind::Refresh {
        remove_family(connection, &found)?;
    } else {
        let sql = "DELETE FROM esl_tokens WHERE digest = ?1 AND organization = ?2";
        connection.prepare_cached(sql)?.execute((digest.as_bytes(), found.organization))?;
    }
    session.tell_others(News::Tenancy)?;
    Ok(Revoked::Done)
}

/// What the client has now.
fn held(connection: &Connection, organization: i64, client: &str) -> rusqlite::Result<Scopes> {
    let sql = "SELECT scopes FROM esl_clients WHERE id = ?1 AND organization = ?2";
    let mut select = connection.prepare_cached(sql)?;
    let held = select.query_row((client, organization), |row| parsed(row, 0)).optional()?;
    Ok(held.unwrap_or_default())
}

fn insert(connection: &Connection, organization: i64, token: &Token) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO esl_tokens
                   (digest, kind, client, organization, family, scopes, expires_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(sql)?.execute((
        token.digest.as_bytes(),
        encoding::token_kind_number(token.kind),
        &token.client,
        organization,
        token.family.as_bytes(),
        token.scopes.to_string(),
        token.expires_at.as_millis(),
    ))?;
    Ok(())
}

/// Removes all that a client was given.
pub(crate) fn remove_of(
    connection: &Connection,
    organization: i64,
    client: &str,
) -> rusqlite::Result<()> {
    let sql = "DELETE FROM esl_tokens WHERE organization = ?1 AND client = ?2";
    connection.prepare_cached(sql)?.execute((organization, client))?;
    Ok(())
}

fn remove_family(connection: &Connection, of: &Found) -> rusqlite::Result<()> {
    let family = (of.organization, &of.token.client, of.token.family.as_bytes());
    connection.prepare_cached(FAMILY)?.execute(family)?;
    Ok(())
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    let token = Token {
        digest: Digest::from_bytes(row.get(0)?),
        kind: kind(row, 1)?,
        client: row.get(2)?,
        organization: OrganizationId::from_bytes(row.get(3)?),
        family: TokenFamily::from_bytes(row.get(4)?),
        scopes: parsed(row, 5)?,
        expires_at: time(row, 6)?,
    };
    Ok(Found { token, is_used: row.get(7)?, organization: row.get(8)? })
}

/// Reads `esl_tokens.kind`.
fn kind(row: &Row<'_>, index: usize) -> rusqlite::Result<TokenKind> {
    let kind = encoding::token_kind(row.get(index)?);
    kind.ok_or_else(|| damaged(index, Type::Integer, "not a kind of token"))
}

const TOKEN: &str = "
SELECT t.digest, t.kind, t.client, o.id, t.family, t.scopes, t.expires_at,
    t.used_at IS NOT NULL, t.organization
FROM esl_tokens t JOIN esl_organizations o ON o.key = t.organization
WHERE t.digest = ?1 AND t.expires_at > ?2 AND o.deleted_at IS NULL";

const FAMILY: &str =
    "DELETE FROM esl_tokens WHERE organization = ?1 AND client = ?2 AND family = ?3";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn a_family_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let index = "esl_tokens_by_client (organization=? AND client=? AND family=?)";
        assert_plan(&connection, FAMILY, &[&format!("SEARCH esl_tokens USING INDEX {index}")]);
    }
}
