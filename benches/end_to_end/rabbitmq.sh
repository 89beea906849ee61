#!/bin/sh
# Starts RabbitMQ in a folder of its own below the one that is named, and ends all of it as soon as nobody holds the
# other end of the input. `esl.events` is there already, with a queue that takes everything and keeps some of it.
set -eu
folder=$(mktemp -d "$1/rabbitmq-XXXXXX")
port=$2
export HOME="$folder"
export ERL_EPMD_PORT="$3" ERL_EPMD_ADDRESS=127.0.0.1
export RABBITMQ_NODENAME="esl-bench-$port@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
export RABBITMQ_NODE_PORT="$port" RABBITMQ_DIST_PORT="$4"
export RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf"
export RABBITMQ_ENABLED_PLUGINS_FILE="$folder/enabled_plugins" RABBITMQ_PID_FILE="$folder/pid"
export RABBITMQ_MNESIA_BASE="$folder/data" RABBITMQ_LOG_BASE="$folder/log"
binary=
for known in /usr/sbin/rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server; do
    [ ! -x "$known" ] || binary=$known
done
[ -n "$binary" ] || exit 1

cd "$folder"
echo '[].' >enabled_plugins
cat >rabbitmq.conf <<END
load_definitions = $folder/definitions.json
log.console = true
log.console.level = warning
log.file = false
disk_free_limit.absolute = 50MB
END
cat >definitions.json <<END
{
    "vhosts": [{"name": "/"}],
    "users": [{
        "name": "guest", "tags": "", "hashing_algorithm": "rabbit_password_hashing_sha256",
        "password_hash": "AAAAAPEoQ8a3jY6DABRiJzkoKooQbXiBp2iGLke7d+FVKzJx"
    }],
    "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
    "exchanges": [{
        "name": "esl.events", "vhost": "/", "type": "topic",
        "durable": true, "auto_delete": false, "internal": false, "arguments": {}
    }],
    "queues": [{
        "name": "bench", "vhost": "/", "durable": true, "auto_delete": false,
        "arguments": {"x-max-length": 10000}
    }],
    "bindings": [{
        "source": "esl.events", "vhost": "/", "destination": "bench", "destination_type": "queue",
        "routing_key": "#", "arguments": {}
    }]
}
END
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 &
"$binary" >output 2>&1 &
echo started
exec >/dev/null 2>&1
cat
kill -KILL 0
