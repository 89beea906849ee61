"""PyPI's `standardwebhooks` over the vectors; run.sh says how to run it.

    vectors.py FOLDER      the folder with the vectors
"""

import base64
import datetime
import json
import pathlib
import sys
from unittest import mock

from standardwebhooks import Webhook


class Clock(datetime.datetime):
    """A clock that stands still where a vector wants it."""

    seconds = 0

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(cls.seconds, tz)


def is_accepted(vector: dict) -> bool:
    Clock.seconds = vector["now"]
    body = base64.b64decode(vector["body"]) * vector.get("body_times", 1)
    for secret in vector["secrets"]:
        try:
            # A `whsec_` secret goes in as it is, any other one as its bytes.
            verifier = Webhook(secret if secret.startswith("whsec_") else secret.encode())
            verifier.verify(body, vector["headers"], json_parse=False)
            return True
        # It raises more than its own error for what it cannot read. Whatever it is, a handler fails.
        except Exception:
            continue
    return False


folder = pathlib.Path(sys.argv[1])
exceptions = json.loads((folder / "exceptions.json").read_text("utf-8"))["pypi"]
accepted, refused, differing = 0, 0, set()
for file in sorted(folder.glob("*.json")):
    if file.name == "exceptions.json":
        continue
    for vector in json.loads(file.read_text("utf-8"))["vectors"]:
        if vector["scheme"] != "standard":
            continue
        with mock.patch("standardwebhooks.webhooks.datetime", Clock):
            is_genuine = is_accepted(vector)
        if is_genuine != ("accepted" in vector["expected"]):
            differing.add(f"{file.stem}/{vector['name']}")
        accepted, refused = accepted + is_genuine, refused + (not is_genuine)
if differing != set(exceptions):
    sys.exit(f"python: differs in {sorted(differing)}, but exceptions.json has {sorted(exceptions)}")
if not accepted:
    sys.exit("python: there are no vectors")
print(f"python, standardwebhooks: {accepted} vectors accepted, {refused} refused, "
      f"{len(differing)} of them unlike us, as is written down")
