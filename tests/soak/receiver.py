"""A receiver with a path for each way to behave, which notes what it accepts."""

import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    def __init__(self):
        self.lock = threading.Lock()
        # By path: the ids of accepted events, and how often a delivery came again.
        self.events = {}
        self.deliveries = set()
        self.again = 0
        self.requests = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                receiver.requests += 1
                way = self.path.split("/")[1]
                if way == "hang":
                    time.sleep(3)
                if way in ("hang", "reset"):
                    self.close_connection = True
                    return
                if way == "bad" or way == "flaky" and random.random() < 0.2:
                    self.answer(500)
                    return
                # Noted first: what is answered is the server's to forget.
                receiver.note(self.path, self.headers)
                self.answer(200)

            def answer(self, status):
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass  # The server was killed, or has given up.

            def log_message(self, *arguments):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def note(self, path, headers):
        with self.lock:
            self.events.setdefault(path, set()).add(headers["webhook-id"])
            delivery = headers["x-sapien-delivery"]
            self.again += delivery in self.deliveries
            self.deliveries.add(delivery)

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def accepted(self, path):
        with self.lock:
            return set(self.events.get(path, ()))
