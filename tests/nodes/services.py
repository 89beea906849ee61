"""A PostgreSQL that keeps what it acknowledges, and nodes of ESL, which die and come back."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from glob import glob
from pathlib import Path

from ports import free_ports
from processes import until

NOBODY_ANSWERS_SECONDS = 60


class Postgres:
    def __init__(self):
        found = sorted(glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
        self.programs = found[-1] if found else os.path.dirname(shutil.which("initdb"))
        self.folder = Path(tempfile.mkdtemp(prefix="esl-nodes-postgres-"))
        # It refuses to run as root.
        self.user = []
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        [self.port] = free_ports(1)
        subprocess.run(
            [*self.user, f"{self.programs}/initdb", "-D", self.folder / "data", "-U", "postgres",
             "-A", "trust", "-E", "UTF8", "--no-locale"],
            check=True, cwd="/", stdout=subprocess.DEVNULL,
        )
        self.process = None

    def url(self, name):
        return (
            f"postgres://postgres@127.0.0.1:{self.port}/postgres"
            f"?sslmode=disable&application_name={name}"
        )

    def start(self):
        self.process = subprocess.Popen(
            [*self.user, f"{self.programs}/postgres", "-D", self.folder / "data",
             "-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}",
             "-c", f"unix_socket_directories={self.folder}", "-c", "shared_buffers=64MB"],
            cwd="/", start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=open(self.folder / "log", "ab"), stderr=subprocess.STDOUT,
        )
        until(self.answers, "PostgreSQL answers")

    def answers(self):
        if self.process.poll() is not None:
            raise SystemExit((self.folder / "log").read_text())
        return self.ask("SELECT 1", check=False) is not None

    def ask(self, statement, check=True):
        """The rows of a statement, as texts."""
        done = subprocess.run(
            [f"{self.programs}/psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres",
             "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, "postgres"],
            capture_output=True, text=True, timeout=NOBODY_ANSWERS_SECONDS,
        )
        if done.returncode != 0:
            if check:
                raise SystemExit(done.stderr)
            return None
        return [line.split("|") for line in done.stdout.splitlines()]

    def stop(self, number):
        """By SIGINT it ends in order, by SIGQUIT as if it had crashed."""
        self.process.send_signal(number)
        self.process.wait()

    def pause(self):
        """The server, and all that it has started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        # It first, so that no more of them come.
        os.kill(self.process.pid, signal.SIGSTOP)
        self.paused = [int(pid) for pid in children.read_text().split()]
        for pid in self.paused:
            send(pid, signal.SIGSTOP)

    def resume(self):
        for pid in [*self.paused, self.process.pid]:
            send(pid, signal.SIGCONT)

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Node:
    """One of the nodes. Whatever it sends has its name and the number of its life in a header."""

    def __init__(self, binary, folder, name, role, postgres, broker_url):
        self.binary, self.folder, self.name, self.role = binary, folder, name, role
        self.postgres, self.broker_url = postgres, broker_url
        [self.port] = free_ports(1)
        self.life = 0
        self.process = None
        self.log = folder / f"{name}.log"

    @property
    def label(self):
        return f"{self.name}-{self.life}"

    def environment(self):
        variables = {
            "ESL_LISTEN": f"127.0.0.1:{self.port}",
            "ESL_DATABASE_URL": self.postgres.url(self.label),
            "ESL_ROLE": self.role,
            "ESL_HEADER_PREFIX": f"X-{self.label}",
            "ESL_ALLOW_PRIVATE_CALLBACKS": "true",
            "ESL_PUBLIC_URL": "http://127.0.0.1",
            "RATE_LIMIT_EVENTS_HOUR": "unlimited",
            "ESL_LOG": os.environ.get("ESL_LOG", "info"),
            "ESL_LOG_FORMAT": "json",
        }
        if self.broker_url:
            variables |= {
                "ESL_BROKER_URL": self.broker_url,
                "ESL_BROKER_EVENTS": "true",
                "ESL_BROKER_INGEST": "true",
            }
        return variables

    def start(self):
        self.life += 1
        self.process = subprocess.Popen(
            [self.binary, "serve"], env=self.environment(), stdout=subprocess.DEVNULL,
            stderr=open(self.log, "ab"), stdin=subprocess.DEVNULL, cwd=self.folder,
        )

    def listens(self):
        """Whether it does; one that has ended, since its database was away for instance, is started again."""
        if self.process.poll() is not None:
            self.start()
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def run(self, *arguments):
        """A command beside the servers; what it says in JSON, if it does."""
        done = subprocess.run(
            [self.binary, *arguments], env=self.environment(), capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{arguments}: {done.stderr}")
        return json.loads(done.stdout) if "--json" in arguments else None

    def said(self, message):
        """How often its log says so."""
        with open(self.log, "rb") as log:
            return sum(message.encode() in line for line in log)


def now():
    return time.monotonic()
