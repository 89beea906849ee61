//! The one table of routes. The router is made from it, and the tests go over it: what is not here
//! does not exist, and nothing here is without its answer to who may.

use std::borrow::Cow;
#[cfg(feature = "entities")]
use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter, on},
};
#[cfg(feature = "entities")]
use esl_core::EntityKind;
use esl_core::{Esl, Scope};

#[cfg(feature = "entities")]
use super::entities;
use super::{
    Api, audit,
    auth::{Authorized, Permission},
    blobs, clients, deliveries, event_types, events, health, maintenance, oauth, organization,
    replays, subscriptions,
};

/// All of them, for this engine.
fn routes(esl: &Esl) -> Vec<Route> {
    let get = || Method::GET;
    let post = || Method::POST;
    let patch = || Method::PATCH;
    let delete = || Method::DELETE;
    let mut routes = health_routes();
    routes.extend([
        Route::open(post(), "/oauth/token", oauth::token),
        Route::open(post(), "/oauth/revoke", oauth::revoke),
        Route::open(post(), "/oauth/introspect", oauth::introspect),
        Route::open(get(), oauth::Metadata::PATH, oauth::metadata),
        Route::guarded(post(), "/api/v1/events", events::publish),
        Route::guarded(get(), "/api/v1/events", events::list),
        Route::guarded(get(), "/api/v1/events/{id}", events::one),
        Route::guarded(get(), "/api/v1/event-types", event_types::list),
        Route::guarded(get(), "/api/v1/blobs/{id}", blobs::one),
        Route::guarded(post(), "/api/v1/subscriptions", subscriptions::create),
        Route::guarded(get(), "/api/v1/subscriptions", subscriptions::list),
        Route::guarded(get(), "/api/v1/subscriptions/{id}", subscriptions::one),
        Route::guarded(patch(), "/api/v1/subscriptions/{id}", subscriptions::update),
        Route::guarded(delete(), "/api/v1/subscriptions/{id}", subscriptions::delete),
        Route::guarded(
            post(),
            "/api/v1/subscriptions/{id}/rotate-secret",
            subscriptions::rotate_secret,
        ),
        Route::guarded(post(), "/api/v1/subscriptions/{id}/ping", subscriptions::ping),
        Route::guarded(get(), "/api/v1/subscriptions/{id}/deliveries", deliveries::list),
        Route::guarded(get(), "/api/v1/deliveries/{id}", deliveries::one),
        Route::guarded(post(), "/api/v1/deliveries/{id}/redeliver", deliveries::redeliver),
        Route::guarded(post(), "/api/v1/subscriptions/{id}/replay", replays::create),
        Route::guarded(get(), "/api/v1/subscriptions/{id}/replays", replays::list),
        Route::guarded(get(), "/api/v1/replays/{id}", replays::one),
        Route::guarded(post(), "/api/v1/replays/{id}/cancel", replays::cancel),
        Route::guarded(post(), "/api/v1/clients", clients::create),
        Route::guarded(get(), "/api/v1/clients", clients::list),
        Route::guarded(get(), "/api/v1/clients/{id}", clients::one),
        Route::guarded(delete(), "/api/v1/clients/{id}", clients::delete),
        Route::guarded(post(), "/api/v1/clients/{id}/rotate-secret", clients::rotate_secret),
        Route::guarded(get(), "/api/v1/organization", organization::own),
        Route::guarded(get(), "/api/v1/audit", audit::list),
        Route::guarded(post(), "/api/admin/maintenance", maintenance::announce),
        Route::guarded(get(), "/api/admin/maintenance", maintenance::list),
        Route::guarded(delete(), "/api/admin/maintenance/{id}", maintenance::take_back),
    ]);
    if oauth::Metadata::path_of(esl.public_url()).is_some() {
        routes.push(Route::open(get(), oauth::Metadata::PATHS, oauth::metadata_of_issuer));
    }
    #[cfg(feature = "entities")]
    routes.extend(esl.kinds().iter().flat_map(entity_routes));
    routes
}

