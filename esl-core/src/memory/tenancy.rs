use std::{collections::BTreeMap, ops::Bound};

use async_trait::async_trait;

use super::{
    MemoryStorage, State, conflict,
    entities::EntityRows,
    not_found,
    rows::{OrganizationRow, TokenRow},
    subscriptions::page_of,
};
use crate::{
    Action, Actor, Client, Digest, Organization, OrganizationId, Plan, Revoked, Rotated, Rotation,
    Seq, Timestamp, Token, TokenKind, Usage,
    storage::{Change, Page, PageOf, RouteVersion, StorageError, StorageErrorKind, Tenancy},
};

#[async_trait]
impl Tenancy for MemoryStorage {
    async fn create_organization(
        &self,
        organization: Organization,
        by: &Actor,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        let id = organization.id;
        let mut names = state.organizations.values().map(|row| &row.organization.name);
        let is_name_taken = names.any(|name| *name == organization.name);
        if is_name_taken || state.organizations.contains_key(&id) {
            return Err(conflict("create an organization"));
        }
        let row = OrganizationRow {
            organization,
            route_version: RouteVersion::default(),
            last_seq: Seq::ZERO,
            events: BTreeMap::new(),
            idempotency_keys: BTreeMap::new(),
            fan_outs: BTreeMap::new(),
            removed_to: Seq::ZERO,
            usage: Usage::default(),
            entities: EntityRows::default(),
        };
        state.organizations.insert(id, row);
        state.organization_order.push(id);
        state.note(id, by, Action::OrganizationCreated, &id, &[]);
        state.deleted_organizations.remove(&id);
        if state.intake.rows.values().any(|event| event.organization == id) {
            state.listeners.tell_all(Change::Intake);
        }
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(())
    }

    async fn organization(&self, id: OrganizationId) -> Result<Option<Organization>, StorageError> {
        Ok(self.state().organizations.get(&id).map(|row| row.organization.clone()))
    }

    async fn set_plan(
        &self,
        organization: OrganizationId,
        plan: Option<Plan>,
        by: &Actor,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        let row = state.organizations.get_mut(&organization);
        let row = row.ok_or_else(|| not_found("set a plan"))?;
        if row.organization.plan == plan {
            return Ok(());
        }
        let fields = Plan::changed(row.organization.plan, plan);
        row.organization.plan = plan;
        row.route_version.0 += 1;
        state.note(organization, by, Action::OrganizationUpdated, &organization, &fields);
        state.listeners.tell_others(self.handle, Change::Subscriptions(organization));
        Ok(())
    }

