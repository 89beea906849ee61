#!/usr/bin/env bash
# The examples do what their first lines say; a receiver gets its events from the real server.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
. tests/server_binary.sh
cargo build --quiet --workspace --examples --features esl/client
examples=$(realpath "${CARGO_TARGET_DIR:-target}/debug/examples")
folder=$(mktemp -d)
trap 'kill ${server:-} ${receiver:-} 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"

expect() { grep -q -- "$2" "$1" || { echo "expected '$2' in:"; cat "$1"; exit 1; } >&2; }

for run in first second; do
    echo "+ embed ($run run, on the same file)"
    "$examples/embed" >embed.out
    expect embed.out '^published evt_.* to 1 subscription'
    expect embed.out '^received  {"id":"evt_.*"type":"person.updated".*"name":"John Doe"'
done

echo "+ outbox"
"$examples/outbox" >outbox.out
expect outbox.out '^Barbara and evt_.* are committed'
expect outbox.out 'was rolled back and does not exist'

for run in first second; do
    echo "+ entities ($run run, on the same file)"
    "$examples/entities" >entities.out
    expect entities.out '^refused: '
    expect entities.out '"type":"invoice.created".*"data":{"id":"invoice_.*","number":"2026-1","paid":false,'
    expect entities.out '"type":"invoice.updated".*"changes":{"paid":{"old":false,"new":true}}'
    expect entities.out '"type":"invoice.deleted".*"paid":true,'
    [ "$(wc -l <entities.out)" = 4 ] || { cat entities.out; exit 1; } >&2
done

echo "+ receiver"
ESL_LISTEN=127.0.0.1:0 ESL_LOG_FORMAT=json ESL_ALLOW_PRIVATE_CALLBACKS=true \
    ESL_BOOTSTRAP_CLIENT=example:0123456789abcdef0123456789abcdef "$binary" 2>server.log &
server=$!
WEBHOOK_SECRET=your-secret RECEIVER_LISTEN=127.0.0.1:0 "$examples/receiver" >receiver.out &
receiver=$!
# Prints what a command prints once it has something to say.
eventually() {
    for _ in $(seq 300); do
        said=$("$@") && [ -n "$said" ] && echo "$said" && return
        sleep 0.1
    done
    echo "in vain: $*" >&2
    cat server.log receiver.out >&2
    return 1
}
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
listening() { grep '"message":"listening"' server.log | member address; }
esl=http://$(eventually listening)
url=$(eventually sed -n 's/^listening on //p' receiver.out)
ask() { curl -sS --fail-with-body -H "Authorization: Bearer $token" -H 'Content-Type: application/json' "$@"; }
token=$(curl -sS --fail-with-body -u example:0123456789abcdef0123456789abcdef \
    -d grant_type=client_credentials "$esl/oauth/token" | member access_token)
subscription=$(ask "$esl/api/v1/subscriptions" \
    -d "{\"callback_url\":\"$url\",\"events\":[\"person.*\"],\"secret\":\"your-secret\"}")
deliveries=$esl/api/v1/subscriptions/$(member id <<<"$subscription")/deliveries
ask "$esl/api/persons" -d '{"name":"John Doe","email":"john@your-app.com"}' >/dev/null
eventually grep -E '^evt_[0-9A-Z]{26} person.created John Doe$' receiver.out >/dev/null
# Whatever is delivered again is accepted, and handled once.
delivered() { ask "$deliveries" | grep '"state":"delivered"' | grep "\"attempts\":$1"; }
eventually delivered 1 >/dev/null
ask "${deliveries%/deliveries}/replay" -d '{"state":"delivered"}' >/dev/null
eventually delivered 2 >/dev/null
[ "$(grep -c ^evt_ receiver.out)" = 1 ] || { cat receiver.out; exit 1; } >&2
for body in '{}' '{"id":"evt_01J00000000000000000000000","data":{"name":"Mallory"}}'; do
    status=$(curl -s -o forged.out -w '%{http_code}' -H 'Content-Type: application/json' \
        -H 'webhook-id: evt_01J00000000000000000000000' -H "webhook-timestamp: $(date +%s)" \
        -H 'webhook-signature: v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=' -d "$body" "$url")
    [ "$status" = 401 ] || { echo "a forged request got $status" >&2; exit 1; }
    expect forged.out '^no signature in the header'
done
status=$(curl -s -o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' -d '{}' "$url")
[ "$status" = 401 ] || { echo "an unsigned request got $status" >&2; exit 1; }
[ "$(grep -c ^evt_ receiver.out)" = 1 ] || { cat receiver.out; exit 1; } >&2

echo "+ client"
ESL_SERVER_URL=$esl ESL_CLIENT_ID=example ESL_CLIENT_SECRET=0123456789abcdef0123456789abcdef \
    "$examples/client" >client.out
expect client.out '^published evt_.* to 0 subscriptions'
expect client.out "^sub_.* $url"
expect client.out '^  person.created Delivered'
echo "examples: ok"
