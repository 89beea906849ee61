import base64
import hmac
import re


def key(secret):
    """The bytes that a secret of a subscription signs with."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    decoded = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    if not 24 <= len(decoded) <= 64:
        raise ValueError("not a whole whsec_ secret")
    return decoded


def refusal(headers, body, keys, now):
    """Why a request is no genuine delivery, or None if it is one. `body` is the raw bytes."""
    event_id = headers.get("webhook-id", "")
    sent_at = headers.get("webhook-timestamp", "")
    entries = headers.get("webhook-signature", "").encode().split(b" ")
    if not re.fullmatch(r"[^.]+", event_id) or not re.fullmatch(r"[0-9]{1,12}", sent_at):
        return "webhook-id or webhook-timestamp is missing or unreadable"
    if abs(now - int(sent_at)) > 300:
        return "signed more than 5 minutes from now"
    for key in keys:
        tag = hmac.digest(key, f"{event_id}.{sent_at}.".encode() + body, "sha256")
        genuine = b"v1," + base64.b64encode(tag)
        if any(hmac.compare_digest(genuine, entry) for entry in entries):
            return None
    return "no signature in webhook-signature matches"
