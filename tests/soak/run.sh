#!/usr/bin/env bash
# Mixed load with faults on the real binary, for so many seconds (30 minutes unless told otherwise):
# tests/soak/run.sh 180
#
# ESL_SERVER_BINARY names a binary to take in place of the one that is built here.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
source "$root/tests/server_binary.sh"
exec python3 "$root/tests/soak/soak.py" "$binary" "${1:-1800}"
