#!/usr/bin/env bash
# The end-to-end suite (tests/server) in another set-up than SQLite, on services of its own:
#
#   tests/set_ups.sh postgres [FILTER…]
#
# ESL_TEST_DATABASE_URL names a server to take in place of one that is started here. Needs PostgreSQL, openssl and python3.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
set_up=${1:?"usage: tests/set_ups.sh postgres [FILTER…]"}
shift

# What is about SQLite's file: damage to it, locks on it, disks that it fills, copies of it.
of_the_file=(
    faults::damaged_files faults::full_disk faults::locked one_engine secrecy
    operations::a_backup operations::an_erased_event
    secrets::a_start secrets::secrets_are_re_encrypted
    start::check_fails start::the_blob_storage configuration::check_says
    tenancy::an_organization_with_a_damaged_plan
)

scratch=$(mktemp -d)
finish() {
    # The server ends with whoever holds its input.
    exec 8>&- || true
    rm -rf "$scratch"
}
trap finish EXIT

start_postgres() {
    [ -z "${ESL_TEST_DATABASE_URL:-}" ] || return 0
    local port as=() socket
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
        -keyout "$scratch/key" -out "$scratch/certificate" 2>/dev/null
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    [ "$(id -u)" != 0 ] || as=(setpriv --reuid=postgres --regid=postgres --init-groups)
    mkfifo "$scratch/input"
    exec 8<>"$scratch/input"
    mkfifo "$scratch/output"
    # It keeps what it acknowledges, as the server demands.
    (cd / && ESL_TEST_PORT=$port ESL_TEST_CERTIFICATE=$(cat "$scratch/certificate") \
        ESL_TEST_KEY=$(cat "$scratch/key") ESL_TEST_POSTGRES_OPTIONS='' \
        exec setsid "${as[@]}" sh "$scratch/cluster.sh" <"$scratch/input" >"$scratch/output" 8>&-) &
    read -r socket <"$scratch/output" || { echo "no server of PostgreSQL could be started" >&2; exit 1; }
    export ESL_TEST_DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
}

cp esl-postgres/tests/on_server/cluster.sh "$scratch/"
chmod -R a+rX "$scratch"
case $set_up in
    postgres) start_postgres ;;
    *) echo "no such set-up: $set_up" >&2; exit 2 ;;
esac
skips=()
for case in "${of_the_file[@]}"; do skips+=(--skip "$case"); done
cargo test --workspace --test server -- "${skips[@]}" "$@"
