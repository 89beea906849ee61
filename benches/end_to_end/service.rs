//! ESL itself: storage, the API and the transport, as `esl-server` wires them.

use std::{path::Path, time::Duration};

use esl::{
    Actor, CallbackPolicy, CallbackUrl, Client, Digest, Esl, EslBuilder, EventType, HttpTransport,
    Limit, NewSubscription, Organization, OrganizationId, Plan, Scopes, SqliteStorage, Tier,
    Timestamp, Token, TokenFamily, TokenKind,
    api::{self, ApiConfig, ServerLimits},
    storage::Tenancy,
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{load::Load, receiver::Receiver, tally::numbered};

pub(crate) const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([7; 16]);
/// Another organization on the same service.
pub(crate) const BYSTANDER: OrganizationId = OrganizationId::from_bytes([8; 16]);

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) esl: Esl,
    url: String,
}

impl Service {
    /// On a new database, with a token.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let storage = new_storage(folder).await?;
        Self::over(storage).await
    }

    /// On a database that is there.
    pub(crate) async fn over(storage: SqliteStorage) -> anyhow::Result<Self> {
        Self::serve(Esl::builder(storage)).await
    }

    /// An engine whose storage is chosen.
    pub(crate) async fn serve(builder: EslBuilder) -> anyhow::Result<Self> {
        let policy = CallbackPolicy::allow_private();
        let transport = HttpTransport::new(policy.clone());
        let builder = builder.callbacks(policy).transport(transport);
        let esl = builder.grace(Duration::from_secs(1)).build().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let config = ApiConfig::default().with_trusted_proxies("127.0.0.1".parse()?);
        let router = api::router(esl.clone(), config);
        let limits = ServerLimits::default();
        tokio::spawn(api::serve(listener, router, std::future::pending(), limits));
        Ok(Self { esl, url })
    }

    /// Subscribes a receiver to what the publishers send.
    pub(crate) async fn subscribe(&self, receiver: &Receiver) -> anyhow::Result<()> {
        self.subscribe_to(receiver, "person.*").await
    }

    pub(crate) async fn subscribe_to(
        &self,
        receiver: &Receiver,
        pattern: &str,
    ) -> anyhow::Result<()> {
        self.subscribe_as(ORGANIZATION, receiver, pattern).await
    }

    pub(crate) async fn subscribe_as(
        &self,
        organization: OrganizationId,
        receiver: &Receiver,
        pattern: &str,
    ) -> anyhow::Result<()> {
        self.esl.subscribe(organization, wish(&receiver.url, pattern)?).await?;
        Ok(())
    }

    /// Publishes an event that is a number.
    pub(crate) async fn publish(&self, event_type: &str, number: usize) -> anyhow::Result<()> {
        self.esl.publish(numbered(&event_type.parse()?, number, 0)?).await?;
        Ok(())
    }

    pub(crate) fn load(&self) -> Load {
        self.load_as(ORGANIZATION)
    }

    pub(crate) fn load_as(&self, organization: OrganizationId) -> Load {
        Load::new(&self.url, "/api/v1/events", &token(organization), b"HTTP/1.1 202")
    }

    /// Sends this JSON, with the token.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        body: &str,
        expected: &'static [u8],
    ) -> Load {
        let token = token(ORGANIZATION);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json"
        );
        Load::raw(&self.url, &head, body, expected)
    }

    /// Reads a few events, again and again.
    pub(crate) fn reading(&self) -> Load {
        let token = token(BYSTANDER);
        let head = format!("GET /api/v1/events?limit=5 HTTP/1.1\r\nauthorization: Bearer {token}");
        Load::raw(&self.url, &head, "", b"HTTP/1.1 200")
    }

    /// Asks for a token with a wrong secret, from an address of so many.
    pub(crate) fn guess(&self, address: usize) -> Load {
        let [_, a, b, c] = u32::try_from(address).unwrap_or_default().to_be_bytes();
        let head = format!(
            "POST /oauth/token HTTP/1.1\r\nx-forwarded-for: 10.{a}.{b}.{c}\r\n\
             content-type: application/x-www-form-urlencoded"
        );
        let body =
            format!("grant_type=client_credentials&client_id={ORGANIZATION}&client_secret=wrong");
        Load::raw(&self.url, &head, &body, b"HTTP/1.1 4")
    }

    /// Waits until every delivery is settled in storage.
    pub(crate) async fn wait_until_settled(&self) {
        while self.esl.unsettled() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A new database with both organizations.
pub(crate) async fn new_storage(folder: &Path) -> anyhow::Result<SqliteStorage> {
    let storage = SqliteStorage::open(folder.join("esl.db"))?;
    for organization in [ORGANIZATION, BYSTANDER] {
        prepare(&storage, organization).await?;
    }
    Ok(storage)
}

/// A subscription to be made, which may be to a receiver here.
pub(crate) fn wish(url: &str, pattern: &str) -> anyhow::Result<NewSubscription> {
    let url = CallbackUrl::parse(url, &CallbackPolicy::allow_private())?;
    Ok(NewSubscription::new(url, vec![pattern.parse()?]))
}

/// Publishes so many numbered events in arrays, a few at a time, with so much text in each.
pub(crate) async fn publish_many(
    esl: &Esl,
    event_type: &str,
    count: usize,
    padding: usize,
) -> anyhow::Result<()> {
    let event_type: EventType = event_type.parse()?;
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (esl, event_type) = (esl.clone(), event_type.clone());
        publishers.spawn(async move {
            for first in (publisher * ARRAY..count).step_by(PUBLISHERS * ARRAY) {
                let numbers = first..(first + ARRAY).min(count);
                let events = numbers.map(|number| numbered(&event_type, number, padding));
                let events = events.collect::<Result<_, _>>()?;
                esl.publish_batch(ORGANIZATION, events, None).await?;
            }
            anyhow::Ok(())
        });
    }
    all(publishers).await
}

/// Waits until all have done it.
pub(crate) async fn all(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Everything is counted, and nothing is ever too much.
pub(crate) const PLAN: Plan = Plan {
    subscriptions: Some(Limit::Unlimited),
    events_per_hour: Some(Limit::AtMost(u64::MAX)),
    ..Plan::new(Tier::Standard)
};

/// As many as the API takes at once.
const ARRAY: usize = 1000;
const PUBLISHERS: usize = 4;

/// Makes an organization with a token.
pub(crate) async fn prepare(storage: &impl Tenancy, id: OrganizationId) -> anyhow::Result<()> {
    let name = id.to_string();
    let organization = Organization::new(id, name.clone(), Timestamp::EPOCH).with_plan(PLAN);
    storage.create_organization(organization, &Actor::APPLICATION).await?;
    let client = Client {
        id: name.clone(),
        organization: id,
        secret: Digest::of(b"secret"),
        scopes: Scopes::all(),
        created_at: Timestamp::EPOCH,
    };
    storage.create_client(client, &Actor::APPLICATION).await?;
    let token = Token {
        digest: Digest::of(token(id).as_bytes()),
        kind: TokenKind::Access,
        client: name,
        organization: id,
        family: TokenFamily::from_bytes([1; 16]),
        scopes: Scopes::all(),
        expires_at: Timestamp::MAX,
    };
    storage.store_tokens(&Digest::of(b"secret"), vec![token]).await?;
    Ok(())
}

fn token(organization: OrganizationId) -> String {
    format!("a-token-for-this-run-of-{organization}")
}