/// Those of the entities of one kind.
#[cfg(feature = "entities")]
fn entity_routes(kind: &Arc<EntityKind>) -> Vec<Route> {
    let all = format!("/api/{}", kind.plural());
    let one = format!("{all}/{{id}}");
    let mut routes = Vec::new();
    if !kind.has_chosen_ids() {
        routes.push(Route::guarded(Method::POST, all.clone(), entities::create));
    }
    routes.extend([
        Route::guarded(Method::GET, all, entities::list),
        Route::guarded(Method::GET, one.clone(), entities::one),
        Route::guarded(Method::PUT, one.clone(), entities::replace),
        Route::guarded(Method::PATCH, one.clone(), entities::change),
        Route::guarded(Method::DELETE, one, entities::delete),
    ]);
    routes
        .into_iter()
        .map(|route| Route { handler: route.handler.route_layer(entities::about(kind)), ..route })
        .collect()
}

/// Those that say how the engine is.
fn health_routes() -> Vec<Route> {
    vec![
        Route::open(Method::GET, "/health", health::health),
        Route::open(Method::GET, "/health/ready", health::ready),
    ]
}

/// The router of all routes, without what goes around them.
pub(super) fn router(esl: &Esl) -> Router<Api> {
    router_of(routes(esl))
}

/// The router of what says how the engine is alone.
pub(super) fn health_router() -> Router<Api> {
    router_of(health_routes())
}

fn router_of(routes: Vec<Route>) -> Router<Api> {
    let routes = routes.into_iter();
    routes
        .fold(Router::new(), |router, Route { entry, handler }| router.route(&entry.path, handler))
}

/// The table as tests read it.
#[doc(hidden)]
#[must_use]
pub fn route_entries(esl: &Esl) -> Vec<RouteEntry> {
    routes(esl).into_iter().map(|route| route.entry).collect()
}

/// One method of one path.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct RouteEntry {
    /// What is asked of the path; with GET goes HEAD.
    pub method: Method,
    /// What identifies things in it stands in braces.
    pub path: Cow<'static, str>,
    /// What opens it.
    pub access: Access,
}

/// What opens a route.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing, or a proof of another kind than a token, which its handler demands.
    Open,
    /// A token with one of these scopes.
    Token(&'static [Scope]),
    /// A signed link, or a token with one of these scopes.
    LinkOrToken(&'static [Scope]),
}

struct Route {
    entry: RouteEntry,
    handler: MethodRouter<Api>,
}

impl Route {
    /// A route that lets in whom its handler's guard lets in.
    fn guarded<H, T>(method: Method, path: impl Into<Cow<'static, str>>, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: Guarded + 'static,
    {
        Self::new(method, path.into(), T::ACCESS, handler)
    }

    /// A route that asks for no token.
    fn open<H, T>(method: Method, path: impl Into<Cow<'static, str>>, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        Self::new(method, path.into(), Access::Open, handler)
    }

    fn new<H, T>(method: Method, path: Cow<'static, str>, access: Access, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("the table has usual methods");
        Self { entry: RouteEntry { method, path, access }, handler: on(filter, handler) }
    }
}

/// An argument of a handler that refuses whoever may not.
pub(super) trait Guard {
    const ACCESS: Access;
}

impl<P: Permission> Guard for Authorized<P> {
    const ACCESS: Access = Access::Token(P::ANY_OF);
}

/// The arguments of a handler that has its guard right after the state, and so before anything of
/// the request is looked at. The table takes its scopes from there, so that no second list of them
/// can be wrong.
trait Guarded {
    const ACCESS: Access;
}

macro_rules! guarded {
    ($($rest:ident)*) => {
        impl<Via, G: Guard, $($rest),*> Guarded for (Via, State<Api>, G, $($rest,)*) {
            const ACCESS: Access = G::ACCESS;
        }
    };
}

guarded!();
guarded!(A);
guarded!(A B);
guarded!(A B C);
guarded!(A B C D);
guarded!(A B C D E);
