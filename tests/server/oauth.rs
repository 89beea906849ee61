//! The crate `oauth2` as a client. Those of other languages are in tests/oauth.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, IntrospectionUrl, RefreshToken,
    RequestTokenError, RevocationUrl, Scope, StandardRevocableToken, TokenIntrospectionResponse,
    TokenResponse, TokenUrl,
    basic::{BasicClient, BasicErrorResponseType},
};

use crate::support::{CLIENT, Folder, SECRET, WITH_CLIENT};

#[tokio::test]
async fn the_crate_oauth2_gets_refreshes_introspects_and_revokes_tokens() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    // The crate insists on https to revoke; on the way it becomes http again.
    let url = |path: &str| server.url(path).replacen("http:", "https:", 1);
    let http: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let send = async |request: HttpRequest| Ok::<_, Infallible>(send(&http, request).await);
    let send = |request| Box::pin(send(request));

    for auth_type in [AuthType::BasicAuth, AuthType::RequestBody] {
        let client = BasicClient::new(ClientId::new(CLIENT.into()))
            .set_client_secret(ClientSecret::new(SECRET.into()))
            .set_auth_type(auth_type)
            .set_token_uri(TokenUrl::new(url("/oauth/token")).unwrap())
            .set_introspection_url(IntrospectionUrl::new(url("/oauth/introspect")).unwrap())
            .set_revocation_url(RevocationUrl::new(url("/oauth/revoke")).unwrap());
        let scope = |name: &str| Scope::new(name.into());

        let first = client
            .exchange_client_credentials()
            .add_scopes([scope("events:read"), scope("events:publish")])
            .request_async(&send)
            .await
            .unwrap();
        assert_eq!(first.scopes().unwrap().len(), 2);
        let shown = first.refresh_token().unwrap();
        let second = client
            .exchange_refresh_token(shown)
            .add_scope(scope("events:read"))
            .request_async(&send)
            .await
            .unwrap();
        assert_eq!(second.scopes().unwrap(), &[scope("events:read")]);
        let known = client.introspect(second.access_token()).request_async(&send).await.unwrap();
        assert!(known.active());
        assert_eq!(known.client_id().unwrap().as_str(), CLIENT);
        assert_eq!(known.scopes().unwrap(), &vec![scope("events:read")]);

        let refused = async |token: &RefreshToken| {
            let answer = client.exchange_refresh_token(token).request_async(&send).await;
            let Err(RequestTokenError::ServerResponse(error)) = answer else {
                panic!("it was refreshed, or the answer was not understood: {answer:?}");
            };
            assert_eq!(error.error(), &BasicErrorResponseType::InvalidGrant);
        };
        // It is good once, and coming again ends its grant.
        refused(shown).await;
        refused(second.refresh_token().unwrap()).await;
        let gone = client.introspect(second.access_token()).request_async(&send).await.unwrap();
        assert!(!gone.active());

        let third = client.exchange_client_credentials().request_async(&send).await.unwrap();
        let token = StandardRevocableToken::from(third.refresh_token().unwrap());
        client.revoke_token(token).unwrap().request_async(&send).await.unwrap();
        refused(third.refresh_token().unwrap()).await;
    }
    server.stop().await;
}

async fn send(http: &Client<HttpConnector, Full<Bytes>>, request: HttpRequest) -> HttpResponse {
    let mut request = request.map(|body| Full::new(Bytes::from(body)));
    let uri = request.uri().to_string().replacen("https:", "http:", 1);
    *request.uri_mut() = uri.parse().expect("only its scheme has changed");
    let (head, body) = http.request(request).await.expect("the server runs").into_parts();
    let body = body.collect().await.expect("a whole answer").to_bytes();
    HttpResponse::from_parts(head, body.to_vec())
}
