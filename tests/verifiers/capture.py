"""Prints requests that a real server sends, one JSON object per line; run.sh says of what kind.

    capture.py ESL_SERVER
"""

import contextlib
import http.server
import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request

CLIENT, CLIENT_SECRET = "verifiers", "0123456789abcdef0123456789abcdef"
PATIENCE_SECONDS = 60

ALGORITHMS = ["sha256", "sha384", "sha512"]
SECRETS = [
    "your-webhook-secret-for-signature-verification",
    "x",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==",
]
# Data whose bytes change when it is parsed and written again on the way.
DATA = [
    '{"id":"person_01H8XYZ","name":"John Doe","pets":[{"id":"pet_01H8ABC","type":"dog"}]}',
    r'{"z":1.0,"a":1e3,"big":12345678901234567890123,"path":"a\/b","escaped":"\u00f6\ud83e\udd80"}',
    '{ "spaced" : [ 1,  2 ] ,\t"name" : "Jörg 🦀", "empty": {} }',
    '{"long":"' + "0123456789" * 10_000 + '"}',
]


class Receiver:
    """Accepts everything; each request goes into a queue."""

    def __init__(self):
        requests = self.requests = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                requests.put((self.path, headers, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"


@contextlib.contextmanager
def server(binary: pathlib.Path, algorithm: str):
    """Runs `esl-server` with a state of its own; gives its API."""
    variables = {
        "ESL_LISTEN": "127.0.0.1:0",
        "ESL_LOG_FORMAT": "json",
        "ESL_ALLOW_PRIVATE_CALLBACKS": "true",
        "ESL_BOOTSTRAP_CLIENT": f"{CLIENT}:{CLIENT_SECRET}",
        "ESL_SIGNATURE_ALGORITHM": algorithm,
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
            yield Api(f"http://{address}")
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
        request = urllib.request.Request(self.base + path, body.encode(), self.headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)


binary = pathlib.Path(sys.argv[1]).resolve()
receiver = Receiver()
for algorithm in ALGORITHMS:
    with server(binary, algorithm) as api:
        for number, secret in enumerate(SECRETS):
            subscription = {
                "callback_url": receiver.url(f"/{number}"),
                "events": ["person.*"],
                "secret": secret,
            }
            api.post("/api/v1/subscriptions", json.dumps(subscription))
        for data in DATA:
            api.post("/api/v1/events", f'{{"type":"person.updated","data":{data}}}')
        for _ in range(len(SECRETS) * len(DATA)):
            path, headers, body = receiver.requests.get(timeout=PATIENCE_SECONDS)
            assert any(data.encode() in body for data in DATA), "data goes out as it came in"
            request = {
                "algorithm": algorithm,
                "secret": SECRETS[int(path[1:])],
                "headers": headers,
                "body": body.decode(),
            }
            print(json.dumps(request))
