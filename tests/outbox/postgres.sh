#!/usr/bin/env bash
# Holds the outbox in PostgreSQL against a program that is not in Rust: psycopg, from PyPI, which publishes
# by SQL in the transactions of its own rows, committed and rolled back.
#
#   tests/outbox/postgres.sh
#
# The package goes to PSYCOPG_DIR, which is kept for the next time; without it, to a folder that is removed
# at the end. Needs cargo, python3 and PostgreSQL, or ESL_TEST_POSTGRES_URL.
set -euo pipefail

PSYCOPG=3.2.3

root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages=${PSYCOPG_DIR:-$scratch/psycopg}
python=$packages/bin/python
[ -x "$python" ] || python3 -m venv "$packages"
"$python" -m pip install --quiet --disable-pip-version-check "psycopg[binary]==$PSYCOPG"

ESL_TEST_PYTHON=$(realpath -s "$python") \
    cargo test --manifest-path "$root/Cargo.toml" --workspace \
    --features "esl-amqp/live esl-postgres/live" --test on_server \
    -- --ignored --exact outbox::a_program_in_python_publishes_with_its_own_rows
