"""Fetches the data of a large event as its receiver would, with Python's standard library alone.

    fetch.py ENVELOPE BASE_URL TOKEN

ENVELOPE is a file with what was received, BASE_URL is the API's, and TOKEN may read events. The data
is fetched by the link in `data_ref`, without a token, and by token. Both must be what `data_ref` says:
so many bytes, with that checksum. Prints the two.
"""

import hashlib
import json
import sys
import urllib.request

PATIENCE_SECONDS = 30


def fetch(url: str, bytes_max: int, token: str | None = None) -> bytes:
    request = urllib.request.Request(url)
    if token is not None:
        # Not for a store that the API may send us on to.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        # One more, so that what is too long shows.
        return answer.read(bytes_max + 1)


def check(how: str, blob: bytes, reference: dict) -> None:
    if len(blob) != reference["size_bytes"]:
        sys.exit(f"{how}: {len(blob)} bytes or more, not {reference['size_bytes']}")
    checksum = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    if checksum != reference["checksum"]:
        sys.exit(f"{how}: the checksum is {checksum}, not {reference['checksum']}")
    json.loads(blob)


def main(envelope_file: str, base_url: str, token: str) -> None:
    with open(envelope_file, "rb") as file:
        envelope = json.load(file)
    reference = envelope.get("data_ref")
    if reference is None or "data" in envelope:
        sys.exit("this event has its data inline")
    size = reference["size_bytes"]
    by_link = fetch(reference["uri"], size)
    check("by link", by_link, reference)
    by_token = fetch(f"{base_url}/api/v1/blobs/{envelope['id']}", size, token)
    check("by token", by_token, reference)
    print(size, reference["checksum"])


main(*sys.argv[1:])
