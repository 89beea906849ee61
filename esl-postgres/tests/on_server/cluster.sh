#!/bin/sh
# Starts a server of PostgreSQL for the tests, says on a line of its own where its socket is, and ends the server
# as soon as nobody holds the other end of its input: so however the tests end, killed or not, nothing of it
# is left. What it has is in a folder of its own, and is not meant to last.
set -eu
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)"

folder=$(mktemp -d /tmp/esl-postgres-XXXXXX)
finish() {
    pg_ctl -D "$folder/data" -m immediate stop >/dev/null 2>&1 || :
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

say_why() {
    cat "$folder/log" >&2
    exit 1
}
initdb -D "$folder/data" -U postgres -A trust -E UTF8 --no-locale --no-sync >"$folder/log" 2>&1 || say_why
printf '%s\n' "$ESL_TEST_CERTIFICATE" >"$folder/data/server.crt"
(umask 077 && printf '%s\n' "$ESL_TEST_KEY" >"$folder/data/server.key")

options="-c listen_addresses=127.0.0.1 -c port=$ESL_TEST_PORT -c ssl=on"
options="$options -c unix_socket_directories='$folder' -c max_connections=400"
# A line of the log begins with whose it is.
options="$options -c log_line_prefix='%a|'"
options="$options -c shared_buffers=64MB ${ESL_TEST_POSTGRES_OPTIONS--c fsync=off -c full_page_writes=off}"
pg_ctl -D "$folder/data" -l "$folder/log" -w -t 60 -o "$options" start >/dev/null 2>&1 || say_why

echo "$folder"
exec >/dev/null 2>&1
cat
