//! Organizations, clients and tokens.

use std::time::Duration;

use super::{
    BY,
    world::{SECOND, WORKS, World, kind},
};
use crate::{
    Client, Digest, Organization, OrganizationId, Scope, Scopes, Timestamp, Token, TokenFamily,
    TokenKind,
    storage::{Page, StorageErrorKind},
};

pub(super) async fn organizations_are_listed_in_the_order_of_creation(world: World) {
    assert_eq!(world.storage.organizations().await.expect(WORKS), []);
    let mut created = Vec::new();
    // Neither ids nor names nor times say the order.
    for (bytes, name, at) in [([9; 16], "b", 3), ([1; 16], "ünïcode \"c\"", 2), ([5; 16], "a", 1)]
    {
        let id = OrganizationId::from_bytes(bytes);
        let created_at = Timestamp::from_millis(at);
        let organization = Organization::new(id, name, created_at);
        world.storage.create_organization(organization.clone(), BY).await.expect(WORKS);
        let read = world.storage.organization(id).await.expect(WORKS);
        assert_eq!(read.as_ref(), Some(&organization));
        created.push(organization);
    }
    assert_eq!(world.storage.organizations().await.expect(WORKS), created);
    let unknown = world.organization_id();
    assert_eq!(world.storage.organization(unknown).await.expect(WORKS), None);
}

pub(super) async fn an_organizations_id_and_name_are_its_own(world: World) {
    let id = world.organization().await;
    let name = world.storage.organization(id).await.expect(WORKS).expect("it exists").name;
    let created_at = world.now();
    for twin in [
        Organization::new(id, "another", created_at),
        Organization::new(world.organization_id(), name, created_at),
    ] {
        let refused = world.storage.create_organization(twin, BY).await;
        assert_eq!(kind(refused), StorageErrorKind::Conflict);
    }
    assert_eq!(world.storage.organizations().await.expect(WORKS).len(), 1);
}

pub(super) async fn clients_are_read_as_they_were_created(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let scopes = [Scope::Publish, Scope::EntitiesWrite].into_iter().collect();
    let clients = [
        Client { scopes, ..client(&world, organization, "b") },
        client(&world, other, "c"),
        Client { scopes: Scopes::NONE, ..client(&world, organization, "a") },
    ];
    for client in &clients {
        world.storage.create_client(client.clone(), BY).await.expect(WORKS);
        let read = world.storage.client(&client.id).await.expect(WORKS);
        assert_eq!(read.as_ref(), Some(client));
    }
    assert_eq!(world.storage.client("B").await.expect(WORKS), None);
    for (organization, id, expected) in [
        (organization, "b", Some(&clients[0])),
        (other, "c", Some(&clients[1])),
        (other, "b", None),
        (world.organization_id(), "b", None),
        (organization, "B", None),
    ] {
        let read = world.storage.client_of(organization, id).await.expect(WORKS);
        assert_eq!(read.as_ref(), expected, "{id}");
    }
}

pub(super) async fn clients_are_listed_by_id_page_by_page(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    // By their bytes: neither by creation nor by the alphabet.
    for id in ["b", "_", "a-1", "B", "a", "a.1"] {
        world.storage.create_client(client(&world, organization, id), BY).await.expect(WORKS);
    }
    world.storage.create_client(client(&world, other, "aa"), BY).await.expect(WORKS);
    let list = async |organization, after: Option<&str>, limit| {
        let page = Page { after: after.map(str::to_owned), limit };
        let page = world.storage.clients(organization, page).await.expect(WORKS);
        (page.items.into_iter().map(|client| client.id).collect::<Vec<_>>(), page.more)
    };
    let all = ["B", "_", "a", "a-1", "a.1", "b"].map(str::to_owned);
    assert_eq!(list(organization, None, 6).await, (all.to_vec(), false));
    assert_eq!(list(organization, None, 2).await, (all[..2].to_vec(), true));
    assert_eq!(list(organization, Some("_"), 3).await, (all[2..5].to_vec(), true));
    assert_eq!(list(organization, Some("a.1"), 3).await, (all[5..].to_vec(), false));
    // Where the page before ended, there need not be a client any more.
    assert_eq!(list(organization, Some("aa"), 3).await, (all[5..].to_vec(), false));
    assert_eq!(list(organization, Some("b"), 3).await, (Vec::new(), false));
    assert_eq!(list(other, None, 3).await, (vec!["aa".to_owned()], false));
    assert_eq!(list(world.organization_id(), None, 3).await, (Vec::new(), false));
}

