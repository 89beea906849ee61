"""The handlers as servers, subscribed at a real one; run.sh says how to run it.

    live.py ESL_SERVER PROGRAMS      the folder with the handler for Go, built, and with the one for PHP
                                     that goes by X-Sapien-Signature

Each gets real deliveries and must accept them whole, also across a rotation of the secret. Then it gets
one of them again, by hand: as it was, which is to change nothing, and changed, which is to be refused.
"""

import base64
import concurrent.futures
import contextlib
import hmac
import http.client
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from real_server import PATIENCE_SECONDS, server
from recorder import recorder

EXAMPLES = HERE.parent.parent / "examples" / "receivers"
OLD, NEW = "your-webhook-secret-for-signature-verification", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD = ["webhook-id", "webhook-timestamp", "webhook-signature"]

# Data whose bytes change when it is parsed and written again on the way.
DATA = [
    '{"id":"person_01H8XYZ","name":"John Doe","pets":[{"id":"pet_01H8ABC","type":"dog"}]}',
    r'{"z":1.0,"a":1e3,"big":12345678901234567890123,"path":"a\/b","escaped":"\u00f6\ud83e\udd80"}',
    '{ "spaced" : [ 1,  2 ] ,\t"name" : "Jörg 🦀", "empty": {} }',
    '{"long":"' + "0123456789" * 10_000 + '"}',
]


def handlers(programs: pathlib.Path) -> dict:
    """What starts each of them on a port."""
    php = ["php", "-d", "display_errors=1"]
    return {
        "php": lambda port: [*php, "-S", f"127.0.0.1:{port}", EXAMPLES / "php" / "index.php"],
        "php, X-Sapien-Signature": lambda port: [
            *php, "-S", f"127.0.0.1:{port}", programs / "php-sapien" / "index.php"],
        "python": lambda _: [sys.executable, EXAMPLES / "python" / "server.py"],
        "node": lambda _: ["node", EXAMPLES / "node" / "server.js"],
        "go": lambda _: [programs / "receiver-go"],
        "ruby": lambda _: ["ruby", EXAMPLES / "ruby" / "server.rb"],
    }


