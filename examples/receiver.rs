//! A receiver that handles each event once, and only what is genuine:
//! `WEBHOOK_SECRET=… RECEIVER_LISTEN=127.0.0.1:9000 cargo run --example receiver`
//!
//! `WEBHOOK_SECRET` is the secret of a subscription to `person.*` whose `callback_url` is what is printed
//! first. A handler that answers 2xx has taken its event; after anything else the event comes again.
use axum::{Router, routing::post};
use esl::receiver::{MemorySeen, Receiver, Secret, SignedEvent, Verifier, payload::Person};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secret = Secret::new(std::env::var("WEBHOOK_SECRET")?)?;
    let receiver = Receiver::new(Verifier::standard([secret])).with_seen(MemorySeen::new());
    let router = Router::new().route("/webhooks/sapien", post(handle)).layer(receiver);
    let listener = tokio::net::TcpListener::bind(std::env::var("RECEIVER_LISTEN")?).await?;
    println!("listening on http://{}/webhooks/sapien", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

async fn handle(SignedEvent(event): SignedEvent<Person>) {
    println!("{} {} {}", event.id, event.event_type, event.data.name);
}
