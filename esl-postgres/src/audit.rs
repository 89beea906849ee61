//! The audit trail: written in the transaction of what it tells of, and kept as long as events are.

use esl_core::{
    Action, Actor, AuditEntry, AuditNumber, OrganizationId,
    storage::{Page, PageOf, StorageError},
};

use crate::{PostgresStorage, id::Id16, parameters::parameters, session::Session};

/// Writes what this transaction does.
pub(crate) async fn note(
    session: &Session<'_>,
    organization: OrganizationId,
    by: &Actor,
    action: Action,
    subject: &str,
    fields: &[&str],
) -> Result<(), StorageError> {
    let values = parameters![
        Id16::from(organization),
        session.now().as_millis(),
        by.kind(),
        by.name().map(str::as_bytes),
        by.address().map(|address| address.to_string()),
        action.as_str(),
        subject.as_bytes(),
        fields.join(" "),
    ];
    session.execute(INSERT, values).await.map(drop)
}

const INSERT: &str = "
INSERT INTO esl.audit
    (organization, at, actor_kind, actor_name, address, action, subject, fields)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// A part of an organization's trail.
pub(crate) async fn list(
    _storage: &PostgresStorage,
    _organization: OrganizationId,
    _page: Page<AuditNumber>,
) -> Result<PageOf<AuditEntry>, StorageError> {
    unimplemented!("the trail is read")
}
