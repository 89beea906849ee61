//! Trading refresh tokens, and revoking.

use std::{sync::Arc, time::Duration};

use super::{
    BY,
    world::{SECOND, WORKS, World},
};
use crate::{
    Client, Digest, NewToken, OrganizationId, Renewed, Revoked, Rotated, Rotation, Scope, Scopes,
    Token, TokenFamily, TokenKind, storage::Storage,
};

pub(super) async fn a_refresh_token_is_traded_once(world: World) {
    let grant = Grant::new(&world, 1).await;
    let rotation = grant.rotation(&world, 11);
    let rotated = world.storage.rotate_token(rotation.clone()).await.expect(WORKS);
    let access = Token {
        digest: rotation.access.digest,
        expires_at: rotation.access.expires_at,
        ..grant.access.clone()
    };
    let refresh = Token {
        digest: rotation.refresh.digest,
        expires_at: rotation.refresh.expires_at,
        ..grant.refresh.clone()
    };
    let renewed = Renewed { access: access.clone(), refresh: refresh.clone() };
    assert_eq!(rotated, Rotated::Renewed(Box::new(renewed)));
    assert_eq!(find(&world, &access).await.as_ref(), Some(&access));
    assert_eq!(find(&world, &refresh).await.as_ref(), Some(&refresh));
    assert_eq!(find(&world, &grant.refresh).await, None, "it is used up");
    assert_eq!(find(&world, &grant.access).await.as_ref(), Some(&grant.access));
    // And so is the new one.
    let next = Rotation { shown: refresh.digest, ..grant.rotation(&world, 12) };
    let rotated = world.storage.rotate_token(next).await.expect(WORKS);
    assert!(matches!(rotated, Rotated::Renewed(_)), "{rotated:?}");
}

pub(super) async fn a_refresh_token_that_comes_again_revokes_its_family(world: World) {
    let (grant, other) = (Grant::new(&world, 1).await, Grant::new(&world, 2).await);
    let rotation = grant.rotation(&world, 11);
    assert_renewed(world.storage.rotate_token(rotation.clone()).await.expect(WORKS));
    let next = Rotation { shown: rotation.refresh.digest, ..grant.rotation(&world, 12) };
    assert_renewed(world.storage.rotate_token(next.clone()).await.expect(WORKS));

    let again = Rotation { shown: grant.refresh.digest, ..grant.rotation(&world, 13) };
    let rotated = world.storage.rotate_token(again.clone()).await.expect(WORKS);
    assert_eq!(rotated, Rotated::Reused);
    let family = [grant.access.digest, grant.refresh.digest];
    let renewed = [&rotation, &next, &again].map(|new| [new.access.digest, new.refresh.digest]);
    for digest in family.into_iter().chain(renewed.concat()) {
        assert_eq!(world.storage.token(&digest).await.expect(WORKS), None);
    }
    let last = Rotation { shown: next.refresh.digest, ..grant.rotation(&world, 14) };
    assert_eq!(world.storage.rotate_token(last).await.expect(WORKS), Rotated::Unknown);
    // What the client was given otherwise stays.
    for token in [&other.access, &other.refresh] {
        assert_eq!(find(&world, token).await.as_ref(), Some(token));
    }
}

pub(super) async fn of_two_who_trade_one_token_one_wins_and_the_other_revokes(world: World) {
    const ROUNDS: u8 = 8;
    let beside = world.another_handle().await;
    for round in 1..=ROUNDS {
        let grant = Grant::new(&world, round).await;
        let mut tasks = tokio::task::JoinSet::new();
        for (storage, number) in [(&world.storage, 100), (&beside, 150)] {
            let rotation = grant.rotation(&world, number + round);
            let storage: Arc<dyn Storage> = Arc::clone(storage);
            tasks.spawn(async move { storage.rotate_token(rotation).await.expect(WORKS) });
        }
        let rotated = tasks.join_all().await;
        let won = rotated.iter().filter(|one| matches!(one, Rotated::Renewed(_))).count();
        let lost = rotated.iter().filter(|one| **one == Rotated::Reused).count();
        assert_eq!((won, lost), (1, 1), "{rotated:?}");
        for digest in [100, 150].map(|number| grant.rotation(&world, number + round).refresh) {
            assert_eq!(world.storage.token(&digest.digest).await.expect(WORKS), None);
        }
    }
}

