//! The command `serve`: everything wired together, until a signal says stop.

use std::{future::Future, net::SocketAddr, sync::Arc};

use anyhow::Context;
use esl_amqp::{Broker, BrokerLink};
use esl_core::{Clock, Esl, Role, SystemClock};
use esl_http::api::{self, ApiConfig, HealthCheck, ServerLimits};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bootstrap::{self, Bootstrapped},
    check,
    config::{Config, DatabaseUrl},
    database::{self, Opened},
    entities,
    open_files::Shares,
    prepare::{Found, Parts},
    secrets, welcome,
};

/// Serves until it is told to stop.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        configuration = config.in_force().join(" "),
        "starting"
    );
    warn(config);
    // Both before the database: a server that cannot listen should not touch what another one uses.
    let signals = Signals::new().context("could not listen for signals")?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("could not listen on {} (ESL_LISTEN)", config.listen))?;
    let address = listener.local_addr().context("could not find out the address")?;

    let shares = Shares::of_this_process();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
    let mut broker = config.broker.clone().map(Broker::new);
    let esl = start_engine(config, &shares, &public_url, clock.clone(), broker.as_mut()).await?;
    // Whoever serves the API has clients.
    if config.role != Role::Worker
        && let Err(error) = see_to_client(&esl, config, address, &*clock).await
    {
        esl.shutdown().await;
        return Err(error);
    }
    let broker = broker.map(|broker| Arc::new(join(config, broker, &esl)));
    tracing::info!(
        %address,
        public_url,
        database = %config.database,
        open_files_max = shares.open_files_max,
        sends_max = shares.sends,
        clients_max = shares.clients,
        "listening"
    );
    until_stopped(signals, |stop| {
        let joined = Joined { esl, broker };
        serve(config, &shares, listener, joined, stop)
    })
    .await;
    Ok(())
}

/// What an operator should know of what was asked for and is not there.
fn warn(config: &Config) {
    for unknown in config.unknown() {
        tracing::warn!("{unknown}");
    }
    if !config.enabled {
        tracing::warn!("ESL_ENABLED is false: nothing is recorded or sent");
    }
    if config.allow_private_callbacks && !config.allowed_callbacks.is_empty() {
        tracing::warn!(
            "ESL_ALLOWED_CALLBACKS adds nothing: ESL_ALLOW_PRIVATE_CALLBACKS opens everything"
        );
    }
    if config.egress_proxy.is_some() {
        tracing::info!("what receivers' names lead to is seen by the egress proxy alone");
    }
    if config.profiler_enabled {
        tracing::warn!("PROFILER_ENABLED is set, but /_profiler comes with a later version");
    }
    if config.broker.is_none() && (config.broker_events || config.broker_ingest) {
        tracing::warn!(
            "ESL_BROKER_EVENTS and ESL_BROKER_INGEST do nothing without a broker (ESL_BROKER_URL)"
        );
    }
    if config.blob_storage.is_none() && matches!(config.database, DatabaseUrl::Postgres(_)) {
        tracing::warn!(
            "ESL_BLOB_STORAGE_URL is unset: events of more than ESL_MAX_PAYLOAD_SIZE are refused"
        );
    }
    if config.blob_storage.as_deref() == Some("memory:") {
        tracing::warn!(
            "ESL_BLOB_STORAGE_URL is memory: large payloads are gone when the server stops"
        );
    }
}

async fn start_engine(
    config: &Config,
    shares: &Shares,
    public_url: &str,
    clock: Arc<dyn Clock>,
    broker: Option<&mut Broker>,
) -> anyhow::Result<Esl> {
    let found = Found::look(config, shares, clock.clone()).await;
    let Parts { transport, blobs, storage } = found.complete(config, clock.clone()).await?;
    warn_of_stale_secrets(config, &storage).await?;
    let mut builder = storage
        .engine(broker.map(Broker::wake))
        .role(config.role)
        .transport(transport)
        .clock(clock)
        .retry(config.retry())
        .tiers(config.tiers())
        .signature_algorithm(config.signature_algorithm)
        .header_prefix(&config.header_prefix)
        .callbacks(config.callbacks())
        .payload_bytes_max(config.payload_bytes_max)
        .in_flight_max(shares.sends)
        .grace(config.shutdown_grace / 4 * 3)
        .enabled(config.enabled)
        .retention(config.retention)
        .public_url(public_url)
        .kinds(entities::kinds());
    if let Some(blobs) = blobs {
        builder = builder.blobs_in(blobs);
    }
    builder.build().await.map_err(|error| database::not_started(config, error))
}

