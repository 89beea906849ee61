#!/usr/bin/env bash
# Mixed load with faults on the real binary, for so many seconds (30 minutes unless told otherwise):
# tests/soak/run.sh 180
#
# ESL_SERVER_BINARY names a binary to take in place of the one that is built here.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-1800}
if [ -z "${ESL_SERVER_BINARY:-}" ]; then
    cargo build -p esl-server
    ESL_SERVER_BINARY=${CARGO_TARGET_DIR:-target}/debug/esl-server
fi
exec python3 tests/soak/soak.py "$(realpath "$ESL_SERVER_BINARY")" "$seconds"
