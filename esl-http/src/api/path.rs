//! Ids in paths.

use std::{collections::HashMap, str::FromStr};

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use esl_core::{DeliveryId, EventId, ReplayId, SubscriptionId};

use super::{Api, problem::Problem};

/// The id in a path. What is not an id names nothing, so it is 404 like an id that nobody has.
#[derive(Debug)]
pub(super) struct Id<T>(pub(super) T);

/// A kind of thing that a path names.
pub(super) trait Named: FromStr {
    /// What it is called when it is not there.
    const NAME: &'static str;
}

impl Named for SubscriptionId {
    const NAME: &'static str = "subscription";
}

impl Named for EventId {
    const NAME: &'static str = "event";
}

impl Named for ReplayId {
    const NAME: &'static str = "replay";
}

impl Named for DeliveryId {
    const NAME: &'static str = "delivery";
}

impl<T: Named> FromRequestParts<Api> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        // By name, because a router that this one is nested in may have parameters of its own.
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, api).await.ok();
        let id = path.and_then(|Path(parameters)| parameters.get("id")?.parse().ok());
        id.map(Self).ok_or_else(|| Problem::not_found(T::NAME))
    }
}
