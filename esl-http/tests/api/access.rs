//! Who may: every route of the table, with every kind of token that does not open it.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{Method, StatusCode},
};
use esl_core::{
    Clock, Digest, Esl, MemoryBlobStore, MemoryStorage, OrganizationId, Scope, Token, TokenFamily,
    TokenKind, storage::Tenancy,
};
use esl_http::api::{Access, ApiConfig, RouteEntry, route_entries};
use futures_util::stream;
use serde_json::{Value, json};

use crate::{
    blobs, entities,
    world::{Call, Reply, World, secret_of},
};

/// An organization that has one of everything, and another one that has nothing.
struct Scene {
    world: World,
    subscription: String,
    /// Its data is too large to be inline.
    event: String,
    delivery: String,
    replay: String,
    client: String,
    /// Which waits to be announced.
    maintenance: String,
    author: String,
    book: String,
    /// Its id was chosen.
    card: String,
}

impl Scene {
    async fn new() -> Self {
        let world = blobs::world_with(MemoryBlobStore::new(), ApiConfig::default()).await;
        let subscription = world.subscribe(&["*"]).await;
        let event = blobs::publish(&world, &json!("x".repeat(5000))).await;
        let of_subscription = format!("/api/v1/subscriptions/{subscription}");
        let list = world.get(&format!("{of_subscription}/deliveries")).send().await;
        let begun = world.post(&format!("{of_subscription}/replay")).send().await;
        let replay = text(&begun.body["id"]);
        // One at a time: so that a case can begin another.
        let cancelled = world.post(&format!("/api/v1/replays/{replay}/cancel")).send().await;
        assert_eq!(cancelled.status, StatusCode::OK, "{}", cancelled.text);
        let client = json!({ "client_id": "shop" });
        let client = world.post("/api/v1/clients").json(&client).send().await;
        let later = maintenance(Some("2024-06-01T00:00:00Z"));
        let maintenance = world.post("/api/admin/maintenance").json(&later).send().await;
        let author = entities::create(&world, "/api/authors", &author()).await;
        let book = entities::create(&world, "/api/books", &json!({ "title": "acme" })).await;
        let card = entities::put(&world, "/api/library/cards/acme-1", &card()).await;
        Self {
            subscription,
            event: text(&event["id"]),
            delivery: text(&list.body["data"][0]["id"]),
            replay,
            client: text(&client.body["client_id"]),
            maintenance: text(&maintenance.body["id"]),
            author: text(&author["id"]),
            book: text(&book["id"]),
            card: text(&card["id"]),
            world,
        }
    }

    /// A path of the organization's own: `{id}` is what it has.
    fn own(&self, route: &RouteEntry) -> String {
        route.path.replace("{id}", self.ids(route).0)
    }

    /// A path to what nobody has.
    fn unknown(&self, route: &RouteEntry) -> String {
        route.path.replace("{id}", self.ids(route).1)
    }

    /// What stands for `{id}`: what the organization has, and what nobody has.
    fn ids(&self, route: &RouteEntry) -> (&str, &'static str) {
        let (before, _) = route.path.split_once("{id}").unwrap_or((&route.path, ""));
        match before {
            "/api/v1/subscriptions/" => (&self.subscription, "sub_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"),
            "/api/v1/events/" | "/api/v1/blobs/" => (&self.event, "evt_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"),
            "/api/v1/deliveries/" => (&self.delivery, "dlv_00000000000000000000000001"),
            "/api/v1/replays/" => (&self.replay, "rpl_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"),
            "/api/v1/clients/" => (&self.client, "nobody"),
            "/api/admin/maintenance/" => (&self.maintenance, "evt_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"),
            "/api/authors/" => (&self.author, "author_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"),
            "/api/books/" => (&self.book, "book_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"),
            "/api/library/cards/" => (&self.card, "nobodys"),
            _ if !route.path.contains('{') => ("", ""),
            _ => panic!(
                "{} {}: this test does not know what stands for its {{id}}. Give `Scene` one, and \
                 name it in `Scene::ids`, in {}",
                route.method,
                route.path,
                file!()
            ),
        }
    }

