//! The real API on a port of its own, an engine that delivers, and a client of it.

use esl_core::{
    Actor, CallbackPolicy, Clock as _, Esl, MemoryBlobStore, MemoryStorage, Organization,
    OrganizationId, Scopes, SystemClock, storage::Tenancy as _,
};
use esl_http::{
    HttpTransport,
    api::{self, ApiConfig, ServerLimits},
    client::Client,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// Its server ends with it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) organization: OrganizationId,
    pub(crate) base: String,
    pub(crate) id: String,
    pub(crate) secret: String,
    _stop: oneshot::Sender<()>,
    _served: JoinHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let storage = MemoryStorage::new();
        let organization = OrganizationId::from_bytes([1; 16]);
        let now = SystemClock::new().utc();
        let acme = Organization::new(organization, "Acme", now);
        storage.create_organization(acme, &Actor::APPLICATION).await.unwrap();
        let (client, secret) = esl_core::Client::generate(None, organization, Scopes::all(), now);
        let (id, secret) = (client.id.to_string(), secret.expose().to_owned());
        storage.create_client(client, &Actor::APPLICATION).await.unwrap();
        let esl = Esl::builder(storage)
            .transport(HttpTransport::new(CallbackPolicy::allow_private()))
            .callbacks(CallbackPolicy::allow_private())
            .blobs(MemoryBlobStore::new())
            .payload_bytes_max(1024)
            .public_url(&base)
            .kinds(kinds())
            .build()
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = api::router(esl.clone(), ApiConfig::default());
        let served = tokio::spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            api::serve(listener, router, shutdown, ServerLimits::default()).await;
            esl.shutdown().await;
        });
        let client = Client::builder(&base).with_credentials(&id, &secret).build().unwrap();
        Self { client, organization, base, id, secret, _stop: stop, _served: served }
    }
}

/// One kind, whose ids the service makes.
fn kinds() -> esl_core::Kinds {
    let author = esl_core::EntityKind::new(
        "author",
        "authors",
        serde_json::json!({
            "type": "object",
            "properties": { "name": { "type": "string", "minLength": 1 } },
            "required": ["name"],
            "additionalProperties": false,
        }),
    );
    esl_core::Kinds::new([author.unwrap().indexed("name")]).unwrap()
}
