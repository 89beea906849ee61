//! What two servers on the same data must both say.

use serde_json::Value;

use crate::support::{Api, Ended};

/// What the API shows of everything, in lists and one by one.
pub(crate) async fn seen_by(api: &Api) -> Vec<(String, Value)> {
    let mut seen = Vec::new();
    for list in
        ["subscriptions", "deliveries?limit=100", "deliveries?status=failed", "events?limit=100"]
    {
        let (path, found) = read(api, format!("/api/v1/{list}")).await;
        let ids: Vec<String> = found["data"]
            .as_array()
            .expect("a list")
            .iter()
            .take(20)
            .map(|one| one["id"].as_str().expect("an id").to_owned())
            .collect();
        seen.push((path, found));
        let one = list.split('?').next().expect("a part");
        for id in ids {
            seen.push(read(api, format!("/api/v1/{one}/{id}")).await);
        }
    }
    seen
}

async fn read(api: &Api, path: String) -> (String, Value) {
    let (status, found) = api.get(&path).await;
    assert_eq!(status, 200, "{path}: {found}");
    (path, found)
}

/// What a command says in JSON.
pub(crate) fn said(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}
