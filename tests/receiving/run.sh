#!/usr/bin/env bash
# Receivers in PHP, Python, Node, Go and Ruby (examples/receivers): asked about tests/vectors, and
# subscribed as servers at a real esl-server. And what docs/receiving.md says of them, of mistakes, of
# large payloads, and of trying one at home.
#
#   tests/receiving/run.sh                 all of it
#   tests/receiving/run.sh --write-docs    puts the receivers' code into docs/receiving.md, and no more
#
# Needs cargo, openssl, python3 and the languages, which are installed where apt-get can: none is passed
# over. ESL_SERVER_BINARY names a binary to take in place of the one that is built here.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
examples=$root/examples/receivers
export no_proxy=127.0.0.1 PYTHONDONTWRITEBYTECODE=1

if [ "${1:-}" = --write-docs ]; then
    exec python3 "$here/docs.py" --write
fi

packages=()
command -v php >/dev/null || packages+=(php-cli)
command -v node >/dev/null || packages+=(nodejs)
command -v go >/dev/null || packages+=(golang-go)
command -v ruby >/dev/null || packages+=(ruby)
ruby -rwebrick -e '' 2>/dev/null || packages+=(ruby-webrick)
command -v openssl >/dev/null || packages+=(openssl)
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: install ${packages[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
        >/dev/null
fi
source "$root/tests/server_binary.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 "$here/docs.py"
python3 "$root/tests/vectors/make.py" --check

# Go builds what lies in one folder.
mkdir "$scratch/go" "$scratch/programs"
cp "$examples"/go/*.go "$here/verdicts.go" "$scratch/go"
(
    cd "$scratch/go"
    [ -z "$(gofmt -l .)" ] || { gofmt -d . >&2; exit 1; }
    go build -o "$scratch/programs/receiver-go" server.go verify.go
    go build -o "$scratch/programs/verdicts-go" verdicts.go verify.go
)
# As docs/receiving.md says, for whoever goes by X-Sapien-Signature.
mkdir "$scratch/programs/php-sapien"
cp "$examples"/php/*.php "$scratch/programs/php-sapien"
sed -i 's/ refusal(\$headers/ sapienRefusal($headers/; s/verify\.php/sapien.php/' \
    "$scratch/programs/php-sapien/index.php"

echo "vectors:"
python3 "$here/vectors.py" lines >"$scratch/lines"
compare() { python3 "$here/vectors.py" compare "$@"; }
php "$here/verdicts.php" "$scratch/lines" "$examples/php" | compare php standard sapien
PYTHONPATH=$examples/python python3 "$here/verdicts.py" "$scratch/lines" | compare python standard
node "$here/verdicts.js" "$scratch/lines" "$examples/node/verify.js" | compare node standard
"$scratch/programs/verdicts-go" "$scratch/lines" | compare go standard
ruby "$here/verdicts.rb" "$scratch/lines" "$examples/ruby/verify.rb" | compare ruby standard

echo "real deliveries:"
python3 "$here/live.py" "$binary" "$scratch/programs"
python3 "$here/failing.py" "$scratch/failing"
python3 "$here/once.py"
python3 "$here/large.py" "$binary"
python3 "$here/mistakes.py" "$binary"
python3 "$here/at_home.py" "$binary"