    /// A request as the route wants it, without a token.
    fn call(&self, route: &RouteEntry, path: &str) -> Call<'_> {
        let call = self.world.anonymous(route.method.clone(), path);
        let body = match (route.method.as_str(), &*route.path) {
            ("POST", "/api/v1/events") => json!({ "type": "person.updated", "data": {} }),
            ("POST", "/api/v1/subscriptions") => {
                json!({ "callback_url": "https://a.example/hook", "events": ["*"] })
            }
            ("PATCH", "/api/v1/subscriptions/{id}") => json!({ "active": false }),
            ("POST", "/api/admin/maintenance") => maintenance(None),
            ("POST", "/api/authors") | ("PUT", "/api/authors/{id}") => author(),
            ("POST", "/api/books") | ("PUT", "/api/books/{id}") => json!({ "title": "acme" }),
            ("PUT", "/api/library/cards/{id}") => card(),
            ("PATCH", path) if is_entity(path) => json!({}),
            // The others take none, or one that may be left out.
            _ => return call,
        };
        call.json(&body)
    }

    /// All that the organization can read by the table.
    async fn everything(&self) -> Vec<(String, String)> {
        let mut read = Vec::new();
        let routes = guarded(&self.world).into_iter();
        for (route, _) in routes.filter(|(route, _)| route.method == Method::GET) {
            let path = self.own(&route);
            let reply = self.world.get(&path).send().await;
            assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text);
            read.push((path, reply.text));
        }
        read
    }
}

fn is_entity(path: &str) -> bool {
    !path.starts_with("/api/v1/") && !path.starts_with("/api/admin/")
}

fn author() -> Value {
    json!({ "name": "acme" })
}

fn card() -> Value {
    json!({ "holder": "acme" })
}

fn maintenance(announce_at: Option<&str>) -> Value {
    let mut body = json!({
        "starts_at": "2030-01-02T00:00:00Z", "ends_at": "2030-01-03T00:00:00Z", "message": "acme",
    });
    if let Some(at) = announce_at {
        body["announce_at"] = at.into();
    }
    body
}

