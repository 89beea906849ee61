#!/usr/bin/env bash
# Holds the server's OAuth2 against clients that are not ours: `authlib` of PyPI and `oauth4webapi`
# of npm. Each gets tokens, opens a route with them, refreshes, sees that a refresh token is good
# once, revokes and introspects, as it would with any other server. (The crate `oauth2` does the
# same in tests/server/oauth.rs.)
#
#   tests/oauth/run.sh
#
# The packages go to OAUTH_CLIENTS_DIR, which is kept for the next time; without it, to a folder that
# is removed at the end. Needs cargo, python3 and npm.
# ESL_SERVER_BINARY names a binary to take in place of the one that is built here.
set -euo pipefail

AUTHLIB=1.9.10
REQUESTS=2.34.2
OAUTH4WEBAPI=3.8.8

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages=${OAUTH_CLIENTS_DIR:-$scratch/packages}
mkdir -p "$packages"
packages=$(cd "$packages" && pwd)

python=$packages/python/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv "$packages/python"
fi
"$python" -m pip install --quiet --disable-pip-version-check \
    "authlib==$AUTHLIB" "requests==$REQUESTS"
npm install --silent --no-audit --no-fund --no-save --prefix "$packages/npm" \
    "oauth4webapi@$OAUTH4WEBAPI"

source "$root/tests/server_binary.sh"
# Modules are looked for beside the script that imports them.
cp "$here/client.mjs" "$packages/npm/client.mjs"
"$python" "$here/with_server.py" "$binary" \
    "$python" "$here/client.py"
"$python" "$here/with_server.py" "$binary" \
    node "$packages/npm/client.mjs"
