#!/usr/bin/env bash
# The examples do what their first lines say.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --workspace --examples
examples=$(realpath "${CARGO_TARGET_DIR:-target}/debug/examples")
folder=$(mktemp -d)
trap 'rm -rf "$folder"; [ -z "${receiver:-}" ] || kill "$receiver" 2>/dev/null || true' EXIT
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
WEBHOOK_SECRET=your-secret RECEIVER_LISTEN=127.0.0.1:0 "$examples/receiver" >receiver.out &
receiver=$!
for _ in $(seq 100); do grep -q listening receiver.out && break; sleep 0.1; done
url=$(sed -n 's/^listening on //p' receiver.out)
status=$(curl -s -o /dev/null -w '%{http_code}' -d '{}' "$url")
[ "$status" = 401 ] || { echo "an unsigned request got $status" >&2; exit 1; }
expect receiver.out '^refused: '
echo "examples: ok"
