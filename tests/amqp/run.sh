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

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
source "$here/pika.sh"
source "$root/tests/server_binary.sh"
"$python" "$here/check.py" "$binary"