pub(super) async fn only_its_client_trades_a_token_and_only_before_it_expires(world: World) {
    let grant = Grant::new(&world, 1).await;
    let stranger = Grant::new(&world, 2).await;
    let beside = client(&world, grant.access.organization, "beside", Scopes::all());
    world.storage.create_client(beside, BY).await.expect(WORKS);
    let own = grant.rotation(&world, 11);
    let organization = stranger.access.organization;
    for refused in [
        Rotation { client: "beside".into(), ..own.clone() },
        Rotation { client: stranger.access.client.clone(), organization, ..own.clone() },
        Rotation { organization, ..own.clone() },
        Rotation { shown: grant.access.digest, ..own.clone() },
        Rotation { shown: Digest::of(b"unknown"), ..own.clone() },
    ] {
        let rotated = world.storage.rotate_token(refused.clone()).await.expect(WORKS);
        assert_eq!(rotated, Rotated::Unknown, "{refused:?}");
    }
    // None of them has used it up, or revoked anything.
    assert_eq!(find(&world, &grant.access).await.as_ref(), Some(&grant.access));
    world.clock.advance(SECOND * 86_400 - Duration::from_millis(1));
    assert_renewed(world.storage.rotate_token(own).await.expect(WORKS));
    // Used up by another client's hand, it is none of theirs either.
    let theirs = Rotation { client: "beside".into(), ..grant.rotation(&world, 12) };
    assert_eq!(world.storage.rotate_token(theirs).await.expect(WORKS), Rotated::Unknown);
    let late = Rotation { shown: stranger.refresh.digest, ..stranger.rotation(&world, 13) };
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.storage.rotate_token(late).await.expect(WORKS), Rotated::Unknown);
    let used = grant.rotation(&world, 14);
    assert_eq!(world.storage.rotate_token(used).await.expect(WORKS), Rotated::Unknown);
}

pub(super) async fn a_trade_gives_no_more_than_the_grant_and_the_client_have(world: World) {
    let scopes = |list: &[Scope]| list.iter().copied().collect::<Scopes>();
    let granted = scopes(&[Scope::Read, Scope::Publish]);
    for (number, asked, held, access, refresh) in [
        (1, None, Scopes::all(), Some(granted), granted),
        (2, Some(scopes(&[Scope::Read])), Scopes::all(), Some(scopes(&[Scope::Read])), granted),
        (3, Some(scopes(&[Scope::Subscribe])), Scopes::all(), None, granted),
        (4, None, scopes(&[Scope::Read]), Some(scopes(&[Scope::Read])), scopes(&[Scope::Read])),
        (5, Some(scopes(&[Scope::Publish])), scopes(&[Scope::Read]), None, scopes(&[Scope::Read])),
        (6, None, scopes(&[Scope::Subscribe]), None, Scopes::NONE),
    ] {
        let grant = Grant::with(&world, number, held, granted).await;
        let rotation = Rotation { scopes: asked, ..grant.rotation(&world, 100 + number) };
        let rotated = world.storage.rotate_token(rotation).await.expect(WORKS);
        let Some(access) = access else {
            assert_eq!(rotated, Rotated::Exceeds(refresh), "{number}");
            // It can be traded still.
            assert_eq!(find(&world, &grant.refresh).await.as_ref(), Some(&grant.refresh));
            continue;
        };
        let Rotated::Renewed(given) = rotated else {
            panic!("{number}: {rotated:?}");
        };
        assert_eq!((given.access.scopes, given.refresh.scopes), (access, refresh), "{number}");
    }
}

pub(super) async fn a_revoked_access_token_goes_alone_and_a_refresh_token_with_its_family(
    world: World,
) {
    let grant = Grant::new(&world, 1).await;
    let stranger = Grant::new(&world, 2).await;
    let organization = grant.access.organization;
    let beside = client(&world, organization, "beside", Scopes::all());
    world.storage.create_client(beside, BY).await.expect(WORKS);
    let revoke = async |organization, client: &str, token: &Token| {
        world.storage.revoke_token(organization, client, &token.digest).await.expect(WORKS)
    };
    let own = grant.access.client.clone();
    assert_eq!(revoke(organization, "beside", &grant.access).await, Revoked::OfAnother);
    assert_eq!(revoke(organization, "beside", &grant.refresh).await, Revoked::OfAnother);
    let (theirs, other) = (&stranger.access.client, stranger.access.organization);
    assert_eq!(revoke(other, theirs, &grant.refresh).await, Revoked::Unknown);
    for token in [&grant.access, &grant.refresh] {
        assert_eq!(find(&world, token).await.as_ref(), Some(token));
    }

    assert_eq!(revoke(organization, &own, &grant.access).await, Revoked::Done);
    assert_eq!(find(&world, &grant.access).await, None);
    assert_eq!(find(&world, &grant.refresh).await.as_ref(), Some(&grant.refresh));
    assert_eq!(revoke(organization, &own, &grant.access).await, Revoked::Unknown);

    let rotation = grant.rotation(&world, 11);
    assert_renewed(world.storage.rotate_token(rotation.clone()).await.expect(WORKS));
    // A token that was used up still names its family.
    assert_eq!(revoke(organization, &own, &grant.refresh).await, Revoked::Done);
    for digest in [rotation.access.digest, rotation.refresh.digest] {
        assert_eq!(world.storage.token(&digest).await.expect(WORKS), None);
    }
    assert_eq!(revoke(organization, &own, &grant.refresh).await, Revoked::Unknown);
    assert_eq!(find(&world, &stranger.refresh).await.as_ref(), Some(&stranger.refresh));
}

