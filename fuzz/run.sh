#!/usr/bin/env bash
# Lets libFuzzer try each target, two at a time, for so many seconds or with so many inputs:
#
#   fuzz/run.sh SECONDS [TARGET…]
#   fuzz/run.sh INPUTSx [TARGET…]     the same ones on every machine, so that nothing goes by how fast it is;
#                                     of configurations, which take ten times as long, a tenth
#
# Wants cargo-fuzz (`cargo install cargo-fuzz --locked`) and a C++ compiler. What it finds is in
# fuzz/artifacts, and becomes a test with a name beside the code. Each run begins with the same seed and
# the corpus in the repository, to which it adds nothing.
#
# There is no sanitizer: ESL has no unsafe code for it to look into, the targets would run at half the
# speed, and without it any compiler will do. What is watched are panics, failed assertions, overflows,
# time and memory.
set -euo pipefail
cd "$(dirname "$0")"
known=(callback_url configuration envelope pattern signature_header)
usage="usage: fuzz/run.sh SECONDS|INPUTSx [TARGET…], of ${known[*]}"
amount=${1:?$usage}
shift
# libFuzzer takes anything else for no limit.
[[ $amount =~ ^[1-9][0-9]*x?$ ]] || { echo "neither seconds nor inputs: $amount; $usage" >&2; exit 2; }
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${known[@]}")
for target in "${targets[@]}"; do
    [[ " ${known[*]} " == *" $target "* ]] || { echo "no such target: $target; $usage" >&2; exit 2; }
done
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 RUST_BACKTRACE=1

# Both are given, since the environment may say otherwise, and so may a cargo-fuzz that was built elsewhere.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo fuzz build --fuzz-dir . --sanitizer none --target "$host" --target-dir target
binaries=$PWD/target/$host/release
found=$(mktemp -d)

# Each job is a process group: what is ended is the fuzzer, too, and not the shell around it alone.
set -m
end() {
    local job
    for job in $(jobs -rp); do
        kill -- "-$job" 2>/dev/null || true
    done
    wait
    rm -rf "$found"
}
trap end EXIT

try() {
    local target=$1 log="$found/$1.log"
    local dictionary="dictionaries/$target" limit="-max_total_time=$amount" inputs=${amount%x}
    [ "$target" != configuration ] || inputs=$(((inputs + 9) / 10))
    [[ $amount != *x ]] || limit="-runs=$inputs"
    mkdir -p "$found/$target" "artifacts/$target"
    # New inputs go to the first folder.
    if "$binaries/$target" "$found/$target" "corpus/$target" -dict="$dictionary" -seed=1 \
        "$limit" -max_len=4096 -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="artifacts/$target/" -print_final_stats=1 >"$log" 2>&1; then
        printf 'ok: %s: %s\n' "$target" "$(grep -o 'DONE.*' "$log" | tr -s ' ')"
    else
        printf 'FAILED: %s\n' "$target"
        grep -n -m 1 -A 40 -E 'panicked|ERROR: libFuzzer' "$log" || true
        tail -n 12 "$log"
        return 1
    fi
}

running=0 failed=0
for target in "${targets[@]}"; do
    if [ "$running" = 2 ]; then
        wait -n || failed=1
        running=1
    fi
    try "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit "$failed"
