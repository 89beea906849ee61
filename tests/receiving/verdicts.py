"""The handler for Python over vectors: says of each whether it accepts it; run.sh says how to run it."""

import base64
import json
import sys

from verify import key, refusal


def is_accepted(vector):
    try:
        keys = [key(secret) for secret in vector["secrets"]]
    except ValueError:
        return False
    body = base64.b64decode(vector["body"])
    return refusal(vector["headers"], body, keys, vector["now"]) is None


for line in open(sys.argv[1], encoding="utf-8"):
    vector = json.loads(line)
    if vector["scheme"] == "standard":
        print(vector["name"], "accepted" if is_accepted(vector) else "refused")
