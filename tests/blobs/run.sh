#!/usr/bin/env bash
# Holds the S3 blob store against a server that speaks S3: moto, from PyPI, on loopback.
#
#   tests/blobs/run.sh
#
# The package goes to MOTO_DIR, which is kept for the next time; without it, to a folder that is
# removed at the end. Needs cargo, curl and python3.
set -euo pipefail

MOTO=5.2.5

root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$scratch"
}
trap finish EXIT
python=${MOTO_DIR:-$scratch/moto}/bin/python
[ -x "$python" ] || python3 -m venv "$(dirname "$(dirname "$python")")"
"$python" -m pip install --quiet --disable-pip-version-check "moto[server]==$MOTO"

port=$("$python" "$root/tests/ports.py")
"$(dirname "$python")/moto_server" -H 127.0.0.1 -p "$port" >"$scratch/log" 2>&1 &
server=$!
endpoint=http://127.0.0.1:$port
for _ in $(seq 300); do
    if curl -fs -o /dev/null -X PUT "$endpoint/esl-test"; then
        made=yes
        break
    fi
    kill -0 "$server" || break
    sleep 0.2
done
if [ -z "${made:-}" ]; then
    cat "$scratch/log" >&2
    echo "moto does not start" >&2
    exit 1
fi

export AWS_ENDPOINT=$endpoint AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
ESL_TEST_S3_URL=s3://esl-test/some/prefix \
    cargo test --manifest-path "$root/Cargo.toml" --workspace --test stores \
    -- --include-ignored
