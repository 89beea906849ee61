//! The API from the other side.
//!
//! A [`Client`] fetches its tokens by itself, publishes safely, pages through lists, and says of whatever goes
//! wrong what to do about it:
//!
//! ```no_run
//! use esl_http::client::{Client, ClientError, NewEvent, NewSubscription};
//! use serde_json::json;
//!
//! # async fn example(secret: String) -> Result<(), ClientError> {
//! let client = Client::builder("http://127.0.0.1:8080").with_credentials("shop", secret).build()?;
//!
//! let new = NewSubscription::new("https://your-app.com/webhooks/sapien", ["person.*"]);
//! let subscription = client.subscribe(&new).await?;
//! let secret = subscription.secret.expect("one was generated, and is shown this once");
//!
//! let event = NewEvent::new("person.updated", &json!({ "id": "person_1", "name": "John Doe" }))?;
//! let published = client.publish(&event).await?;
//! # Ok(())
//! # }
//! ```
//!
//! - **Requests** go to the base URL, http or https, with a path before the API's own or without. Redirects are
//!   not followed, and no proxy is taken from the environment.
//! - **Repeating**: see [`RetryPolicy`]. Publishing is repeated under one `Idempotency-Key`, so what was
//!   published is published once, however often its answer was lost.
//! - **Tokens** are fetched when the first is needed, and refreshed a little before they expire. One that is
//!   refused is changed for another, once. Whoever needs one meanwhile waits for the same.
//! - **Secrets** are in no `Debug` and no error, and are wiped from memory when the client is dropped. What was
//!   copied on its way to the network is not in its hands.
//! - **What has no method** is asked by [`request`](Client::request), [`call`](Client::call) and
//!   [`list`](Client::list): entities, for instance.

mod builder;
mod call;
mod deliveries;
mod error;
mod events;
mod exchange;
mod health;
mod list;
mod organization;
mod publish;
mod replays;
mod retry;
mod subscriptions;
mod tokens;
mod wire;

use std::{fmt, sync::Arc};

pub use futures_util::Stream;
pub use reqwest::{Method, StatusCode, header::HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::tokens::Tokens;
pub use self::{
    builder::ClientBuilder,
    call::Call,
    deliveries::{Attempt, Delivery, DeliveryDetail, DeliveryError, DeliveryState, Timings},
    error::{ClientError, ClientErrorKind, Fault},
    events::{EventTypeEntry, StoredEvent},
    exchange::Answer,
    health::{Health, Readiness},
    list::{List, Page},
    organization::{Limits, Organization, Usage},
    publish::{NewEvent, Published},
    replays::{NewReplay, Replay, ReplayOf, ReplayState},
    retry::RetryPolicy,
    subscriptions::{
        DisabledReason, NewSubscription, OnExhausted, Ordering, Ping, ReceiverHealth,
        ReceiverState, Rotation, Subscription, SubscriptionDetail, SubscriptionOptions,
        SubscriptionUpdate,
    },
    tokens::AccessToken,
};

/// A client of the API. Cheap to clone: clones share their connections and their token.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    tokens: Tokens,
    retries: RetryPolicy,
}

impl Client {
    /// A client of the server at this URL.
    pub fn builder(base: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(base)
    }

    /// Asks for anything, by its path after the base, and reads the answer; `None` sends no body, and an answer
    /// without a body is `null`.
    ///
    /// ```no_run
    /// # use esl_http::client::{Client, ClientError, Method};
    /// # use serde_json::{Value, json};
    /// # async fn example(client: Client) -> Result<(), ClientError> {
    /// let john = json!({ "name": "John Doe" });
    /// let person: Value = client.request(Method::POST, "/api/persons", Some(&john)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let call = self.call(method, path);
        let call = match body {
            Some(body) => call.json(body),
            None => call,
        };
        call.send().await?.json()
    }

    /// A request to be made piece by piece.
    pub fn call(&self, method: Method, path: &str) -> Call {
        Call::new(self, method, path)
    }

    /// Any list, with items of any type.
    ///
    /// ```no_run
    /// # use esl_http::client::{Client, ClientError};
    /// # async fn example(client: Client) -> Result<(), ClientError> {
    /// use esl_core::payload::Person;
    ///
    /// let persons = client.list::<Person>("/api/persons").with("status", "active").all().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn list<T: DeserializeOwned>(&self, path: &str) -> List<T> {
        List::new(self, path)
    }

    /// The token that the next request would have: to know early whether the credentials are good, or for
    /// requests that this client does not make.
    ///
    /// # Errors
    /// [`Unauthorized`](ClientErrorKind::Unauthorized) if the credentials are not good; see [`ClientError`].
    pub async fn token(&self) -> Result<Arc<AccessToken>, ClientError> {
        self.0.tokens.current(&self.0).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path).send().await?.json()
    }

    async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::POST, path).send().await?.json()
    }
}

impl Inner {
    fn url(&self, path: &str, query: &str) -> String {
        match query {
            "" => format!("{}{path}", self.base),
            query => format!("{}{path}?{query}", self.base),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { base, tokens, retries, .. } = &*self.0;
        f.debug_struct("Client")
            .field("base", base)
            .field("tokens", tokens)
            .field("retries", retries)
            .finish_non_exhaustive()
    }
}
