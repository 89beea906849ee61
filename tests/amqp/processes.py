"""A RabbitMQ and an ESL server, each with a state of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ports import free_ports

PATIENCE_SECONDS = 90
CLIENT, SECRET = "amqp", "0123456789abcdef-0123456789_abcdef"


def until(is_so, what):
    """Waits for something outside of this process, and says what it was if it does not come."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while not (found := is_so()):
        if time.monotonic() > ends:
            raise SystemExit(f"waited in vain until {what}")
        time.sleep(0.05)
    return found


def definitions(virtual_hosts):
    """These virtual hosts, with `guest` in each, who may do everything there."""
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "vhosts": [{"name": name} for name in virtual_hosts],
        "users": [
            {
                "name": "guest",
                # `guest`, with a salt of zeros.
                "password_hash": "AAAAAPEoQ8a3jY6DABRiJzkoKooQbXiBp2iGLke7d+FVKzJx",
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
        ],
        "permissions": [{"user": "guest", "vhost": name} | everything for name in virtual_hosts],
    }


class Broker:
    """A RabbitMQ that goes and comes back, with what it has kept."""

    BINARIES = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/sbin/rabbitmq-server"]

    def __init__(self, folder, virtual_hosts=()):
        self.folder = Path(folder)
        self.folder.mkdir()
        self.port, distribution, epmd = free_ports(3)
        configuration = (
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        if virtual_hosts:
            file = self.folder / "definitions.json"
            file.write_text(json.dumps(definitions(virtual_hosts)))
            configuration += f"load_definitions = {file}\n"
        (self.folder / "rabbitmq.conf").write_text(configuration)
        (self.folder / "enabled_plugins").write_text("[].")
        self.binary = next(path for path in self.BINARIES if os.path.exists(path))
        self.variables = os.environ | {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"esl-test-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
        }
        self.epmd = subprocess.Popen(
            ["epmd", "-port", str(epmd), "-address", "127.0.0.1"], env=self.variables
        )
        self.process = None

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self):
        self.process = subprocess.Popen(
            [self.binary], env=self.variables, cwd=self.folder, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=open(self.folder / "output", "a"),
            stderr=subprocess.STDOUT,
        )
        until(self.answers, "RabbitMQ starts")

    def answers(self):
        if self.process.poll() is not None:
            raise SystemExit((self.folder / "output").read_text())
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def kill(self):
        """As when its machine loses power."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self):
        if self.process and self.process.poll() is None:
            self.kill()
        self.epmd.kill()
        self.epmd.wait()


class Server:
    """An ESL server that is joined to a broker."""

    def __init__(self, binary, folder, broker):
        variables = {
            "ESL_LISTEN": "127.0.0.1:0",
            "ESL_LOG_FORMAT": "json",
            "ESL_BOOTSTRAP_CLIENT": f"{CLIENT}:{SECRET}",
            "ESL_BROKER_URL": broker.url,
            "ESL_BROKER_EVENTS": "true",
            "ESL_BROKER_INGEST": "true",
        }
        Path(folder).mkdir()
        self.process = subprocess.Popen(
            [binary], cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        events = map(json.loads, self.process.stderr)
        address = next(event["address"] for event in events if event["message"] == "listening")
        self.url = f"http://{address}"
        # Read on, so that the server never waits for us.
        self.log = []
        threading.Thread(target=lambda: self.log.extend(events), daemon=True).start()
        form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET}
        self.token = self.call("/oauth/token", form=form)["access_token"]

    def call(self, path, body=None, form=None):
        headers = {}
        if form:
            data = urllib.parse.urlencode(form).encode()
        else:
            data = json.dumps(body).encode() if body is not None else None
            headers["Content-Type"] = "application/json"
        if getattr(self, "token", None):
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def end(self):
        self.process.terminate()
        code = self.process.wait(PATIENCE_SECONDS)
        if code != 0:
            raise SystemExit(f"the server ended with {code}")
