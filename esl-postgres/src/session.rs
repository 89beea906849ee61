//! A transaction that changes what is an organization's own.
//!
//! It begins with the organization's row, which is locked: whoever else changes something of it waits, and so
//! do its commits. Everything is locked in one order, so that nobody waits in a circle: the organization, its
//! subscriptions, their lanes, everything else.

use esl_core::{
    OrganizationId, Plan, Seq, Timestamp,
    storage::{RouteVersion, StorageError, StorageErrorKind},
};
use tokio_postgres::{Row, Transaction};

use crate::{
    PostgresStorage,
    changes::News,
    connect::{Database, Lease, Parameters, Watch},
    error::{Damage, refused},
    id::Id16,
    parameters::parameters,
    plan::plan,
    rows::{self, get, seq, time},
};

/// A transaction under way. Dropped, it is rolled back.
pub(crate) struct Session<'c> {
    storage: &'c PostgresStorage,
    operation: &'static str,
    transaction: Transaction<'c>,
    watch: Watch,
    now: Timestamp,
    /// What others are told once it is committed.
    news: Vec<News>,
}

/// An organization, as far as those who change what is its own need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrganizationRow {
    pub(crate) key: i32,
    pub(crate) last_seq: Seq,
    pub(crate) route_version: RouteVersion,
    /// Up to here deliveries were removed, and events, but for those that are still owed.
    pub(crate) removed_to: Seq,
}

impl<'c> Session<'c> {
    /// Begins a transaction on a connection that was lent.
    pub(crate) async fn begin(
        storage: &'c PostgresStorage,
        lease: &'c mut Lease,
        operation: &'static str,
    ) -> Result<Self, StorageError> {
        let watch = lease.watch();
        let begun = lease.client_mut().transaction();
        let transaction = storage.database().in_time(operation, &watch, begun).await?;
        let now = Timestamp::EPOCH;
        let mut session = Self { storage, operation, transaction, watch, now, news: Vec::new() };
        let row = session.query_one(BEGIN, parameters![storage.suite_time()]).await?;
        session.now = rows::whole(operation, time(&row, 0))?;
        Ok(session)
    }

    pub(crate) const fn storage(&self) -> &'c PostgresStorage {
        self.storage
    }

    /// The operation that errors name.
    pub(crate) const fn operation(&self) -> &'static str {
        self.operation
    }

    /// The time: of its beginning, or since the organization was locked.
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// Locks an organization, and says what it is.
    pub(crate) async fn organization(
        &mut self,
        id: OrganizationId,
    ) -> Result<OrganizationRow, StorageError> {
        Ok(self.organization_with_plan(id).await?.0)
    }

    /// The same, and what it may use, as far as that can be read.
    pub(crate) async fn organization_with_plan(
        &mut self,
        id: OrganizationId,
    ) -> Result<(OrganizationRow, Result<Option<Plan>, Damage>), StorageError> {
        let values = parameters![self.storage.suite_time(), Id16::from(id)];
        let row = self.query_opt(LOCK, values).await?;
        let row = row.ok_or_else(|| refused(StorageErrorKind::NotFound, self.operation))?;
        self.now = rows::whole(self.operation, time(&row, 0))?;
        Ok((rows::whole(self.operation, organization(&row))?, plan(&row, 5)))
    }

    /// Raises the version that routing goes by, of an organization that is locked.
    pub(crate) async fn raise_route_version(
        &self,
        organization: OrganizationRow,
    ) -> Result<(), StorageError> {
        self.execute(RAISE, parameters![organization.key]).await.map(drop)
    }

    pub(crate) async fn query(
        &self,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StorageError> {
        let text = self.database().sql(text);
        let rows = self.transaction.query_typed(&text, parameters);
        self.database().in_time(self.operation, &self.watch, rows).await
    }

    pub(crate) async fn query_opt(
        &self,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Option<Row>, StorageError> {
        Ok(self.query(text, parameters).await?.into_iter().next())
    }

    pub(crate) async fn query_one(
        &self,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Row, StorageError> {
        let row = self.query_opt(text, parameters).await?;
        row.ok_or_else(|| self.refused(StorageErrorKind::Corrupt).with_source("a row is missing"))
    }

    pub(crate) async fn execute(
        &self,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<u64, StorageError> {
        let text = self.database().sql(text);
        let count = self.transaction.execute_typed(&text, parameters);
        self.database().in_time(self.operation, &self.watch, count).await
    }

    /// Why it goes no further.
    pub(crate) const fn refused(&self, kind: StorageErrorKind) -> StorageError {
        refused(kind, self.operation)
    }

    pub(crate) fn tell_others(&mut self, news: News) {
        if !self.news.contains(&news) {
            self.news.push(news);
        }
    }

    /// Ends it: from now on it has happened.
    pub(crate) async fn commit(self) -> Result<(), StorageError> {
        for news in &self.news {
            let (kind, organization) = news.columns();
            let author = self.storage.handle();
            let values = parameters![author, kind, organization, self.now.as_millis()];
            self.execute(TELL, values).await?;
        }
        let Self { storage, operation, transaction, watch, news, .. } = self;
        storage.database().in_time(operation, &watch, transaction.commit()).await?;
        if !news.is_empty() {
            storage.notifier().look();
        }
        Ok(())
    }

    fn database(&self) -> &'c Database {
        self.storage.database()
    }
}

/// Reads what `lock_1` says after the time.
fn organization(row: &Row) -> Result<OrganizationRow, Damage> {
    Ok(OrganizationRow {
        key: get(row, 1)?,
        last_seq: seq(row, 2)?,
        route_version: RouteVersion(get::<i64>(row, 3)?.cast_unsigned()),
        removed_to: seq(row, 4)?,
    })
}

const BEGIN: &str = "SELECT esl.begin_1($1)";

const LOCK: &str = "SELECT * FROM esl.lock_1($1, $2)";

const RAISE: &str = "
UPDATE esl.organizations SET route_version = route_version + 1 WHERE key = $1";

const TELL: &str = "
INSERT INTO esl.changes (author, kind, organization, at) VALUES ($1, $2, $3, $4)";
