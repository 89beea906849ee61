// What a client on `oauth4webapi` does.
//
//     client.mjs URL CLIENT_ID CLIENT_SECRET

import assert from 'node:assert/strict';
import * as oauth from 'oauth4webapi';

const [url, clientId, secret] = process.argv.slice(2);
// http on loopback is what this is about.
const insecure = { [oauth.allowInsecureRequests]: true };
const scope = 'events:read events:publish';
const client = { client_id: clientId };

const issuer = new URL(url);
const discovered = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure });
const server = await oauth.processDiscoveryResponse(issuer, discovered);

async function opens(token) {
  const events = new URL('/api/v1/events', url);
  const options = insecure;
  try {
    const answer = await oauth.protectedResourceRequest(
      token, 'GET', events, undefined, undefined, options);
    return answer.status === 200;
  } catch (error) {
    assert(error instanceof oauth.WWWAuthenticateChallengeError, error);
    assert.equal(error.status, 401);
    assert.equal(error.cause[0].scheme, 'bearer');
    assert.equal(error.cause[0].parameters.error, 'invalid_token');
    return false;
  }
}

const methods = {
  client_secret_basic: oauth.ClientSecretBasic(secret),
  client_secret_post: oauth.ClientSecretPost(secret),
};
for (const [method, authentication] of Object.entries(methods)) {
  assert(server.token_endpoint_auth_methods_supported.includes(method));

  const grant = async () => {
    const answer = await oauth.clientCredentialsGrantRequest(
      server, client, authentication, { scope }, insecure);
    return oauth.processClientCredentialsResponse(server, client, answer);
  };
  const refresh = async (token, additionalParameters = {}) => {
    const answer = await oauth.refreshTokenGrantRequest(
      server, client, authentication, token, { additionalParameters, ...insecure });
    return oauth.processRefreshTokenResponse(server, client, answer);
  };
  const revoke = async (token) => {
    const answer = await oauth.revocationRequest(server, client, authentication, token, insecure);
    return oauth.processRevocationResponse(answer);
  };
  const introspect = async (token) => {
    const answer = await oauth.introspectionRequest(
      server, client, authentication, token, insecure);
    return oauth.processIntrospectionResponse(server, client, answer);
  };
  const isRefused = (token) => assert.rejects(refresh(token), (error) =>
    error instanceof oauth.ResponseBodyError && error.error === 'invalid_grant');

  const first = await grant();
  assert.equal(first.scope, scope);
  assert(await opens(first.access_token));

  const second = await refresh(first.refresh_token, { scope: 'events:read' });
  assert.equal(second.scope, 'events:read');
  assert(await opens(second.access_token));
  const known = await introspect(second.access_token);
  assert(known.active);
  assert.equal(known.client_id, clientId);
  assert.equal(known.scope, 'events:read');

  await revoke(second.refresh_token);
  assert.equal((await introspect(second.access_token)).active, false);
  assert(!(await opens(second.access_token)));
  await isRefused(second.refresh_token);

  const third = await grant();
  const fourth = await refresh(third.refresh_token);
  assert.equal(fourth.scope, scope);
  await isRefused(third.refresh_token);
  await isRefused(fourth.refresh_token);
  assert(!(await opens(fourth.access_token)));
  console.log(`oauth4webapi, ${method}: as it should be`);
}