#[tokio::test]
async fn no_route_opens_without_a_good_token_and_none_looks_at_the_request_before() {
    let scene = Scene::new().await;
    let bad_tokens = bad_tokens(&scene.world).await;
    for (route, _) in guarded(&scene.world) {
        let no_id = route.path.replace("{id}", "nonsense");
        for path in [scene.own(&route), no_id] {
            for (kind, token) in &bad_tokens {
                // What is wrong here is not for whoever has no token to know.
                let call = scene.world.anonymous(route.method.clone(), &format!("{path}?nonsense"));
                let call = match token {
                    Some(token) => call.token(token),
                    None => call,
                };
                let reply = call.body(untouchable()).send().await;
                let of = format!("{} {path} with {kind}: {}", route.method, reply.text);
                assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{of}");
                assert_eq!(reply.body["code"], "unauthorized", "{of}");
                let challenge = match token {
                    Some(_) => r#"Bearer realm="esl", error="invalid_token""#,
                    None => r#"Bearer realm="esl""#,
                };
                assert_eq!(reply.header("www-authenticate"), Some(challenge), "{of}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_with_every_other_scope_is_told_which_it_lacks() {
    let scene = Scene::new().await;
    for (route, opening) in guarded(&scene.world) {
        let others = Scope::ALL.into_iter().filter(|scope| {
            // Which has all of them.
            *scope != Scope::Admin && !opening.contains(scope)
        });
        let token = scene.token(others).await;
        let call = scene.world.anonymous(route.method.clone(), &scene.own(&route));
        let reply = call.token(&token).body(untouchable()).send().await;
        let of = format!("{} {}: {}", route.method, route.path, reply.text);
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{of}");
        assert_eq!(reply.body["code"], "insufficient_scope", "{of}");
        let names: Vec<_> = opening.iter().map(|scope| scope.as_str()).collect();
        let detail = format!("the token lacks the scope {}", names.join(" or "));
        assert_eq!(reply.body["detail"], detail, "{of}");
        let challenge =
            format!(r#"Bearer realm="esl", error="insufficient_scope", scope="{}""#, names[0]);
        assert_eq!(reply.header("www-authenticate"), Some(&*challenge), "{of}");
    }
}

#[tokio::test]
async fn each_of_its_scopes_opens_a_route_and_so_does_admin() {
    let routes = guarded(&World::new().await);
    for (route, opening) in routes {
        for scope in opening.iter().copied().chain([Scope::Admin]) {
            let scene = Scene::new().await;
            let token = scene.token([scope]).await;
            let reply = scene.call(&route, &scene.own(&route)).token(&token).send().await;
            // What is pending already is not sent again.
            let is_pending =
                route.path.ends_with("/redeliver") && reply.status == StatusCode::CONFLICT;
            assert!(
                reply.status.is_success() || is_pending,
                "{} {} with {}: {} {}\nIf it wants a body, `Scene::call` is the place for it, in {}",
                route.method,
                route.path,
                scope.as_str(),
                reply.status,
                reply.text,
                file!()
            );
        }
    }
}

#[tokio::test]
async fn what_belongs_to_another_organization_is_like_what_does_not_exist() {
    let scene = Scene::new().await;
    let before = scene.everything().await;
    let routes = guarded(&scene.world).into_iter();
    let of_one = routes.filter(|(route, _)| {
        // Which makes one of that id, of the stranger's own.
        let is_making = route.method == Method::PUT && route.path.contains("/cards/");
        route.path.contains("{id}") && !is_making
    });
    for (route, _) in of_one {
        let stranger = &scene.world.stranger_token;
        let theirs = scene.call(&route, &scene.own(&route)).token(stranger).send().await;
        let nobodys = scene.call(&route, &scene.unknown(&route)).token(stranger).send().await;
        let of = format!("{} {}: {}", route.method, route.path, theirs.text);
        assert_eq!(theirs.status, StatusCode::NOT_FOUND, "{of}");
        assert_eq!(seen(&theirs), seen(&nobodys), "{of}");
    }
    assert_eq!(scene.everything().await, before, "nothing has changed");
}

#[tokio::test]
async fn lists_show_nothing_of_another_organization() {
    let scene = Scene::new().await;
    let Scene { subscription, event, delivery, replay, client, maintenance, .. } = &scene;
    let Scene { author, book, card, .. } = &scene;
    let ids = [subscription, event, delivery, replay, client, maintenance, author, book, card];
    let secrets = ids.into_iter().map(|id| &**id).chain(["acme", "a.example", "xxx"]);
    let is_list = |route: &RouteEntry| route.method == Method::GET && !route.path.contains('{');
    let lists = guarded(&scene.world).into_iter().filter(|(route, _)| is_list(route));
    for (route, _) in lists {
        let reply = scene.call(&route, &route.path).token(&scene.world.stranger_token).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{}: {}", route.path, reply.text);
        for secret in secrets.clone() {
            assert!(!reply.text.contains(secret), "{}: {secret} in {}", route.path, reply.text);
        }
    }
}

#[tokio::test]
async fn routes_that_ask_for_no_token_are_those_that_are_meant_to() {
    let scene = Scene::new().await;
    let issuer = scene.world.esl.public_url().splitn(4, '/').nth(3).expect("it has a path");
    for mut route in table(&scene.world) {
        let Access::Open = route.access else { continue };
        route.path = route.path.replace("{*issuer}", issuer).into();
        // A token, good or not, makes no difference.
        for token in [None, Some("nonsense"), Some(&*scene.world.token)] {
            let call = scene.world.anonymous(route.method.clone(), &route.path);
            let call = match token {
                Some(token) => call.token(token),
                None => call,
            };
            let form = "grant_type=client_credentials&token=x";
            let (call, status) = match &*route.path {
                "/health" | "/health/ready" => (call, StatusCode::OK),
                path if path.starts_with("/.well-known/oauth-authorization-server") => {
                    (call, StatusCode::OK)
                }
                // A client proves itself there.
                "/oauth/token" | "/oauth/revoke" | "/oauth/introspect" => {
                    (call.form(form), StatusCode::UNAUTHORIZED)
                }
                path => panic!(
                    "{path} asks for no token. If that is meant, say here what it answers to \
                     whoever has none, in {}",
                    file!()
                ),
            };
            let reply = call.send().await;
            assert_eq!(reply.status, status, "{} {token:?}: {}", route.path, reply.text);
        }
    }
}

#[tokio::test]
async fn a_link_opens_large_payloads_and_nothing_else() {
    let scene = Scene::new().await;
    let event = scene.world.get(&format!("/api/v1/events/{}", scene.event)).send().await;
    let link = blobs::link(&event.body);
    let (path, query) = link.split_once('?').expect("a signed link");
    assert_eq!(path, format!("/api/v1/blobs/{}", scene.event));
    for (route, _) in guarded(&scene.world) {
        let uri = format!("{}?{query}", scene.own(&route));
        let reply = scene.call(&route, &uri).send().await;
        let expected = match route.access {
            Access::LinkOrToken(_) => StatusCode::OK,
            Access::Token(_) | Access::Open => StatusCode::UNAUTHORIZED,
        };
        assert_eq!(reply.status, expected, "{} {uri}: {}", route.method, reply.text);
    }
}

#[tokio::test]
async fn the_documentation_names_every_route_and_its_scopes() {
    // Which kinds of entities there are is no matter of this page.
    let esl = Esl::builder(MemoryStorage::new()).build().await.expect("an engine");
    let page = include_str!("../../../docs/api.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| [`")).map(|row| {
        let (route, rest) = row.split_once("`](#").expect("a route and its link");
        let (anchor, rest) = rest.split_once(") | ").expect("its scope");
        let (scope, _) = rest.split_once(" |").expect("what it is for");
        (route.to_owned(), anchor, scope.to_owned())
    });
    let mut documented = Vec::new();
    for (route, anchor, scope) in rows {
        let characters = route.chars().map(|one| if one == ' ' { '-' } else { one });
        let slug: String = characters
            .filter(|one| one.is_ascii_alphanumeric() || matches!(one, '-' | '_'))
            .map(|one| one.to_ascii_lowercase())
            .collect();
        assert_eq!(anchor, slug, "{route}");
        let heading = format!("\n## `{route}`\n\n");
        let (_, section) = page.split_once(&heading).unwrap_or_else(|| panic!("no{heading}"));
        if !scope.contains('–') && !scope.contains("link") {
            assert!(section.starts_with(&format!("Scope {scope}. ")), "{route}");
        }
        documented.push((route.replace("{event_id}", "{id}"), scope));
    }
    let names = |scopes: &[Scope]| {
        let names: Vec<_> = scopes.iter().map(|scope| format!("`{}`", scope.as_str())).collect();
        names.join(" or ")
    };
    let table = route_entries(&esl).into_iter().map(|route| {
        let scope = match route.access {
            Access::Open => "–".to_owned(),
            Access::Token(scopes) => names(scopes),
            Access::LinkOrToken(scopes) => format!("{}, or a signed link", names(scopes)),
        };
        (format!("{} {}", route.method, route.path), scope)
    });
    let table: Vec<_> = table.collect();
    for (documented, in_table) in documented.iter().zip(&table) {
        assert_eq!(documented, in_table, "in docs/api.md, and in the table of routes");
    }
    assert_eq!(documented.len(), table.len());
    let headings = page.lines().filter(|line| line.starts_with("## `")).count();
    assert_eq!(headings, documented.len(), "every section about a route is in the table");
}

impl Scene {
    /// A token of the organization that has these scopes.
    async fn token(&self, scopes: impl IntoIterator<Item = Scope>) -> String {
        let scopes = scopes.into_iter().collect::<esl_core::Scopes>().to_string();
        self.world.token_for("acme-client", self.world.organization, &scopes).await
    }
}

fn table(world: &World) -> Vec<RouteEntry> {
    route_entries(&world.esl)
}

/// The routes that a token opens, with the scopes of which it needs one.
fn guarded(world: &World) -> Vec<(RouteEntry, &'static [Scope])> {
    let routes = table(world).into_iter();
    let guarded = routes.filter_map(|route| match route.access {
        Access::Open => None,
        Access::Token(scopes) | Access::LinkOrToken(scopes) => Some((route, scopes)),
    });
    let guarded: Vec<_> = guarded.collect();
    assert!(guarded.len() > 20, "the table is not empty");
    guarded
}

/// No token, and those of each kind that opens nothing (any more).
async fn bad_tokens(world: &World) -> Vec<(&'static str, Option<String>)> {
    let organization = world.organization;
    let revoked = world.token_for("acme-client", organization, "events:admin events:read").await;
    let digest = Digest::of(revoked.as_bytes());
    let revoking = world.storage.revoke_token(organization, "acme-client", &digest).await;
    assert_eq!(revoking.expect("storage works"), esl_core::Revoked::Done);
    let expired = stored(world, organization, TokenKind::Access, Duration::from_secs(1)).await;
    let refresh = stored(world, organization, TokenKind::Refresh, Duration::from_secs(60)).await;
    // Known to the server from before it expires.
    let before = world.anonymous(Method::GET, "/api/v1/events").token(&expired).send().await;
    assert_eq!(before.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(1));
    vec![
        ("no token", None),
        ("garbage", Some("garbage".to_owned())),
        ("an expired token", Some(expired)),
        ("a revoked token", Some(revoked)),
        ("a refresh token", Some(refresh)),
    ]
}

async fn stored(
    world: &World,
    organization: OrganizationId,
    kind: TokenKind,
    lifetime: Duration,
) -> String {
    let text = format!("{kind:?}-for-{}-s", lifetime.as_secs());
    let token = Token {
        digest: Digest::of(text.as_bytes()),
        kind,
        client: "acme-client".into(),
        organization,
        family: TokenFamily::from_bytes([2; 16]),
        scopes: [Scope::Admin].into_iter().collect(),
        expires_at: world.clock.utc() + lifetime,
    };
    let secret = Digest::of(secret_of("acme-client").as_bytes());
    world.storage.store_tokens(&secret, vec![token]).await.expect("a stored token");
    text
}

/// A body that nobody may read: a panic is 500.
fn untouchable() -> Body {
    let read = || -> Result<Bytes, Infallible> { panic!("the body was read") };
    Body::from_stream(stream::once(async move { read() }))
}

/// An answer but for what differs between any two.
fn seen(reply: &Reply) -> (StatusCode, Vec<(String, String)>, &str) {
    let headers = reply.headers.keys().filter(|name| *name != "x-request-id");
    let headers = headers.map(|name| {
        (name.to_string(), reply.header(name.as_str()).expect("it is there").to_owned())
    });
    (reply.status, headers.collect(), &reply.text)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
