"""PyPI's `standardwebhooks` over captured requests; run.sh says how to run it."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError


def webhook(secret: str) -> Webhook:
    """A `whsec_` secret goes in as it is, any other one as its bytes."""
    return Webhook(secret if secret.startswith("whsec_") else secret.encode())


def is_accepted(verifier: Webhook, body: bytes, headers: dict) -> bool:
    try:
        verifier.verify(body, headers, json_parse=False)
        return True
    except WebhookVerificationError:
        return False


def altered(request: dict, body: bytes):
    """The request with one byte altered, in each way that we try."""
    headers = request["headers"]
    for at in range(0, len(body), max(1, len(body) // 500)):
        yield body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], headers
    for name in ("webhook-id", "webhook-timestamp"):
        value = headers[name]
        yield body, {**headers, name: value[:-1] + chr(ord(value[-1]) ^ 1)}


accepted = refused = 0
for line in open(sys.argv[1], encoding="utf-8"):
    request = json.loads(line)
    verifier = webhook(request["secret"])
    body = request["body"].encode()
    if not is_accepted(verifier, body, request["headers"]):
        sys.exit(f"python: refused a genuine request: {line}")
    accepted += 1
    for other_body, headers in altered(request, body):
        if is_accepted(verifier, other_body, headers):
            sys.exit(f"python: accepted an altered request: {other_body!r} {headers}")
        refused += 1
if not accepted:
    sys.exit("python: the capture is empty")
print(f"python, standardwebhooks: {accepted} accepted, {refused} altered ones refused")