class Handler:
    """One of them, running. What it accepts, it says in a line."""

    def __init__(self, name: str, command, secrets: str, folder: str):
        self.name = name
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        environment = {
            **os.environ,
            "WEBHOOK_SECRETS": secrets,
            "WEBHOOK_SEEN": f"{folder}/seen-{name.replace(' ', '-')}",
            "PORT": str(self.port),
            "PHP_CLI_SERVER_WORKERS": "4",
        }
        self.output = open(f"{folder}/{name}", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            command(self.port),
            env=environment,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # PHP's workers outlive what has started them
        )
        self.url = f"http://127.0.0.1:{self.port}/webhooks/sapien"

    def await_listening(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            time.sleep(0.02)
        raise AssertionError(f"{self.name} does not listen:\n{self.said()}")

    def said(self) -> str:
        self.output.flush()
        return pathlib.Path(self.output.name).read_text("utf-8")

    def ask(self, headers: dict, body: bytes) -> int | None:
        """Sends a request by hand; gives the status of the answer, if there is one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("POST", "/webhooks/sapien", body, headers)
            return connection.getresponse().status
        except ConnectionError:
            return None
        finally:
            connection.close()

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(PATIENCE_SECONDS)
        self.output.close()


def changed(headers: dict, body: bytes):
    """A genuine request, changed: what is changed, its headers and its body."""
    yield "a changed body", headers, body.replace(b"John", b"Joan")
    yield "a newline more", headers, body + b"\n"
    yield "no body", headers, b""
    yield "another id", {**headers, "webhook-id": "evt_2"}, body
    for seconds in (-302, 400):
        moved = signed_at(int(time.time()) + seconds, headers, body)
        yield f"signed {seconds} s from now", moved, body
    wrong = base64.b64encode(bytes(32)).decode()
    yield "another signature", {**headers, "webhook-signature": f"v1,{wrong}"}, body
    for name in STANDARD:
        yield f"without {name}", without(headers, name), body


def signed_at(seconds: int, headers: dict, body: bytes) -> dict:
    """The headers of the request, had it been made at another time. This is what a sender with a wrong
    clock sends; of what was recorded, the old time and signature are as good as these."""
    message = f"{headers['webhook-id']}.{seconds}.".encode() + body
    tag = base64.b64encode(hmac.digest(OLD.encode(), message, "sha256")).decode()
    return {**headers, "webhook-timestamp": str(seconds), "webhook-signature": f"v1,{tag}"}


def without(headers: dict, *names: str) -> dict:
    return {name: value for name, value in headers.items() if name not in names}


def check(handler: Handler, api, recorded: list):
    subscription = api.subscribe(handler.url, OLD)
    events = [api.publish(data) for data in DATA]
    rotate = f"/api/v1/subscriptions/{subscription}/rotate-secret"
    api.post(rotate, f'{{"secret":"{NEW}"}}')
    events.append(api.publish('{"during":"the grace"}'))
    api.delivery(subscription, events[-1], "delivered")
    api.post(rotate, '{"finish":true}')
    events.append(api.publish('{"after":"the rotation"}'))
    for event in events:
        delivery = api.delivery(subscription, event, "delivered")
        failures = {attempt["error"] for attempt in delivery["attempts_log"]}
        # A connection that was closed for being idle is nobody's refusal.
        assert failures - {None} <= {"stale_connection"}, delivery

    stranger = api.subscribe(handler.url, "another-secret", retry_schedule=[])
    refused = api.delivery(stranger, api.publish('{"from":"a stranger"}'), "exhausted")
    assert (refused["last_status"], refused["last_error"]) == (401, "status"), refused

    by_sapien = "X-Sapien" in handler.name
    refusals = 1
    for headers, body in recorded:
        for _ in range(2):
            assert handler.ask(headers, body) == 200, f"{handler.name}: refused what is genuine"
        assert handler.ask(signed_at(int(time.time()), headers, body), body) == 200
        events.append(headers["webhook-id"])
        for what, other_headers, other_body in changed(headers, body):
            if (other_headers, other_body) == (headers, body):
                continue  # not every body has a John
            status = handler.ask(other_headers, other_body)
            assert status == 401, f"{handler.name}: answers {what} with {status}"
            refusals += 1
        stripped = handler.ask(without(headers, *STANDARD), body)
        assert stripped == (200 if by_sapien else 401), f"{handler.name}: stripped, {stripped}"

    # What fails after it was verified is not acknowledged.
    broken = b'{"id":"evt_broken","type":'
    headers = signed_at(int(time.time()), {**headers, "webhook-id": "evt_broken"}, broken)
    headers["x-sapien-signature"] = hmac.digest(OLD.encode(), broken, "sha256").hex()
    for _ in range(2):
        status = handler.ask(headers, broken)
        assert status in (400, 500, None), f"{handler.name}: answers what is broken with {status}"

    # What is hostile is refused, and stops nothing.
    hostile = {**headers, "webhook-signature": "v1,\xe9 v1,\xff=".encode("latin-1")}
    assert handler.ask(hostile, broken) == 401, handler.name
    too_large = 401 if handler.name.startswith("php") else 413  # PHP: the server in front has the limit
    status = handler.ask(headers, b"x" * 1024 * 1024 + b"x")
    assert status in (too_large, None), f"{handler.name}: answers what is too large with {status}"

    events.append("evt_of_eight")
    headers, body = recorded[0]
    body = body.replace(headers["webhook-id"].encode(), b"evt_of_eight")
    headers = signed_at(int(time.time()), {**headers, "webhook-id": "evt_of_eight"}, body)
    headers["x-sapien-signature"] = hmac.digest(OLD.encode(), body, "sha256").hex()
    with concurrent.futures.ThreadPoolExecutor(8) as eight:
        statuses = list(eight.map(lambda _: handler.ask(headers, body), range(8)))
    assert statuses == [200] * 8, f"{handler.name}: answers eight at once with {statuses}"

    # Each was accepted once, however often it came.
    for event in events:
        count = handler.said().count(f"accepted person.updated {event}\n")
        assert count == 1, f"{handler.name}: accepted {event} {count} times:\n{handler.said()}"
    print(f"{handler.name}: {len(events)} events accepted once, {refusals} requests refused")


def main(binary: pathlib.Path, programs: pathlib.Path):
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        running, secretless = [], []
        for name, command in handlers(programs).items():
            running.append(Handler(name, command, f"{OLD} {NEW}", folder))
            stack.callback(running[-1].stop)
            secretless.append(Handler(f"{name}, without a secret", command, "", folder))
            stack.callback(secretless[-1].stop)
        api = stack.enter_context(server(binary))
        url, requests = recorder()
        api.subscribe(url, OLD)
        for data in DATA:
            api.publish(data)
        recorded = [requests.get(timeout=PATIENCE_SECONDS) for _ in DATA]
        for handler in running:
            handler.await_listening()
            check(handler, api, recorded)
        for handler in secretless:
            handler.await_listening()
            headers, body = recorded[0]
            for key in ("", " "):
                empty = hmac.new(key.encode(), body, "sha256").hexdigest()
                forged = {**without(headers, *STANDARD), "x-sapien-signature": empty}
                assert handler.ask(forged, body) == 401, f"{handler.name}: accepts a forgery"
            assert handler.ask(headers, body) == 401, handler.name
        print("without a secret, each refuses everything")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve())
