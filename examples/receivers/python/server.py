"""A receiver: WEBHOOK_SECRETS="my-secret-123" python3 server.py

While a secret is rotated, both stand there with a space between. Listens on 127.0.0.1, on PORT or 9000.
"""

import http.server
import json
import os
import threading
import time

from verify import key, refusal

KEYS = [key(secret) for secret in os.environ["WEBHOOK_SECRETS"].split()]
BODY_MAX, SEEN_MAX = 1024 * 1024, 100_000
seen, lock = {}, threading.Lock()


def accept(event):
    """Store it and return; the work comes later. If this raises, the event comes again."""
    print("accepted", event["type"], event["id"], flush=True)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # with the 5 of the library, a connection among many waits for seconds


class Receiver(http.server.BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if not 0 <= length <= BODY_MAX:
            return self.answer(413, "too large")
        body = self.rfile.read(length)  # as it came: parsed and written again, it has other bytes
        why = refusal(self.headers, body, KEYS, time.time())
        if why:
            return self.answer(401, why)
        event_id = self.headers["webhook-id"]
        with lock:  # the same event, come twice at once, is accepted once
            if event_id not in seen:
                accept(json.loads(body))
                seen[event_id] = True
                if len(seen) > SEEN_MAX:
                    del seen[next(iter(seen))]  # the oldest
        self.answer(200, "OK")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


Server(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Receiver).serve_forever()
