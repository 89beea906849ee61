//! Publishes to a server, and shows how deliveries fare there:
//! `ESL_CLIENT_ID=demo ESL_CLIENT_SECRET=… cargo run --features client --example client`
//!
//! The server is at `ESL_SERVER_URL`, or at http://127.0.0.1:8080.

use std::env::var;

use esl::client::{Client, NewEvent};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = var("ESL_SERVER_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
    let client = Client::builder(server)
        .with_credentials(var("ESL_CLIENT_ID")?, var("ESL_CLIENT_SECRET")?)
        .build()?;

    // However often its answer is lost on the way, it is published once.
    let order = serde_json::json!({ "order": 1042 });
    let published = client.publish(&NewEvent::new("order.paid", &order)?).await?;
    println!("published {} to {} subscriptions", published.id, published.deliveries);

    for subscription in client.subscriptions().all().await? {
        println!("{} {}", subscription.id, subscription.callback_url);
        for delivery in client.deliveries(subscription.id).all().await? {
            println!("  {} {:?}", delivery.event_type, delivery.state);
        }
    }
    Ok(())
}
