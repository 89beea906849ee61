"""Data that was too large to come with its event, fetched as docs/receiving.md says.

    large.py ESL_SERVER
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.error

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples" / "receivers"
sys.path[:0] = [str(HERE.parent), str(EXAMPLES / "python")]
from data import data_of
from real_server import PATIENCE_SECONDS, server
from recorder import recorder

SMALL, LARGE = '{"text":"small"}', '{"text":"' + "Größe " * 2_000 + '","n":1.0}'


def by_python(event):
    try:
        return data_of(event)
    except (ValueError, urllib.error.HTTPError):
        return None


def by_php(event):
    code = f"require '{EXAMPLES}/php/data.php'; echo json_encode(dataOf(json_decode(stream_get_contents(STDIN), true)));"
    done = subprocess.run(["php", "-r", code], input=json.dumps(event).encode(), capture_output=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def altered(reference: dict):
    uri, checksum = reference["uri"], reference["checksum"]
    yield "a checksum that is another", {**reference, "checksum": checksum[:-4] + "zzzz"}
    yield "a byte less", {**reference, "size_bytes": reference["size_bytes"] - 1}
    yield "a byte more", {**reference, "size_bytes": reference["size_bytes"] + 1}
    yield "a link that was made to last", {**reference, "uri": uri.replace("exp=", "exp=9")}


def on_this_machine(file: pathlib.Path):
    """References to a file, which are right but for that."""
    content = LARGE.encode()
    file.write_bytes(content)
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    for uri in (file.as_uri(), file.as_uri().replace("file", "FILE"), str(file)):
        yield uri, {"uri": uri, "size_bytes": len(content), "checksum": checksum}


with server(pathlib.Path(sys.argv[1]).resolve(), ESL_MAX_PAYLOAD_SIZE="2048") as api:
    url, requests = recorder()
    # Strict, so that they come in their order.
    api.subscribe(url, "a-secret", ordering="strict")
    for data in (SMALL, LARGE):
        api.publish(data)
    small, large = (json.loads(requests.get(timeout=PATIENCE_SECONDS)[1]) for _ in range(2))
    assert "data_ref" not in small and "data" not in large
    for who, data_by in (("python", by_python), ("php", by_php)):
        assert data_by(small) == json.loads(SMALL), who
        assert data_by(large) == json.loads(LARGE), who
        for what, reference in altered(large["data_ref"]):
            assert data_by({**large, "data_ref": reference}) is None, f"{who} takes {what}"
        with tempfile.TemporaryDirectory() as folder:
            for uri, reference in on_this_machine(pathlib.Path(folder, "secret.json")):
                assert data_by({**large, "data_ref": reference}) is None, f"{who} reads {uri}"
        print(f"{who}: fetched {large['data_ref']['size_bytes']} bytes, and nothing that was altered")
