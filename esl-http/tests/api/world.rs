//! What a case starts from: an engine over storage in memory, two organizations, and a router.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::{HeaderMap, Method, Request, StatusCode},
};
use esl_core::{
    Actor, CallbackPolicy, Client, Clock, Digest, Esl, MemoryStorage, Organization, OrganizationId,
    Scopes, Timestamp, Token, TokenFamily, TokenKind, storage::Tenancy, testing::ManualClock,
};
use esl_http::api::{self, ApiConfig};
use serde_json::Value;
use tower::ServiceExt;

use crate::{
    entities,
    faulty::{Fault, FaultyStorage},
};

/// Monday, 15 January 2024, 14:32 UTC.
pub(crate) const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    /// Another handle on the engine's storage.
    pub(crate) storage: MemoryStorage,
    pub(crate) fault: Fault,
    pub(crate) esl: Esl,
    pub(crate) router: Router,
    /// The organization that most cases are about, and a token for all of it.
    pub(crate) organization: OrganizationId,
    pub(crate) token: String,
    /// The same for a second organization.
    pub(crate) stranger_token: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(ApiConfig::default(), CallbackPolicy::default()).await
    }

    pub(crate) async fn with(config: ApiConfig, callbacks: CallbackPolicy) -> Self {
        Self::reached_at("http://127.0.0.1:8080", config, callbacks).await
    }

    pub(crate) async fn reached_at(
        public_url: &str,
        config: ApiConfig,
        callbacks: CallbackPolicy,
    ) -> Self {
        let clock = ManualClock::new(NOON);
        let storage = MemoryStorage::with_clock(Arc::new(clock.clone()));
        let fault = Fault::default();
        // No transport: nothing is sent, so that a case alone says how deliveries fare.
        let esl = Esl::builder(FaultyStorage { inner: storage.clone(), fault: fault.clone() })
            .clock(Arc::new(clock.clone()))
            .callbacks(callbacks)
            .public_url(public_url)
            .kinds(entities::kinds())
            .build()
            .await
            .expect("an engine");
        let [organization, stranger] =
            [1, 2].map(|number| OrganizationId::from_bytes([number; 16]));
        for (id, name, client) in
            [(organization, "Acme", "acme-client"), (stranger, "Other", "other-client")]
        {
            let organization = Organization::new(id, name, NOON);
            storage
                .create_organization(organization, &Actor::APPLICATION)
                .await
                .expect("a new organization");
            let client = a_client(client, id, Scopes::all());
            storage.create_client(client, &Actor::APPLICATION).await.expect("a new client");
        }
        let router = api::router(esl.clone(), config);
        let mut world = Self {
            clock,
            storage,
            fault,
            esl,
            router,
            organization,
            token: String::new(),
            stranger_token: String::new(),
        };
        world.token = world.token_for("acme-client", organization, "events:admin").await;
        world.stranger_token = world.token_for("other-client", stranger, "events:admin").await;
        world
    }

    /// An access token for an hour.
    pub(crate) async fn token_for(
        &self,
        client: &str,
        organization: OrganizationId,
        scopes: &str,
    ) -> String {
        let text = format!("token of {client} for {scopes}").replace(' ', "-");
        let token = Token {
            digest: Digest::of(text.as_bytes()),
            kind: TokenKind::Access,
            client: client.into(),
            organization,
            family: TokenFamily::from_bytes([1; 16]),
            scopes: scopes.parse().expect("scopes"),
            expires_at: self.clock.utc() + Duration::from_secs(3600),
        };
        let secret = Digest::of(secret_of(client).as_bytes());
        self.storage.store_tokens(&secret, vec![token]).await.expect("a stored token");
        text
    }

    /// A request with the first organization's token.
    pub(crate) fn call(&self, method: Method, uri: &str) -> Call<'_> {
        self.anonymous(method, uri).token(&self.token)
    }

    pub(crate) fn get(&self, uri: &str) -> Call<'_> {
        self.call(Method::GET, uri)
    }

    pub(crate) fn post(&self, uri: &str) -> Call<'_> {
        self.call(Method::POST, uri)
    }

    /// A request without a token.
    pub(crate) fn anonymous(&self, method: Method, uri: &str) -> Call<'_> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().expect("a URI");
        Call { world: self, request }
    }

    /// A subscription of the first organization, and its id.
    pub(crate) async fn subscribe(&self, events: &[&str]) -> String {
        let body =
            serde_json::json!({ "callback_url": "https://a.example/hook", "events": events });
        let reply = self.post("/api/v1/subscriptions").json(&body).send().await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
        reply.body["id"].as_str().expect("an id").to_owned()
    }

    /// An event of the first organization, and its id.
    pub(crate) async fn publish(&self, event_type: &str) -> String {
        let body = serde_json::json!({ "type": event_type, "data": {} });
        let reply = self.post("/api/v1/events").json(&body).send().await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.body);
        reply.body["id"].as_str().expect("an id").to_owned()
    }
}

pub(crate) fn a_client(id: &str, organization: OrganizationId, scopes: Scopes) -> Client {
    let secret = Digest::of(secret_of(id).as_bytes());
    Client { id: id.into(), organization, secret, scopes, created_at: NOON }
}

pub(crate) fn secret_of(client: &str) -> String {
    format!("the secret of {client}: 100% & more")
}

/// A request in the making.
pub(crate) struct Call<'w> {
    world: &'w World,
    request: Request<Body>,
}

impl Call<'_> {
    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Comes from that address.
    pub(crate) fn from(mut self, address: &str) -> Self {
        let peer = SocketAddr::new(address.parse().expect("an address"), 4711);
        self.request.extensions_mut().insert(ConnectInfo(peer));
        self
    }

    /// Sets a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.request.headers_mut().insert(name, value.parse().expect("a header"));
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.raw_json(&body.to_string())
    }

    pub(crate) fn raw_json(self, body: &str) -> Self {
        self.header("content-type", "application/json").body(body.to_owned())
    }

    pub(crate) fn form(self, body: &str) -> Self {
        self.header("content-type", "application/x-www-form-urlencoded").body(body.to_owned())
    }

    pub(crate) fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    pub(crate) async fn send(self) -> Reply {
        let response = self.world.router.clone().oneshot(self.request).await.expect("infallible");
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a whole body");
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let body = match text.as_str() {
            "" => Value::Null,
            // A part of JSON is none.
            _ if head.status == StatusCode::PARTIAL_CONTENT => Value::Null,
            text => serde_json::from_str(text).expect(text),
        };
        Reply { status: head.status, headers: head.headers, text, body }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// The body, which is JSON; null if there is none.
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// The `errors` of a 422, in short.
    #[track_caller]
    pub(crate) fn faults(&self) -> Vec<(String, String)> {
        assert_eq!(self.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let errors = self.body["errors"].as_array().expect("errors");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        errors
            .iter()
            .map(|error| {
                let place = ["pointer", "parameter", "header"]
                    .into_iter()
                    .find_map(|kind| error.get(kind).map(|place| (kind, text(place))));
                let (kind, place) = place.expect("a place");
                let place = if kind == "pointer" { place } else { format!("{kind} {place}") };
                (place, text(&error["detail"]))
            })
            .collect()
    }

    /// The places of a 422's faults.
    #[track_caller]
    pub(crate) fn places(&self) -> Vec<String> {
        self.faults().into_iter().map(|(place, _)| place).collect()
    }
}
