#!/usr/bin/env bash
# Three nodes on one PostgreSQL and one RabbitMQ, all of them real and the run's own:
#
#   tests/nodes/run.sh fire SECONDS SEED    nodes are killed, everything is restarted and stands still
#   tests/nodes/run.sh stops SECONDS SEED   nodes stand still for longer than their epochs
#
# A seed gives the same faults at the same moments, not the same run. Of `pika`, AMQP_CLIENT_DIR keeps the
# package for the next time. Needs python3, PostgreSQL and rabbitmq-server. ESL_SERVER_BINARY names a binary
# to take in place of the one that is built here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
way=${1:?"usage: tests/nodes/run.sh fire|stops [SECONDS] [SEED]"}
source "$root/tests/server_binary.sh"
source "$root/tests/amqp/pika.sh"
"$python" "$here/nodes.py" "$way" "$binary" "${2:-120}" "${3:-1}"
