use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, http::response::Parts};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use super::{CLIENT, SECRET};

/// A client for cases in which a process per request would be too slow. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: Client<HttpConnector, Full<Bytes>>,
    base: String,
    token: String,
}

/// The connection broke: what became of the request is not known.
#[derive(Debug)]
pub(crate) struct Broken;

impl Api {
    /// Asks for a token as [`CLIENT`].
    pub(crate) async fn new(base: &str) -> Self {
        Self::with(base, CLIENT, SECRET).await.expect("the client is there")
    }

    /// Asks for a token; `None` if the client is refused.
    pub(crate) async fn with(base: &str, client: &str, secret: &str) -> Option<Self> {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let mut api = Self { http, base: base.to_owned(), token: String::new() };
        let form =
            format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
        let form_type = "application/x-www-form-urlencoded";
        let answer = api.send(Method::POST, "/oauth/token", form_type, form).await;
        let (status, body) = answer.expect("the server runs");
        if status == 401 {
            return None;
        }
        assert_eq!(status, 200, "{body}");
        api.token = body["access_token"].as_str().expect("a token").to_owned();
        Some(api)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value), Broken> {
        self.send(Method::POST, path, "application/json", body.to_string()).await
    }

    /// [`post`](Self::post), with the head of the answer.
    pub(crate) async fn post_for_head(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(Parts, Value), Broken> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// Asks with headers of the case's own; gives the head of the answer, too.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(Parts, Value), Broken> {
        let headers = [&[("content-type", "application/json")], headers].concat();
        let body = body.map(Value::to_string).unwrap_or_default();
        self.exchange(method, path, &headers, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.send(Method::PUT, path, "application/json", body.to_string()).await;
        answer.expect("the server runs")
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        let answer = self.send(Method::DELETE, path, "application/json", String::new()).await;
        answer.expect("the server runs")
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.send(Method::PATCH, path, "application/json", body.to_string()).await;
        answer.expect("the server runs")
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.send(Method::GET, path, "application/json", String::new()).await;
        answer.expect("the server runs")
    }

    /// All items of a list, page by page.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, mut page) = self.get(&format!("{path}?limit=100{cursor}")).await;
            assert_eq!(status, 200, "{page}");
            all.append(page["data"].as_array_mut().expect("a list"));
            let Some(next) = page["next_cursor"].as_str() else { return all };
            cursor = format!("&cursor={next}");
        }
    }

    /// Makes an entity; gives its id.
    pub(crate) async fn create(&self, path: &str, body: &Value) -> String {
        let (status, created) = self.post(path, body).await.expect("the server runs");
        assert_eq!(status, 201, "{created}");
        created["id"].as_str().expect("an id").to_owned()
    }

    /// Subscribes a receiver; gives the subscription's id.
    pub(crate) async fn subscribe(&self, callback_url: &str, events: &[&str]) -> String {
        let body = serde_json::json!({
            "callback_url": callback_url,
            "events": events,
            "secret": "my-secret-123",
        });
        let (status, created) =
            self.post("/api/v1/subscriptions", &body).await.expect("the server runs");
        assert_eq!(status, 201, "{created}");
        created["id"].as_str().expect("an id").to_owned()
    }

    /// Subscribes a receiver to `person.*` with options; gives the subscription's id.
    pub(crate) async fn subscribe_with(&self, callback_url: &str, mut options: Value) -> String {
        options["callback_url"] = callback_url.into();
        options["events"] = serde_json::json!(["person.*"]);
        let (status, created) =
            self.post("/api/v1/subscriptions", &options).await.expect("the server runs");
        assert_eq!(status, 201, "{created}");
        created["id"].as_str().expect("an id").to_owned()
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
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        super::in_time(path, wait).await
    }

    /// Publishes one event; gives its id.
    pub(crate) async fn publish(&self, event_type: &str, data: Value) -> String {
        let body = serde_json::json!({ "type": event_type, "data": data });
        let (status, published) =
            self.post("/api/v1/events", &body).await.expect("the server runs");
        assert_eq!(status, 202, "{published}");
        published["id"].as_str().expect("an id").to_owned()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<(u16, Value), Broken> {
        let headers = [("content-type", content_type)];
        let (head, body) = self.exchange(method, path, &headers, body).await?;
        Ok((head.status.as_u16(), body))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<(Parts, Value), Broken> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let request = request.body(Full::from(body)).expect("a request");
        let response = self.http.request(request).await.map_err(|_| Broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
        Ok((head, serde_json::from_slice(&body).unwrap_or_default()))
    }
}
