//! What a server says of its broker, where there is one.

use crate::support::{Api, Folder, WITH_CLIENT};

#[tokio::test]
#[ignore = "needs a RabbitMQ, which tests/set_ups.sh starts"]
async fn a_server_says_that_its_broker_is_connected() {
    std::env::var("ESL_TEST_BROKER_URL").expect("it names the broker");
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    api.until("/health", |health| health["broker"] == "connected").await;
    server.stop().await;
}
