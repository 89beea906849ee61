"""Who publishes to the nodes and through the broker, and who consumes from it."""

import asyncio
import json
import random
import threading
import time

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

from services import now

# One that stands still is not waited for longer than this.
TIMEOUT_SECONDS = 6


async def ask(port, method, path, body=None, headers=()):
    """What a node answers; `None` if it does not."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    lines = [
        f"{method} {path} HTTP/1.1", "host: localhost", "connection: close",
        f"content-length: {len(body)}", *headers,
    ]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read()
    except (OSError, TimeoutError):
        return None
    finally:
        if writer:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return None
    try:
        return int(head.split()[1]), json.loads(body) if body else None
    except ValueError:
        return None


class Organization:
    """Its client, what it has published, and what of that was acknowledged."""

    def __init__(self, name, client, ports, seed):
        self.name, self.client, self.ports = name, client, ports
        self.random = random.Random(f"{name} {seed}")
        self.token = None
        # By what was published, the events' ids; and by id the seqs.
        self.acknowledged, self.seqs = {}, {}
        self.tries, self.number = 0, 0

    async def authorize(self):
        form = (
            "grant_type=client_credentials"
            f"&client_id={self.client['client_id']}&client_secret={self.client['client_secret']}"
        )
        kind = "content-type: application/x-www-form-urlencoded"
        status, answer = await ask(self.ports[0], "POST", "/oauth/token", form.encode(), [kind])
        assert status == 200, answer
        self.token = answer["access_token"]
        self.id = (await self.call("GET", "/api/v1/organization"))["id"]

    def headers(self, *others):
        return [f"authorization: Bearer {self.token}", "content-type: application/json", *others]

    async def call(self, method, path, body=None):
        answered = await ask(self.ports[0], method, path, body, self.headers())
        assert answered, f"{path}: nothing answers at port {self.ports[0]}"
        status, answer = answered
        assert status < 300, (path, status, answer)
        return answer

    async def subscribe(self, lane, url, kind):
        body = {
            "callback_url": url,
            "events": [kind.events],
            "retry_schedule": [1000] * 40,
            **kind.options,
        }
        return (await self.call("POST", "/api/v1/subscriptions", body))["id"]

    async def publish(self, stop):
        """Publishes until it is stopped, each to any node, and again until it is acknowledged."""
        while not stop.is_set():
            count = self.random.choice([1, 1, 1, 5])
            events = [self.event() for _ in range(count)]
            body = json.dumps(events if count > 1 else events[0]).encode()
            # One publisher's last events are tried until they are acknowledged, too: nothing is unknown.
            key = f"idempotency-key: {events[0]['data']['of']}"
            answer = await self.publish_until_acknowledged(body, key)
            answers = answer["data"] if count > 1 else [answer]
            for event, one in zip(events, answers, strict=True):
                self.acknowledged[event["data"]["of"]] = one["id"]
                self.seqs[one["id"]] = one["seq"]
            await asyncio.sleep(self.random.uniform(0.2, 0.6))

    async def publish_until_acknowledged(self, body, key):
        while True:
            self.tries += 1
            port = self.random.choice(self.ports)
            answer = await ask(port, "POST", "/api/v1/events", body, self.headers(key))
            if answer and answer[0] == 202:
                return answer[1]
            assert answer is None or answer[0] in (408, 503), answer
            await asyncio.sleep(0.1)

    def event(self):
        self.number += 1
        kind = self.random.choice(["person.updated", "pet.updated"])
        return {"type": kind, "data": {"of": f"{self.name}-{self.number}"}}


class Peer(threading.Thread):
    """A client of the broker, which connects again for as long as it takes."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url = url
        self.stopped = threading.Event()
        self.failures = []

    def run(self):
        while not self.stopped.is_set():
            try:
                parameters = pika.URLParameters(self.url + "?heartbeat=6&blocked_connection_timeout=10")
                parameters.socket_timeout = parameters.stack_timeout = 5
                self.connection = pika.BlockingConnection(parameters)
                self.work(self.connection.channel())
                self.connection.close()
            except (AMQPError, AMQPConnectorException, OSError):
                time.sleep(0.3)
            except Exception as error:  # A thread's end would otherwise go unnoticed.
                self.failures.append(f"{type(self).__name__}: {error!r}")
                return

    def stop(self):
        self.stopped.set()
        self.join(30)


class Consumer(Peer):
    """Takes every event from `esl.events`."""

    def __init__(self, url):
        super().__init__(url)
        # By organization, the seqs and the ids as they came.
        self.came = {}

    def work(self, channel):
        channel.exchange_declare("esl.events", "topic", durable=True)
        channel.queue_declare("all", durable=True)
        channel.queue_bind("all", "esl.events", "#")
        self.is_bound = True
        for method, properties, _ in channel.consume("all", inactivity_timeout=0.5):
            if self.stopped.is_set():
                return
            if method is None:
                continue
            organization = properties.headers["esl-organization"]
            came = self.came.setdefault(organization, [])
            came.append((properties.headers["esl-seq"], properties.message_id))
            channel.basic_ack(method.delivery_tag)

    is_bound = False


class Ingest(Peer):
    """Publishes through `esl.ingest`, and again until the broker has confirmed it."""

    def __init__(self, url, organizations, seed):
        super().__init__(url)
        self.random = random.Random(f"ingest {seed}")
        self.organizations = organizations
        # What was confirmed, by organization.
        self.confirmed = {organization.id: [] for organization in organizations}
        self.message, self.number, self.tries = None, 0, 0

    def work(self, channel):
        channel.confirm_delivery()
        while not self.stopped.is_set() or self.message:
            self.message = self.message or self.next()
            organization, of = self.message
            self.tries += 1
            channel.basic_publish(
                "", "esl.ingest", json.dumps({"of": of}),
                pika.BasicProperties(
                    message_id=of, type="person.updated", delivery_mode=2,
                    headers={"esl-organization": organization},
                ),
                mandatory=True,
            )
            self.confirmed[organization].append(of)
            self.message = None
            self.connection.sleep(self.random.uniform(0.1, 0.5))

    def next(self):
        self.number += 1
        return self.random.choice(self.organizations).id, f"ingest-{self.number}"
