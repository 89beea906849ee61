#!/usr/bin/env bash
# The cases of tests/server/faults that take long, or need root (a small disk is mounted, a name
# server put in place) or libfaketime: tests/faults.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# The same chance each time; the cases print it.
export ESL_TEST_SEED=${ESL_TEST_SEED:-1}
runner=()
if [ "$(id -u)" != 0 ]; then
    runner=(--config 'target."cfg(unix)".runner = ["sudo", "--preserve-env"]')
fi
filter=(--ignored --nocapture --test-threads=1 faults::)
if [ -n "${ESL_SUITE_BINARY:-}" ]; then
    # As cargo starts it.
    cd esl-server
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo --preserve-env)
    "${as_root[@]}" "$ESL_SUITE_BINARY" "${filter[@]}"
else
    cargo test --workspace --test server "${runner[@]}" -- "${filter[@]}"
fi
