#!/usr/bin/env bash
# Each feature builds alone, a receiver's build has neither tokio nor a database, over HTTP no client, and
# core depends on no adapter.
set -euo pipefail
cd "$(dirname "$0")/.."

check() { echo "+ cargo check $*"; cargo check --quiet "$@"; }
check -p esl-core --no-default-features
check -p esl-core --no-default-features --features engine
check -p esl-core --no-default-features --features entities
check -p esl-core --no-default-features --features testing
check -p esl-http --no-default-features --features transport
check -p esl-http --no-default-features --features api
check -p esl-http --no-default-features --features entities
check -p esl-http --no-default-features --features receiver
check -p esl-http --no-default-features --features fetch
check -p esl-http --no-default-features --features client
check -p esl --no-default-features
check -p esl --no-default-features --features engine
check -p esl --no-default-features --features http
check -p esl --no-default-features --features receiver
check -p esl --no-default-features --features fetch
check -p esl --no-default-features --features client
check -p esl --no-default-features --features sqlite
check -p esl --no-default-features --features blob
check -p esl --no-default-features --features amqp
check -p esl --no-default-features --features entities
check -p esl --no-default-features --features entities,http
check -p esl-sqlite
check -p esl-sqlite --no-default-features --features seen
check -p esl-sqlite --no-default-features --features storage
check -p esl-postgres
check -p esl-server
check -p esl-server --no-default-features
check -p esl-amqp
check -p esl-amqp --features tls
for cloud in s3 gcs azure; do check -p esl-blob --features "$cloud"; done

forbid() {
    local what="$1" pattern="$2"
    shift 2
    local found
    found=$(cargo tree --edges normal,build --prefix none "$@" | grep -E "^($pattern) v" | sort -u || true)
    if [ -n "$found" ]; then
        echo "$what must not depend on:" >&2
        echo "$found" >&2
        exit 1
    fi
    echo "ok: $what has none of $pattern"
}
databases='rusqlite|libsqlite3-sys|tokio-postgres|sqlx'
forbid "a receiver's core" "tokio|hyper|axum|reqwest|$databases" -p esl-core --no-default-features
forbid "a receiver's esl" "tokio|hyper|axum|reqwest|$databases" -p esl --no-default-features
forbid "a receiver over HTTP" "hyper|hyper-util|rustls|tokio-rustls|reqwest|axum|h2|url|$databases" \
    -p esl-http --no-default-features --features receiver
forbid "a receiver's esl over HTTP" "hyper|hyper-util|rustls|tokio-rustls|reqwest|axum|h2|url|$databases" \
    -p esl --no-default-features --features receiver
forbid "a client" "axum|jsonschema|tokio-util|chacha20poly1305|$databases" -p esl-http --no-default-features --features client
forbid "core" "esl-amqp|esl-sqlite|esl-postgres|esl-http|esl-server|hyper|axum|$databases" -p esl-core --all-features
forbid "esl-sqlite" "esl-http|esl-server|hyper|axum" -p esl-sqlite
forbid "what is seen, in esl-sqlite" "tokio-util|tracing|url|chacha20poly1305|esl-http|hyper|axum" -p esl-sqlite --no-default-features --features seen
forbid "esl-postgres" "esl-sqlite|esl-http|esl-server|hyper|axum|libsqlite3-sys|openssl-sys|ring" -p esl-postgres
forbid "esl-amqp" "esl-sqlite|esl-http|esl-server|hyper|axum|$databases" -p esl-amqp --all-features
forbid "esl-http" "esl-sqlite|esl-server|$databases" -p esl-http --all-features
