use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{MemoryStorage, conflict, not_found, rows::OrganizationRow};
use crate::{
    Client, Digest, Organization, OrganizationId, Plan, Seq, Token, Usage,
    storage::{Change, RouteVersion, StorageError, Tenancy},
};

#[async_trait]
impl Tenancy for MemoryStorage {
    async fn create_organization(&self, organization: Organization) -> Result<(), StorageError> {
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
        };
        state.organizations.insert(id, row);
        state.organization_order.push(id);
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
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        let row = state.organizations.get_mut(&organization);
        let row = row.ok_or_else(|| not_found("set a plan"))?;
        row.organization.plan = plan;
        row.route_version.0 += 1;
        state.listeners.tell_others(self.handle, Change::Subscriptions(organization));
        Ok(())
    }

    async fn usage(&self, organization: OrganizationId) -> Result<Option<Usage>, StorageError> {
        let state = self.state();
        let row = state.organizations.get(&organization);
        Ok(row.map(|row| row.usage.at(state.now())))
    }

    async fn organizations(&self) -> Result<Vec<Organization>, StorageError> {
        let state = self.state();
        let rows = state.organization_order.iter().map(|id| &state.organizations[id]);
        Ok(rows.map(|row| row.organization.clone()).collect())
    }

    async fn create_client(&self, client: Client) -> Result<(), StorageError> {
        const OPERATION: &str = "create a client";
        let mut state = self.state();
        if !state.organizations.contains_key(&client.organization) {
            return Err(not_found(OPERATION));
        }
        if state.clients.contains_key(&client.id) {
            return Err(conflict(OPERATION));
        }
        state.clients.insert(client.id.clone(), client);
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(())
    }

    async fn client(&self, id: &str) -> Result<Option<Client>, StorageError> {
        Ok(self.state().clients.get(id).cloned())
    }

    async fn clients(&self, organization: OrganizationId) -> Result<Vec<Client>, StorageError> {
        let state = self.state();
        let clients = state.clients.values();
        Ok(clients.filter(|client| client.organization == organization).cloned().collect())
    }

    async fn delete_client(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.clients.get(id).is_none_or(|client| client.organization != organization) {
            return Err(not_found("delete a client"));
        }
        state.clients.remove(id);
        state.tokens.retain(|_, token| token.client != id);
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(())
    }

    async fn store_tokens(&self, tokens: Vec<Token>) -> Result<(), StorageError> {
        let mut state = self.state();
        let is_given = |token: &Token| {
            let client = state.clients.get(&token.client);
            client.is_some_and(|client| client.organization == token.organization)
        };
        if !tokens.iter().all(is_given) {
            return Err(not_found("store tokens"));
        }
        for token in tokens {
            state.tokens.insert(*token.digest.as_bytes(), token);
        }
        state.listeners.tell_others(self.handle, Change::Tenancy);
        Ok(())
    }

    async fn token(&self, digest: &Digest) -> Result<Option<Token>, StorageError> {
        let state = self.state();
        let now = state.now();
        let token = state.tokens.get(digest.as_bytes());
        Ok(token.filter(|token| now < token.expires_at).cloned())
    }
}
