#!/usr/bin/env bash
# Holds the server and a RabbitMQ against a client that is not ours, `pika` of PyPI: it consumes
# `esl.events` by pattern and publishes through `esl.ingest`, and the broker goes away and comes back.
#
#   tests/amqp/run.sh
#
# The package goes to AMQP_CLIENT_DIR, which is kept for the next time; without it, to a folder that is
# removed at the end. Needs cargo, python3 and rabbitmq-server; the broker that it starts is its own.
# ESL_SERVER_BINARY names a binary to take in place of the one that is built here.
set -euo pipefail

PIKA=1.4.4

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages=${AMQP_CLIENT_DIR:-$scratch/packages}
mkdir -p "$packages"

python=$packages/python/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv "$packages/python"
fi
"$python" -m pip install --quiet --disable-pip-version-check "pika==$PIKA"

source "$root/tests/server_binary.sh"
"$python" "$here/check.py" "$binary"
