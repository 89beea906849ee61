"""What a client on `authlib` does.

    client.py URL CLIENT_ID CLIENT_SECRET
"""

import os
import sys

# http on loopback is what this is about.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

url, client_id, client_secret = sys.argv[1:]
SCOPE = "events:read events:publish"


def refused(session, token):
    """Whether a refresh with that token is an `invalid_grant`."""
    try:
        session.refresh_token(f"{url}/oauth/token", refresh_token=token)
    except OAuthError as error:
        return error.error == "invalid_grant"
    return False


for method in ["client_secret_basic", "client_secret_post"]:
    session = OAuth2Session(
        client_id, client_secret, scope=SCOPE, token_endpoint_auth_method=method
    )
    metadata = session.get(
        f"{url}/.well-known/oauth-authorization-server", withhold_token=True
    ).json()
    assert metadata["issuer"] == url, metadata
    assert method in metadata["token_endpoint_auth_methods_supported"], metadata
    assert metadata["token_endpoint"] == f"{url}/oauth/token", metadata

    def active(token):
        answer = session.introspect_token(metadata["introspection_endpoint"], token=token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    first = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    assert first["scope"] == SCOPE, first
    assert session.get(f"{url}/api/v1/events").status_code == 200

    second = session.refresh_token(metadata["token_endpoint"], scope="events:read")
    assert second["scope"] == "events:read", second
    assert second["refresh_token"] != first["refresh_token"]
    assert session.get(f"{url}/api/v1/events").status_code == 200
    known = active(second["access_token"])
    assert known["active"] and known["client_id"] == client_id, known
    assert known["scope"] == "events:read", known

    answer = session.revoke_token(
        metadata["revocation_endpoint"],
        token=second["refresh_token"],
        token_type_hint="refresh_token",
    )
    assert answer.status_code == 200, answer.text
    assert active(second["access_token"]) == {"active": False}
    assert refused(session, second["refresh_token"])

    third = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    fourth = session.refresh_token(metadata["token_endpoint"])
    assert refused(session, third["refresh_token"]), "it is good once"
    assert refused(session, fourth["refresh_token"]), "its grant is over"
    assert active(fourth["access_token"]) == {"active": False}
    print(f"authlib, {method}: as it should be")