/// Joins the engine to the broker, as far as is asked for; it need not be there.
fn join(config: &Config, mut broker: Broker, esl: &Esl) -> BrokerLink {
    if config.broker_events {
        broker = broker.events(esl.clone());
    }
    if config.broker_ingest {
        broker = broker.ingest(esl.clone());
    }
    broker.start()
}

/// A key alone encrypts nothing that is there already.
async fn warn_of_stale_secrets(config: &Config, storage: &Opened) -> anyhow::Result<()> {
    if let Some(keyring) = &config.encryption_keys {
        let stale = secrets::stale(storage).await?;
        if stale > 0 {
            let first = keyring.first();
            tracing::warn!("{} the key {first}; {}", check::not_encrypted(stale), check::REENCRYPT);
        }
    }
    Ok(())
}

/// Sees to it that there is a client.
async fn see_to_client(
    esl: &Esl,
    config: &Config,
    address: SocketAddr,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let storage = &**esl.storage();
    let Some(wanted) = &config.bootstrap_client else {
        return welcome::greet(storage, config, address, clock).await;
    };
    match bootstrap::ensure(storage, wanted, clock).await? {
        Bootstrapped::Made => tracing::info!(client = wanted.id, "made the bootstrap client"),
        Bootstrapped::WasThere => {
            tracing::info!(client = wanted.id, "the bootstrap client is there")
        }
    }
    Ok(())
}

/// The engine, and what it is joined to.
struct Joined {
    esl: Esl,
    broker: Option<Arc<BrokerLink>>,
}

/// Serves until `stop`, and for the time in which others are to see that; then lets requests finish,
/// then deliveries, and frees the database.
async fn serve(
    config: &Config,
    shares: &Shares,
    listener: TcpListener,
    Joined { esl, broker }: Joined,
    stop: CancellationToken,
) {
    let mut api_config = ApiConfig::default()
        .with_token_lifetimes(config.access_token_lifetime, config.refresh_token_lifetime)
        .with_blob_redirect(config.blob_redirect)
        .with_trusted_proxies(config.trusted_proxies.clone())
        .with_readiness(HealthCheck::new({
            let stop = stop.clone();
            move || !stop.is_cancelled()
        }));
    if let Some(broker) = broker.clone() {
        let is_there = move || broker.state().connected_since.is_some();
        api_config = api_config.with_broker(HealthCheck::new(is_there));
    }
    let limits = ServerLimits::default()
        .with_connections_max(shares.clients)
        .with_grace(config.shutdown_grace / 4);
    let router = match config.role {
        Role::Worker => api::health_router(esl.clone(), api_config),
        _ => api::router(esl.clone(), api_config),
    };
    let close = CancellationToken::new();
    // Whoever gives this node work is told first that it goes, and has time to hear it.
    let leave = async {
        stop.cancelled().await;
        if !config.shutdown_delay.is_zero() {
            tracing::info!(delay = ?config.shutdown_delay, "not ready; going on until others have seen it");
            sleep(config.shutdown_delay).await;
        }
        close.cancel();
    };
    // What comes from the broker is a request, too, and has as long.
    let part = async {
        close.cancelled().await;
        if let Some(broker) = broker {
            // What is cut off comes again.
            _ = timeout(config.shutdown_grace / 4, broker.shutdown()).await;
        }
    };
    tokio::join!(leave, api::serve(listener, router, close.cancelled(), limits), part);
    tracing::info!(sends = esl.in_flight(), "requests are answered; finishing deliveries");
    esl.shutdown().await;
    tracing::info!("stopped");
}

/// Runs work that the first signal stops in order. The second one ends the process at once, which
/// loses nothing that was acknowledged.
async fn until_stopped<F: Future<Output = ()>>(
    mut signals: Signals,
    work: impl FnOnce(CancellationToken) -> F,
) {
    let stop = CancellationToken::new();
    let watch = async {
        let first = signals.next().await;
        tracing::info!(signal = first.name, "stopping");
        stop.cancel();
        let second = signals.next().await;
        tracing::warn!(signal = second.name, "stopping at once");
        second
    };
    // When `watch` is dropped, the work is done; when the work is, so is the process.
    let second = tokio::select! {
        () = work(stop.clone()) => return,
        second = watch => second,
    };
    std::process::exit(second.exit_code);
}

/// A signal that means stop.
pub(crate) struct Signal {
    name: &'static str,
    /// What a shell says of a process that it ended.
    exit_code: i32,
}

const INTERRUPT: Signal = Signal { name: "SIGINT", exit_code: 130 };
#[cfg(unix)]
const TERMINATE: Signal = Signal { name: "SIGTERM", exit_code: 143 };

#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        // Both may be dropped: a signal that was not taken is given to the next call.
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => TERMINATE,
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => INTERRUPT,
            Err(_) => std::future::pending().await,
        }
    }
}
