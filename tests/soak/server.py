"""The server under test, its API, and what can be measured of its process."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ports import free_ports


class Server:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        [self.port] = free_ports(1)
        self.environment = {
            "ESL_LISTEN": f"127.0.0.1:{self.port}",
            "ESL_DATABASE_URL": f"sqlite://{folder}/esl.db",
            "ESL_ALLOW_PRIVATE_CALLBACKS": "true",
            "RATE_LIMIT_EVENTS_HOUR": "unlimited",
            "ESL_LOG": "error",
        }
        self.log = open(f"{folder}/log", "ab")
        self.process = None
        # Held while the process is exchanged, and while it is looked at.
        self.lock = threading.Lock()

    def start(self):
        self.process = subprocess.Popen(
            [self.binary, "serve"], env=self.environment, stdout=subprocess.DEVNULL, stderr=self.log
        )
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended: see {self.folder}/log")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def run(self, *arguments):
        """A command beside the server; what it says in JSON, if it does."""
        done = subprocess.run(
            [self.binary, *arguments], env=self.environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{arguments}: {done.stderr}")
        return json.loads(done.stdout) if "--json" in arguments else None

    def sample(self):
        with self.lock:
            process = self.process.pid
            with open(f"/proc/{process}/status") as status:
                rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
            files = len(os.listdir(f"/proc/{process}/fd"))
        try:
            wal = os.path.getsize(f"{self.folder}/esl.db-wal")
        except FileNotFoundError:
            wal = 0
        return {"rss": rss >> 10, "wal": wal >> 20, "files": files}


class Api:
    """One client of an organization, with a connection of its own. For one thread."""

    def __init__(self, server, client):
        self.server, self.client = server, client
        self.connection, self.token = None, None

    def for_another_thread(self):
        api = Api(self.server, self.client)
        api.token = self.token
        return api

    def authorize(self):
        form = urllib.parse.urlencode({
            "grant_type": "client_credentials",
            "client_id": self.client["client_id"],
            "client_secret": self.client["client_secret"],
        })
        status, answer = self.ask("POST", "/oauth/token", form, "application/x-www-form-urlencoded")
        assert status == 200, answer
        self.token = answer["access_token"]

    def ask(self, method, path, body=None, content_type="application/json"):
        """Asks until there is an answer; for what may be asked twice."""
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
        headers = {"content-type": content_type}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        while True:
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(
                        "127.0.0.1", self.server.port, timeout=60
                    )
                self.connection.request(method, path, body, headers)
                response = self.connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException):
                if self.connection is not None:
                    self.connection.close()
                self.connection = None
                time.sleep(0.05)
                continue
            if response.status == 503:
                time.sleep(0.2)
                continue
            return response.status, json.loads(text) if text else None