    async fn usage(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<(Option<Plan>, Usage)>, StorageError> {
        let state = self.state();
        let row = state.organizations.get(&organization);
        Ok(row.map(|row| (row.organization.plan, row.usage.at(state.now()))))
    }

    async fn organizations(&self) -> Result<Vec<Organization>, StorageError> {
        let state = self.state();
        let rows = state.organization_order.iter().map(|id| &state.organizations[id]);
        Ok(rows.map(|row| row.organization.clone()).collect())
    }

    async fn create_client(&self, client: Client, by: &Actor) -> Result<(), StorageError> {
        const OPERATION: &str = "create a client";
        let mut state = self.state();
        if !state.organizations.contains_key(&client.organization) {
            return Err(not_found(OPERATION));
        }
        if state.clients.contains_key(&client.id) {
            return Err(conflict(OPERATION));
        }
        let its_own = |other: &&Client| other.organization == client.organization;
        if state.clients.values().filter(its_own).count() >= Client::PER_ORGANIZATION_MAX {
            return Err(StorageError::new(StorageErrorKind::OverLimit, OPERATION));
        }
        state.note(client.organization, by, Action::ClientCreated, &client.id, &[]);
        state.clients.insert(client.id.clone(), client);
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(())
    }

    async fn client(&self, id: &str) -> Result<Option<Client>, StorageError> {
        Ok(self.state().clients.get(id).cloned())
    }

    async fn client_of(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<Option<Client>, StorageError> {
        Ok(self.state().client_of(organization, id).cloned())
    }

    async fn clients(
        &self,
        organization: OrganizationId,
        page: Page<String>,
    ) -> Result<PageOf<Client>, StorageError> {
        let state = self.state();
        let after = page.after.map_or(Bound::Unbounded, Bound::Excluded);
        let clients = state.clients.range((after, Bound::Unbounded)).map(|(_, client)| client);
        let its_own = clients.filter(|client| client.organization == organization).cloned();
        Ok(page_of(its_own, page.limit))
    }

    async fn rotate_client(
        &self,
        organization: OrganizationId,
        id: &str,
        secret: Digest,
        by: &Actor,
    ) -> Result<Client, StorageError> {
        let mut state = self.state();
        let client = state.client_of(organization, id).cloned();
        let client = Client { secret, ..client.ok_or_else(|| not_found("rotate a client"))? };
        state.clients.insert(id.to_owned(), client.clone());
        state.note(organization, by, Action::ClientSecretRotated, &id, &[]);
        state.tokens.retain(|_, row| row.token.client != id);
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(client)
    }

    async fn delete_client(
        &self,
        organization: OrganizationId,
        id: &str,
        by: &Actor,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.client_of(organization, id).is_none() {
            return Err(not_found("delete a client"));
        }
        state.clients.remove(id);
        state.note(organization, by, Action::ClientDeleted, &id, &[]);
        state.tokens.retain(|_, row| row.token.client != id);
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(())
    }

    async fn store_tokens(&self, secret: &Digest, tokens: Vec<Token>) -> Result<(), StorageError> {
        let mut state = self.state();
        let is_given = |token: &Token| {
            let client = state.client_of(token.organization, &token.client);
            client.is_some_and(|client| client.secret.matches(secret))
        };
        if !tokens.iter().all(is_given) {
            return Err(not_found("store tokens"));
        }
        for token in tokens {
            state.add_token(token);
        }
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(())
    }

    async fn token(&self, digest: &Digest) -> Result<Option<Token>, StorageError> {
        let state = self.state();
        let now = state.now();
        let row = state.token(digest, now).filter(|row| !row.is_used);
        Ok(row.map(|row| row.token.clone()))
    }

    async fn rotate_token(&self, rotation: Rotation) -> Result<Rotated, StorageError> {
        let mut state = self.state();
        let now = state.now();
        let held = state.clients.get(&rotation.client).map(|client| client.scopes);
        let shown = state.token(&rotation.shown, now).cloned();
        let rotated = rotation
            .decide(shown.as_ref().map(|row| (&row.token, row.is_used)), held.unwrap_or_default());
        match (&rotated, shown) {
            (Rotated::Renewed(renewed), Some(shown)) => {
                let used = TokenRow { is_used: true, ..shown };
                state.tokens.insert(*used.token.digest.as_bytes(), used);
                state.add_token(renewed.access.clone());
                state.add_token(renewed.refresh.clone());
            }
            (Rotated::Reused, Some(shown)) => state.revoke_family(&shown.token),
            _ => return Ok(rotated),
        }
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(rotated)
    }

    async fn revoke_token(
        &self,
        organization: OrganizationId,
        client: &str,
        digest: &Digest,
    ) -> Result<Revoked, StorageError> {
        let mut state = self.state();
        let now = state.now();
        let row = state.token(digest, now).filter(|row| row.token.organization == organization);
        let Some(TokenRow { token, .. }) = row.cloned() else {
            return Ok(Revoked::Unknown);
        };
        if token.client != client {
            return Ok(Revoked::OfAnother);
        }
        match token.kind {
            TokenKind::Access => {
                state.tokens.remove(digest.as_bytes());
            }
            TokenKind::Refresh => state.revoke_family(&token),
        }
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(Revoked::Done)
    }
}

impl State {
    fn client_of(&self, organization: OrganizationId, id: &str) -> Option<&Client> {
        self.clients.get(id).filter(|client| client.organization == organization)
    }

    fn token(&self, digest: &Digest, now: Timestamp) -> Option<&TokenRow> {
        self.tokens.get(digest.as_bytes()).filter(|row| now < row.token.expires_at)
    }

    fn add_token(&mut self, token: Token) {
        let row = TokenRow { token, is_used: false };
        self.tokens.insert(*row.token.digest.as_bytes(), row);
    }

    /// Removes all tokens of this one's family.
    fn revoke_family(&mut self, of: &Token) {
        self.tokens.retain(|_, TokenRow { token, .. }| {
            (token.family, &token.client) != (of.family, &of.client)
        });
    }
}
