# To be sourced, with `root`, the repository's folder, set: `binary` is the server to test, by its whole
# path. ESL_SERVER_BINARY names one; otherwise it is what is built here.
binary=${ESL_SERVER_BINARY:-}
if [ -z "$binary" ]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" --package esl-server
    binary=${CARGO_TARGET_DIR:-$root/target}/debug/esl-server
fi
binary=$(realpath "$binary")