pub(super) async fn an_organization_has_so_many_clients_and_no_more(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    for number in 0..Client::PER_ORGANIZATION_MAX {
        let client = client(&world, organization, &format!("client-{number}"));
        world.storage.create_client(client, BY).await.expect(WORKS);
    }
    let one_more = client(&world, organization, "one-more");
    let refused = world.storage.create_client(one_more.clone(), BY).await;
    assert_eq!(kind(refused), StorageErrorKind::OverLimit);
    assert_eq!(world.storage.client("one-more").await.expect(WORKS), None);
    world.storage.create_client(client(&world, other, "another"), BY).await.expect(WORKS);
    world.storage.delete_client(organization, "client-7", BY).await.expect(WORKS);
    world.storage.create_client(one_more, BY).await.expect(WORKS);
}

pub(super) async fn a_clients_id_is_its_own_in_all_organizations(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let first = client(&world, organization, "client");
    world.storage.create_client(first.clone(), BY).await.expect(WORKS);
    for organization in [organization, other] {
        let refused = world.storage.create_client(client(&world, organization, "client"), BY).await;
        assert_eq!(kind(refused), StorageErrorKind::Conflict);
    }
    let refused =
        world.storage.create_client(client(&world, world.organization_id(), "x"), BY).await;
    assert_eq!(kind(refused), StorageErrorKind::NotFound);
    assert_eq!(world.storage.client("client").await.expect(WORKS), Some(first));
}

pub(super) async fn a_token_is_found_by_its_digest_until_it_expires(world: World) {
    let organization = world.organization().await;
    world.storage.create_client(client(&world, organization, "client"), BY).await.expect(WORKS);
    let access = token(&world, organization, "client", 1);
    let refresh = Token {
        kind: TokenKind::Refresh,
        scopes: [Scope::Read].into_iter().collect(),
        expires_at: world.now() + SECOND * 86_400,
        ..token(&world, organization, "client", 2)
    };
    world
        .storage
        .store_tokens(&secret("client"), vec![access.clone(), refresh.clone()])
        .await
        .expect(WORKS);
    let find = async |token: &Token| world.storage.token(&token.digest).await.expect(WORKS);
    world.clock.advance(SECOND * 60 - Duration::from_millis(1));
    assert_eq!(find(&access).await.as_ref(), Some(&access));
    assert_eq!(find(&token(&world, organization, "client", 3)).await, None);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(find(&access).await, None);
    assert_eq!(find(&refresh).await.as_ref(), Some(&refresh));
}

pub(super) async fn deleting_a_client_removes_its_tokens(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    for id in ["client", "another"] {
        world.storage.create_client(client(&world, organization, id), BY).await.expect(WORKS);
    }
    let lost = [1, 2].map(|number| token(&world, organization, "client", number));
    let kept = token(&world, organization, "another", 3);
    world.storage.store_tokens(&secret("client"), lost.to_vec()).await.expect(WORKS);
    world.storage.store_tokens(&secret("another"), vec![kept.clone()]).await.expect(WORKS);
    for (organization, id) in [(other, "client"), (organization, "unknown")] {
        let refused = world.storage.delete_client(organization, id, BY).await;
        assert_eq!(kind(refused), StorageErrorKind::NotFound);
    }
    world.storage.delete_client(organization, "client", BY).await.expect(WORKS);
    assert_eq!(world.storage.client("client").await.expect(WORKS), None);
    for token in &lost {
        assert_eq!(world.storage.token(&token.digest).await.expect(WORKS), None);
    }
    let read = world.storage.token(&kept.digest).await.expect(WORKS);
    assert_eq!(read, Some(kept));
    let again = world.storage.delete_client(organization, "client", BY).await;
    assert_eq!(kind(again), StorageErrorKind::NotFound);
    // Its id is free, and the tokens of whoever had it before do not come back.
    world.storage.create_client(client(&world, organization, "client"), BY).await.expect(WORKS);
    assert_eq!(world.storage.token(&lost[0].digest).await.expect(WORKS), None);
}

