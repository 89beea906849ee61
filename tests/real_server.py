"""A real `esl-server` with a state of its own, and its API, for tests in Python."""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request

CLIENT, CLIENT_SECRET = "python", "0123456789abcdef0123456789abcdef"
PATIENCE_SECONDS = 60


@contextlib.contextmanager
def server(binary: pathlib.Path, **variables: str):
    """Runs `esl-server` with these variables beside its own; gives its API."""
    with running(binary, **variables) as url:
        yield Api(url)


@contextlib.contextmanager
def running(binary: pathlib.Path, **variables: str):
    """The same, and gives its URL."""
    variables = {
        "ESL_LISTEN": "127.0.0.1:0",
        "ESL_LOG_FORMAT": "json",
        "ESL_ALLOW_PRIVATE_CALLBACKS": "true",
        "ESL_BOOTSTRAP_CLIENT": f"{CLIENT}:{CLIENT_SECRET}",
        **variables,
    }
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [binary], cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            events = map(json.loads, process.stderr)
            address = next(event["address"] for event in events if event["message"] == "listening")
            # Read on, so that the server never waits for us.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


class Api:
    def __init__(self, base: str):
        self.base, self.headers = base, {}
        form = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": CLIENT_SECRET,
        }
        token = self.post("/oauth/token", urllib.parse.urlencode(form))["access_token"]
        self.headers["authorization"] = f"Bearer {token}"
        self.headers["content-type"] = "application/json"

    def post(self, path: str, body: str):
        return self._ask(path, body.encode())

    def get(self, path: str):
        return self._ask(path, None)

    def subscribe(self, url: str, secret: str, **options) -> str:
        """Subscribes to all events of persons; gives the subscription's id."""
        subscription = {"callback_url": url, "events": ["person.*"], "secret": secret, **options}
        return self.post("/api/v1/subscriptions", json.dumps(subscription))["id"]

    def publish(self, data: str) -> str:
        """Publishes `person.updated` with this data, as it is written; gives the event's id."""
        return self.post("/api/v1/events", f'{{"type":"person.updated","data":{data}}}')["id"]

    def delivery(self, subscription: str, event: str, state: str) -> dict:
        """The delivery of an event to a subscription, with its attempts, once it is in a state."""
        found = None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            page = self.get(f"/api/v1/subscriptions/{subscription}/deliveries?limit=100")
            found = next((it for it in page["data"] if it["event_id"] == event), None)
            if found and found["state"] == state:
                return self.get(f"/api/v1/deliveries/{found['id']}")
            time.sleep(0.02)
        raise AssertionError(f"expected the delivery to be {state}, but found {found}")

    def _ask(self, path: str, body: bytes | None):
        request = urllib.request.Request(self.base + path, body, self.headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)
