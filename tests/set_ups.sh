#!/usr/bin/env bash
# The end-to-end suite (tests/server) in another set-up than SQLite, on services of its own:
#
#   tests/set_ups.sh postgres [FILTER…]
#   tests/set_ups.sh postgres-and-rabbitmq [FILTER…]
#
# Needs PostgreSQL (initdb, pg_ctl), openssl and python3, and rabbitmq-server in the second one; it fails if one
# is missing. ESL_TEST_DATABASE_URL and ESL_TEST_BROKER_URL name servers to take in place of those that are
# started here; ESL_SUITE_BINARY a suite that is built already. The broker has to have the empty virtual hosts esl-test-0 to esl-test-15.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
usage="usage: tests/set_ups.sh postgres|postgres-and-rabbitmq [FILTER…]"
set_up=${1:?$usage}
shift

# What is about SQLite's file, each with its reason.
skipped=(
    faults::damaged_files::            # the file is damaged
    faults::full_disk::                # the file's disk is full
    faults::locked::                   # somebody else holds the file's lock
    one_engine::                       # one server at a time has the file; several share a server of Postgres
    operations::a_backup_              # the file is copied; pg_dump does that for a server of Postgres
    secrets::a_backup_                 # the same
    start::check_fails_wherever_       # of files and folders that cannot be used, one beside the other
    tenancy::an_organization_with_a_damaged_plan  # the file is damaged
)
# What is the same in each set-up, and needs root or another clock: tests/faults.sh.
skipped+=(faults::clock:: faults::names::)

# After a kill whoever follows waits for half a minute, until the epoch of the one that was killed is over.
export ESL_TEST_KILLS=${ESL_TEST_KILLS:-3}
# Most cases wait for something most of the time. There is a virtual host of the broker for twice as many.
threads=8

scratch=$(mktemp -d)
finish() {
    # The services end with whoever holds their input.
    exec 7>&- 8>&- || true
    rm -rf "$scratch"
}
trap finish EXIT

start_postgres() {
    [ -z "${ESL_TEST_DATABASE_URL:-}" ] || return 0
    local port as=() socket
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
        -keyout "$scratch/key" -out "$scratch/certificate" 2>/dev/null
    port=$(python3 tests/ports.py)
    [ "$(id -u)" != 0 ] || as=(setpriv --reuid=postgres --regid=postgres --init-groups)
    mkfifo "$scratch/postgres-input" "$scratch/postgres-output"
    exec 8<>"$scratch/postgres-input"
    # It keeps what it acknowledges, as the server demands.
    (cd / && ESL_TEST_PORT=$port ESL_TEST_CERTIFICATE=$(cat "$scratch/certificate") \
        ESL_TEST_KEY=$(cat "$scratch/key") ESL_TEST_POSTGRES_OPTIONS='' \
        exec setsid "${as[@]}" sh "$scratch/cluster.sh" \
        <"$scratch/postgres-input" >"$scratch/postgres-output" 7>&- 8>&-) &
    read -r socket <"$scratch/postgres-output" ||
        { echo "no server of PostgreSQL could be started" >&2; exit 1; }
    export ESL_TEST_DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
}

start_rabbitmq() {
    [ -z "${ESL_TEST_BROKER_URL:-}" ] || return 0
    mkfifo "$scratch/rabbitmq-input" "$scratch/rabbitmq-output"
    exec 7<>"$scratch/rabbitmq-input"
    setsid python3 tests/amqp/broker.py 16 \
        <"$scratch/rabbitmq-input" >"$scratch/rabbitmq-output" 7>&- 8>&- &
    read -r ESL_TEST_BROKER_URL <"$scratch/rabbitmq-output" ||
        { echo "no RabbitMQ could be started" >&2; exit 1; }
    export ESL_TEST_BROKER_URL
}

cp esl-postgres/tests/on_server/cluster.sh "$scratch/"
chmod -R a+rX "$scratch"
case $set_up in
    postgres)
        # It has no broker to look at.
        skipped+=(broker::)
        start_postgres
        ;;
    postgres-and-rabbitmq)
        start_postgres
        start_rabbitmq
        ;;
    *)
        echo "no such set-up: $set_up; $usage" >&2
        exit 2
        ;;
esac

if [ -n "${ESL_SUITE_BINARY:-}" ]; then
    # As cargo starts it.
    cd esl-server
    suite=("$ESL_SUITE_BINARY")
else
    suite=(cargo test --workspace --test server --)
fi
cases=$("${suite[@]}" --list)
skips=()
for case in "${skipped[@]}"; do
    # One that was renamed would be run, and what fails then says little.
    grep -q "^$case" <<<"$cases" || { echo "there is no case $case any more" >&2; exit 1; }
    skips+=(--skip "$case")
done
"${suite[@]}" --include-ignored --test-threads "$threads" "${skips[@]}" "$@"