pub(super) async fn a_rotated_client_keeps_all_but_its_secret_and_its_tokens(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    for id in ["client", "another"] {
        world.storage.create_client(client(&world, organization, id), BY).await.expect(WORKS);
    }
    let before = client(&world, organization, "client");
    let access = token(&world, organization, "client", 1);
    let refresh = Token { kind: TokenKind::Refresh, ..token(&world, organization, "client", 2) };
    let kept = token(&world, organization, "another", 3);
    let lost = [access, refresh];
    world.storage.store_tokens(&before.secret, lost.to_vec()).await.expect(WORKS);
    world.storage.store_tokens(&secret("another"), vec![kept.clone()]).await.expect(WORKS);
    let new = Digest::of(b"new");
    for (organization, id) in [(other, "client"), (organization, "unknown")] {
        let refused = world.storage.rotate_client(organization, id, new, BY).await;
        assert_eq!(kind(refused), StorageErrorKind::NotFound);
    }
    assert_eq!(world.storage.client("client").await.expect(WORKS).as_ref(), Some(&before));
    let first = &lost[0];
    assert_eq!(world.storage.token(&first.digest).await.expect(WORKS).as_ref(), Some(first));

    world.clock.advance(SECOND);
    let rotated = world.storage.rotate_client(organization, "client", new, BY).await.expect(WORKS);
    assert_eq!(rotated, Client { secret: new, ..before });
    let world = world.kill_and_reopen().await;
    assert_eq!(world.storage.client("client").await.expect(WORKS), Some(rotated));
    for token in &lost {
        assert_eq!(world.storage.token(&token.digest).await.expect(WORKS), None);
    }
    assert_eq!(world.storage.token(&kept.digest).await.expect(WORKS), Some(kept));
}

pub(super) async fn a_secret_that_was_rotated_gets_no_tokens_any_more(world: World) {
    let organization = world.organization().await;
    world.storage.create_client(client(&world, organization, "client"), BY).await.expect(WORKS);
    let new = Digest::of(b"new");
    world.storage.rotate_client(organization, "client", new, BY).await.expect(WORKS);
    // Whoever has shown the old one just before.
    let token = token(&world, organization, "client", 1);
    let late = world.storage.store_tokens(&secret("client"), vec![token.clone()]).await;
    assert_eq!(kind(late), StorageErrorKind::NotFound);
    assert_eq!(world.storage.token(&token.digest).await.expect(WORKS), None);
    world.storage.store_tokens(&new, vec![token.clone()]).await.expect(WORKS);
    assert_eq!(world.storage.token(&token.digest).await.expect(WORKS), Some(token));
}

pub(super) async fn tokens_are_stored_for_clients_that_exist_all_or_none(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    world.storage.create_client(client(&world, organization, "client"), BY).await.expect(WORKS);
    let good = token(&world, organization, "client", 1);
    for bad in [token(&world, organization, "deleted", 2), token(&world, other, "client", 3)] {
        let both = vec![good.clone(), bad.clone()];
        let refused = world.storage.store_tokens(&secret("client"), both).await;
        assert_eq!(kind(refused), StorageErrorKind::NotFound);
        for digest in [good.digest, bad.digest] {
            assert_eq!(world.storage.token(&digest).await.expect(WORKS), None);
        }
    }
    world.storage.store_tokens(&secret("client"), Vec::new()).await.expect(WORKS);
}

fn client(world: &World, organization: OrganizationId, id: &str) -> Client {
    Client {
        id: id.to_owned(),
        organization,
        secret: secret(id),
        scopes: Scopes::all(),
        created_at: world.now(),
    }
}

fn secret(client: &str) -> Digest {
    Digest::of(client.as_bytes())
}

fn token(world: &World, organization: OrganizationId, client: &str, number: u8) -> Token {
    Token {
        digest: Digest::of(&[number]),
        kind: TokenKind::Access,
        client: client.to_owned(),
        organization,
        family: TokenFamily::from_bytes([1; 16]),
        scopes: Scopes::all(),
        expires_at: world.now() + SECOND * 60,
    }
}
