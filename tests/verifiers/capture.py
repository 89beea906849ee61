"""Prints requests that a real server sends, one JSON object per line; run.sh says of what kind.

    capture.py ESL_SERVER
"""

import http.server
import json
import pathlib
import queue
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from real_server import PATIENCE_SECONDS, server

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


binary = pathlib.Path(sys.argv[1]).resolve()
receiver = Receiver()
for algorithm in ALGORITHMS:
    with server(binary, ESL_SIGNATURE_ALGORITHM=algorithm) as api:
        for number, secret in enumerate(SECRETS):
            api.subscribe(receiver.url(f"/{number}"), secret)
        for data in DATA:
            api.publish(data)
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
