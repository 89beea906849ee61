# To be sourced, with `root`, the repository's folder, set: `python` has pika.
#
# The package goes to AMQP_CLIENT_DIR, which is kept for the next time; without it, to a folder that is
# removed at the end.
PIKA=1.4.4

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages=${AMQP_CLIENT_DIR:-$scratch/packages}
mkdir -p "$packages"

python=$packages/python/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv "$packages/python"
fi
"$python" -m pip install --quiet --disable-pip-version-check "pika==$PIKA"
