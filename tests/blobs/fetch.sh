#!/usr/bin/env bash
# Large payloads as a receiver sees them that is none of ours: a real server, a receiver in Python, one
# event a byte under the limit and one a byte over it. The first comes inline, the second by reference,
# and fetch.py must find what was published behind that, by link and by token.
#
#   tests/blobs/fetch.sh
#
# Needs cargo, curl and python3.
# ESL_SERVER_BINARY names a binary to take in place of the one that is built here.
set -euo pipefail

LIMIT=2048
CLIENT=witness
CLIENT_SECRET=0123456789abcdef0123456789abcdef

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
export no_proxy=127.0.0.1
source "$root/tests/server_binary.sh"

scratch=$(mktemp -d)
started=()
finish() {
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    for process in "${started[@]}"; do wait "$process" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap finish EXIT
fail() {
    echo "fetch: $1" >&2
    sed 's/^/  server: /' "$scratch/log" >&2 || true
    exit 1
}

# Prints what a command finds, as soon as it finds something.
await() {
    local what=$1 found
    shift
    for _ in $(seq 300); do
        found=$("$@" 2>/dev/null || true)
        if [ -n "$found" ]; then
            echo "$found"
            return
        fi
        sleep 0.1
    done
    fail "$what: not within 30 s"
}
ask() { curl --silent --show-error --fail-with-body --max-time 30 "$@"; }

mkdir "$scratch/received" "$scratch/state"
python3 "$here/receiver.py" "$scratch/received" >"$scratch/receiver" &
started+=($!)
(
    cd "$scratch/state"
    exec env -i ESL_LISTEN=127.0.0.1:0 ESL_LOG_FORMAT=json ESL_ALLOW_PRIVATE_CALLBACKS=true \
        ESL_BOOTSTRAP_CLIENT=$CLIENT:$CLIENT_SECRET ESL_MAX_PAYLOAD_SIZE=$LIMIT \
        "$binary" serve
) >/dev/null 2>"$scratch/log" &
started+=($!)
receiver=$(await "the receiver" cat "$scratch/receiver")
address=$(await "the server" sed -n '/"listening"/s/.*"address":"\([^"]*\)".*/\1/p' "$scratch/log")
base=http://$address

token=$(ask "$base/oauth/token" -d grant_type=client_credentials -d client_id=$CLIENT \
    -d client_secret=$CLIENT_SECRET | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
api() {
    local path=$1
    shift
    ask "$base/api/v1/$path" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' "$@"
}
# Strict, so that events come in their order.
api subscriptions -o "$scratch/subscription" \
    -d "{\"callback_url\":\"$receiver\",\"events\":[\"person.*\"],\"ordering\":\"strict\"}"

# Publishes data with a text of so many bytes; prints the file with what the receiver got.
count=0
data_of() { printf '{"text":"%s"}' "$(head -c "$1" /dev/zero | tr '\0' x)"; }
publish() {
    count=$((count + 1))
    api events -o "$scratch/published" -d "{\"type\":\"person.updated\",\"data\":$(data_of "$1")}"
    received=$(await "event $count" ls "$scratch/received/$count.json")
}
size_of() { wc -c <"$1"; }

publish 0
around=$(size_of "$received")

publish $((LIMIT - 1 - around))
[ "$(size_of "$received")" = $((LIMIT - 1)) ] || fail "expected an envelope of $((LIMIT - 1)) bytes"
grep -q '"data":{"text":"xxx' "$received" || fail "a byte under the limit is not inline"
! grep -q '"data_ref"' "$received" || fail "a byte under the limit goes by reference, too"
! python3 "$here/fetch.py" "$received" "$base" "$token" 2>/dev/null ||
    fail "fetch.py finds a reference where there is none"

over=$((LIMIT + 1 - around))
publish "$over"
[ "$(size_of "$received")" -le "$LIMIT" ] || fail "with its reference the event is over the limit"
grep -q '"data_ref":{"type":"blob"' "$received" || fail "a byte over the limit is not by reference"
! grep -q '"data":' "$received" || fail "a byte over the limit goes inline, too"
data_of "$over" >"$scratch/data"
expected="$(size_of "$scratch/data") sha256:$(sha256sum <"$scratch/data" | cut -d ' ' -f 1)"
fetched=$(python3 "$here/fetch.py" "$received" "$base" "$token") || fail "the data cannot be fetched"
[ "$fetched" = "$expected" ] || fail "fetched $fetched, but published $expected"

# A witness that accepts everything would be none.
sed 's/"checksum":"sha256:..../"checksum":"sha256:zzzz/' "$received" >"$scratch/altered"
! python3 "$here/fetch.py" "$scratch/altered" "$base" "$token" 2>/dev/null ||
    fail "fetch.py takes another checksum"
! python3 "$here/fetch.py" "$received" "$base" nonsense 2>/dev/null || fail "a token that is none reads"
echo "fetch: ok ($fetched)"
