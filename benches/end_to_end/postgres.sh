#!/bin/sh
# Starts a server of PostgreSQL in a folder of its own below the one that is named, says on a line of its own which
# process it is, and ends it as soon as nobody holds the other end of its input. It is durable, and set as
# docs/operations.md says.
set -eu
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)"

folder=$(mktemp -d "$1/postgres-XXXXXX")
port=$2
# It refuses to run as root.
as=
if [ "$(id -u)" = 0 ]; then
    as="setpriv --reuid=postgres --regid=postgres --init-groups"
    chown postgres "$folder"
fi
cd "$folder"

finish() {
    $as pg_ctl -D "$folder/data" -m immediate stop >/dev/null 2>&1 || :
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

say_why() {
    cat "$folder/log" >&2
    exit 1
}
$as initdb -D "$folder/data" -U postgres -A trust -E UTF8 --no-locale >"$folder/initdb" 2>&1 || {
    cat "$folder/initdb" >&2
    exit 1
}
options="-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories="
options="$options -c shared_buffers=256MB -c max_wal_size=4GB -c autovacuum_naptime=15s"
options="$options ${ESL_BENCH_POSTGRES_OPTIONS-}"
$as pg_ctl -D "$folder/data" -l "$folder/log" -w -t 60 -o "$options" start >/dev/null 2>&1 || say_why

head -n 1 "$folder/data/postmaster.pid"
exec >/dev/null 2>&1
cat
