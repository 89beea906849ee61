//! What two servers on the same data must both say.

use serde_json::Value;

use crate::support::{Api, Ended};

/// What the API shows of everything, in lists and one by one, with the paths.
pub(crate) async fn seen_by(api: &Api) -> Vec<(String, Value)> {
    let mut seen = Vec::new();
    for list in ["organization", "clients", "audit"] {
        let path = format!("/api/v1/{list}");
        seen.push((path.clone(), read(api, &path).await));
    }
    see(api, &mut seen, "/api/v1/events", "/api/v1/events").await;
    for id in see(api, &mut seen, "/api/v1/subscriptions", "/api/v1/subscriptions").await {
        let of = format!("/api/v1/subscriptions/{id}");
        see(api, &mut seen, &format!("{of}/deliveries"), "/api/v1/deliveries").await;
        see(api, &mut seen, &format!("{of}/replays"), "/api/v1/replays").await;
    }
    seen
}

/// Sees a list, and what is in it; gives the ids.
async fn see(api: &Api, seen: &mut Vec<(String, Value)>, list: &str, one: &str) -> Vec<String> {
    let found = read(api, list).await;
    let all = found["data"].as_array().expect("a list").iter();
    let ids: Vec<_> = all.map(|it| it["id"].as_str().expect("an id").to_owned()).collect();
    seen.push((list.to_owned(), found));
    for id in &ids {
        let path = format!("{one}/{id}");
        seen.push((path.clone(), read(api, &path).await));
    }
    ids
}

async fn read(api: &Api, path: &str) -> Value {
    let (status, found) = api.get(path).await;
    assert_eq!(status, 200, "{path}: {found}");
    found
}

/// What a command says in JSON.
pub(crate) fn said(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}