pub(super) async fn what_was_used_up_or_revoked_is_so_after_a_kill(world: World) {
    let (used, revoked) = (Grant::new(&world, 1).await, Grant::new(&world, 2).await);
    let rotation = used.rotation(&world, 11);
    assert_renewed(world.storage.rotate_token(rotation.clone()).await.expect(WORKS));
    let Token { organization, client, digest, .. } = &revoked.refresh;
    let done = world.storage.revoke_token(*organization, client, digest).await.expect(WORKS);
    assert_eq!(done, Revoked::Done);

    let world = world.kill_and_reopen().await;
    assert_eq!(find(&world, &revoked.access).await, None);
    let again = used.rotation(&world, 12);
    assert_eq!(world.storage.rotate_token(again).await.expect(WORKS), Rotated::Reused);
    let world = world.kill_and_reopen().await;
    assert_eq!(world.storage.token(&rotation.refresh.digest).await.expect(WORKS), None);
}

pub(super) async fn used_up_tokens_are_swept_when_they_expire(world: World) {
    let grant = Grant::new(&world, 1).await;
    assert_renewed(world.storage.rotate_token(grant.rotation(&world, 11)).await.expect(WORKS));
    let organization = grant.access.organization;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    assert_eq!(world.storage.sweep(&worker, 100).await.expect(WORKS).tokens, 0);
    world.clock.advance(SECOND * 86_400);
    let worker = world.worker_of(&[subscription.lane]).await;
    assert_eq!(world.storage.sweep(&worker, 100).await.expect(WORKS).tokens, 4);
}

/// A client of its own in an organization of its own, and what it was given at once.
struct Grant {
    access: Token,
    refresh: Token,
}

impl Grant {
    async fn new(world: &World, number: u8) -> Self {
        Self::with(world, number, Scopes::all(), Scopes::all()).await
    }

    async fn with(world: &World, number: u8, held: Scopes, granted: Scopes) -> Self {
        let organization = world.organization().await;
        let id = format!("client {number}");
        let client = client(world, organization, &id, held);
        let secret = client.secret;
        world.storage.create_client(client, BY).await.expect(WORKS);
        let access = Token {
            digest: Digest::of(&[0, number]),
            kind: TokenKind::Access,
            client: id,
            organization,
            // The same for all: a family only means something beside its client.
            family: TokenFamily::from_bytes([7; 16]),
            scopes: granted,
            expires_at: world.now() + SECOND * 86_400,
        };
        let digest = Digest::of(&[1, number]);
        let refresh = Token { digest, kind: TokenKind::Refresh, ..access.clone() };
        let both = vec![access.clone(), refresh.clone()];
        world.storage.store_tokens(&secret, both).await.expect(WORKS);
        Self { access, refresh }
    }

    /// Its refresh token shown, for two new ones.
    fn rotation(&self, world: &World, number: u8) -> Rotation {
        let expires_at = world.now() + SECOND * 86_400;
        Rotation {
            shown: self.refresh.digest,
            client: self.refresh.client.clone(),
            organization: self.refresh.organization,
            scopes: None,
            access: NewToken { digest: Digest::of(&[2, number]), expires_at },
            refresh: NewToken { digest: Digest::of(&[3, number]), expires_at },
        }
    }
}

fn client(world: &World, organization: OrganizationId, id: &str, scopes: Scopes) -> Client {
    let secret = Digest::of(id.as_bytes());
    Client { id: id.to_owned(), organization, secret, scopes, created_at: world.now() }
}

async fn find(world: &World, token: &Token) -> Option<Token> {
    world.storage.token(&token.digest).await.expect(WORKS)
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "so that a call stands around an await")]
fn assert_renewed(rotated: Rotated) {
    assert!(matches!(rotated, Rotated::Renewed(_)), "{rotated:?}");
}
