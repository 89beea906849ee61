"""Accepts every event, and keeps each body as FOLDER/1.json, FOLDER/2.json and so on.

    receiver.py FOLDER

Prints its URL once it listens.
"""

import http.server
import itertools
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = sys.argv[1]
    numbers = itertools.count(1)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        # Nobody sees a part of it.
        part = os.path.join(self.folder, "part")
        with open(part, "wb") as file:
            file.write(body)
        os.rename(part, os.path.join(self.folder, f"{next(self.numbers)}.json"))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
server.serve_forever()
