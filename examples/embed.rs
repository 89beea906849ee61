//! Publish and deliver from your own process: `cargo run --example embed`
//!
//! The second half of the file stands in for a receiver.

use esl::{
    Actor, CallbackPolicy, CallbackUrl, Esl, HttpTransport, NewEvent, NewSubscription,
    Organization, SqliteStorage, storage::Tenancy,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let policy = CallbackPolicy::allow_private(); // for this demonstration on loopback
    let receiver = receiver::start().await?;

    let storage = SqliteStorage::open("embed.db")?;
    let id = "org_01J00000000000000000000000".parse()?;
    if storage.organization(id).await?.is_none() {
        let created_at = esl::Timestamp::EPOCH;
        storage
            .create_organization(Organization::new(id, "acme", created_at), &Actor::APPLICATION)
            .await?;
    }
    let transport = HttpTransport::new(policy.clone());
    let esl = Esl::builder(storage).callbacks(policy.clone()).transport(transport).build().await?;

    let url = CallbackUrl::parse(&receiver.url, &policy)?;
    let subscription =
        esl.subscribe(id, NewSubscription::new(url, vec!["person.*".parse()?])).await?;

    let john = serde_json::json!({ "id": "person_1", "name": "John Doe" });
    let published = esl.publish(NewEvent::new(id, "person.updated".parse()?, &john)?).await?;
    println!("published {} to {} subscription(s)", published.id, published.deliveries);
    println!("received  {}", receiver.next().await);

    esl.delete_subscription(id, subscription.id).await?;
    esl.shutdown().await;
    Ok(())
}

/// Stands in for somebody else's server.
mod receiver {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    pub(crate) struct Receiver {
        pub(crate) url: String,
        listener: TcpListener,
    }

    pub(crate) async fn start() -> std::io::Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Receiver { url: format!("http://{}/webhooks", listener.local_addr()?), listener })
    }

    impl Receiver {
        /// The body of the next request, which is answered with 200.
        pub(crate) async fn next(&self) -> String {
            let (mut stream, _) = self.listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                stream.read_buf(&mut request).await.expect("a request");
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
            let request = String::from_utf8(request).expect("UTF-8");
            request.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
        }
    }
}
