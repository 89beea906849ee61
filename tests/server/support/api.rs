use std::time::Duration;

use esl_core::Secret;
use esl_http::client::{
    Client, ClientError, ClientErrorKind, HeaderMap, Method, NewEvent, NewSubscription,
    RetryPolicy, StatusCode,
};
use serde_json::Value;

use super::{CLIENT, SECRET};

/// The client of `esl_http` as cases want it: nothing is tried twice in secret. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    /// Asks with the token that it was given at first, whatever became of that.
    as_given: Client,
}

/// The connection broke: what became of the request is not known.
#[derive(Debug)]
pub(crate) struct Broken;

/// What an answer says before its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

impl Api {
    /// Asks for a token as [`CLIENT`].
    pub(crate) async fn new(base: &str) -> Self {
        Self::with(base, CLIENT, SECRET).await.expect("the client is there")
    }

    /// Asks for a token; `None` if the client is refused.
    pub(crate) async fn with(base: &str, client: &str, secret: &str) -> Option<Self> {
        let builder = || {
            // A case has a deadline of its own.
            let deadline = Duration::from_secs(600);
            Client::builder(base).with_retries(RetryPolicy::never()).with_timeout(deadline)
        };
        let client = builder().with_credentials(client, secret).build().expect("it is right");
        let token = match client.token().await {
            Ok(token) => token,
            Err(error) if error.kind() == ClientErrorKind::Unauthorized => return None,
            Err(error) => panic!("{error}"),
        };
        let as_given = builder().with_token(token.expose()).build().expect("it is right");
        Some(Self { client, as_given })
    }

    /// The token that it asks with, for who asks in another way.
    pub(crate) async fn token(&self) -> String {
        self.client.token().await.expect("it has one").expose().to_owned()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value), Broken> {
        let (head, answer) = self.post_for_head(path, body).await?;
        Ok((head.status.as_u16(), answer))
    }

    /// [`post`](Self::post), with the head of the answer.
    pub(crate) async fn post_for_head(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(Head, Value), Broken> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// Asks with headers of the case's own; gives the head of the answer, too.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(Head, Value), Broken> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut call = self.as_given.call(method, path);
        for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
            call = call.query(name, value);
        }
        for (name, value) in headers {
            call = call.header(name, value);
        }
        if let Some(body) = body {
            call = call.json(body);
        }
        let answer = call.answer().await.map_err(|error| broken(&error))?;
        let body = answer.json().unwrap_or_default();
        Ok((Head { status: answer.status(), headers: answer.headers().clone() }, body))
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.asked(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        self.asked(Method::DELETE, path, None).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> (u16, Value) {
        self.asked(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.asked(Method::GET, path, None).await
    }

    /// All items of a list, page by page.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        self.client.list(path).all().await.expect("a list")
    }

    /// Makes an entity; gives its id.
    pub(crate) async fn create(&self, path: &str, body: &Value) -> String {
        let created = self.client.request::<Value>(Method::POST, path, Some(body)).await;
        created.expect("it is made")["id"].as_str().expect("an id").to_owned()
    }

    /// Subscribes a receiver; gives the subscription's id.
    pub(crate) async fn subscribe(&self, callback_url: &str, events: &[&str]) -> String {
        let secret = Secret::new("my-secret-123").expect("a secret");
        let new = NewSubscription::new(callback_url, events.iter().copied()).with_secret(secret);
        self.client.subscribe(&new).await.expect("it is made").id.to_string()
    }

    /// Subscribes a receiver to `person.*` with options; gives the subscription's id.
    pub(crate) async fn subscribe_with(&self, callback_url: &str, mut options: Value) -> String {
        options["callback_url"] = callback_url.into();
        options["events"] = serde_json::json!(["person.*"]);
        self.create("/api/v1/subscriptions", &options).await
    }

    /// Reads something again and again until it is as it should be.
    pub(crate) async fn until(&self, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let (status, found) = self.get(path).await;
                assert_eq!(status, 200, "{found}");
                if is_right(&found) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        super::in_time(path, wait).await
    }

    /// Publishes one event; gives its id.
    pub(crate) async fn publish(&self, event_type: &str, data: Value) -> String {
        let event = NewEvent::new(event_type, &data).expect("JSON");
        self.client.publish(&event).await.expect("it is published").id.to_string()
    }

    async fn asked(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.ask(method, path, &[], body).await;
        let (head, answer) = answer.expect("the server runs");
        (head.status.as_u16(), answer)
    }
}

/// What is no answer is a connection that broke, or did not come about; anything else is the case's mistake.
#[track_caller]
fn broken(error: &ClientError) -> Broken {
    assert!(error.is_transient(), "{error}");
    Broken
}
