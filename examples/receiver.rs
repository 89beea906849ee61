//! A receiver that accepts only what is genuine: `WEBHOOK_SECRET=… cargo run --example receiver`
//!
//! Listens on 127.0.0.1:9000 (`RECEIVER_LISTEN` says otherwise) and prints what arrives at
//! `/webhooks/sapien`. What it needs of ESL is there without any feature: no tokio, no database.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use esl::{Envelope, Secret, Verifier};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secret = std::env::var("WEBHOOK_SECRET")
        .map_err(|_| anyhow::anyhow!("WEBHOOK_SECRET: the secret of your subscription"))?;
    let listen = std::env::var("RECEIVER_LISTEN").unwrap_or_else(|_| "127.0.0.1:9000".to_owned());
    let verifier = Arc::new(Verifier::standard([Secret::new(secret)?]));
    let router = Router::new().route("/webhooks/sapien", post(receive)).with_state(verifier);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening on http://{}/webhooks/sapien", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

/// The raw bytes are what was signed: verify first, parse afterwards.
async fn receive(
    State(verifier): State<Arc<Verifier>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Err(error) = verifier.verify_now(header, &body) {
        println!("refused: {error}");
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    // At least once: an id that was seen before is the same event again.
    let data = envelope.data.as_deref().map_or("(by reference)", |data| data.get());
    println!("{} {} {data}", envelope.id, envelope.event_type);
    StatusCode::OK
}
