"""A receiver that keeps what it gets."""

import http.server
import queue
import threading


def recorder():
    """Gives its URL, and a queue of headers, with names in lower case, and bodies."""
    requests = queue.Queue()

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            # These are of this connection and of this body: who sends it again has others.
            del headers["host"], headers["content-length"]
            requests.put((headers, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{listener.server_address[1]}/", requests
