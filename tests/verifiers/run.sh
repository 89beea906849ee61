#!/usr/bin/env bash
# Holds what ESL sends against verifiers that are not ours: the documented PHP handler, and the
# `standardwebhooks` packages of PyPI and npm. Each must accept every request unchanged and refuse
# it with one byte altered. The packages are also asked about tests/vectors, and say what these expect,
# but for what exceptions.json has.
#
#   tests/verifiers/run.sh             starts the server and captures what it sends
#   tests/verifiers/run.sh CAPTURE     takes what was captured elsewhere, at most 5 minutes ago:
#                                      Standard Webhooks refuses older requests
#
# A capture has one request per line: {"secret": …, "headers": {…}, "body": …}, names of headers in
# lower case, and "algorithm" if it is not sha256. The packages go to VERIFIERS_DIR, which is kept
# for the next time; without it, to a folder that is removed at the end. Needs cargo, python3, npm
# and php-cli, which is installed where apt-get can. ESL_SERVER_BINARY names a binary to take in place
# of the one that is built here.
set -euo pipefail

STANDARDWEBHOOKS_PYPI=1.1.0
STANDARDWEBHOOKS_NPM=1.1.1

here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages=${VERIFIERS_DIR:-$scratch/packages}
mkdir -p "$packages"
packages=$(cd "$packages" && pwd)

if ! command -v php >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends php-cli \
            >/dev/null
    else
        echo "php is missing: install php-cli" >&2
        exit 1
    fi
fi
python=$packages/python/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv "$packages/python"
fi
"$python" -m pip install --quiet --disable-pip-version-check \
    "standardwebhooks==$STANDARDWEBHOOKS_PYPI"
npm install --silent --no-audit --no-fund --no-save --prefix "$packages/npm" \
    "standardwebhooks@$STANDARDWEBHOOKS_NPM"

if [ $# -gt 0 ]; then
    capture=$1
else
    capture=$scratch/capture.jsonl
    root=$here/../..
    source "$root/tests/server_binary.sh"
    "$python" "$here/capture.py" "$binary" >"$capture"
fi

export NODE_PATH=$packages/npm/node_modules
php "$here/receiver.php" "$capture"
"$python" "$here/receiver.py" "$capture"
node "$here/receiver.js" "$capture"
"$python" "$here/vectors.py" "$here/../vectors"
node "$here/vectors.js" "$here/../vectors"
