"""Consumes from ESL, and publishes into it, with pika.

    check.py ESL_SERVER
"""

import json
import sys
import tempfile
from pathlib import Path

import pika

from processes import Broker, Server, until


def main(binary):
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder) / "broker")
        server = None
        try:
            server = Server(binary, Path(folder) / "server", broker)
            starts_without_the_broker(server)
            # The first event is from when there was none.
            early = server.call("/api/v1/events", {"type": "person.created", "data": {"n": 0}})
            broker.start()
            until(lambda: health(server)["broker"] == "connected", "the server is connected")
            connection = pika.BlockingConnection(pika.URLParameters(broker.url))
            channel = connection.channel()
            organization = consumes_by_pattern(server, channel)
            publishes(server, channel, organization)
            connection.close()
            outlives_the_broker(server, broker, organization, early)
            server.end()
            server = None
        finally:
            if server:
                server.process.kill()
            broker.end()


def health(server):
    answer = server.call("/health")
    assert answer["status"] == "healthy", answer
    return answer


def starts_without_the_broker(server):
    assert health(server)["broker"] == "away"
    said = lambda: any("no connection to the broker" in event["message"] for event in server.log)
    until(said, "the log says that the broker is away")
    print("ok: a server starts without its broker, and says so")


def take(channel, queue, count):
    """So many messages of a queue."""
    messages = []
    for method, properties, body in channel.consume(queue, inactivity_timeout=60):
        assert method, f"{len(messages)} of {count} messages came"
        channel.basic_ack(method.delivery_tag)
        messages.append((method, properties, body))
        if len(messages) == count:
            channel.cancel()
            return messages


def consumes_by_pattern(server, channel):
    persons = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(persons, "esl.events", "person.*")
    published = []
    for number in range(1, 21):
        kind = "person.updated" if number % 2 else "pet.updated"
        answer = server.call("/api/v1/events", {"type": kind, "data": {"n": number}})
        if number % 2:
            published.append(answer)
    messages = take(channel, persons, 10)
    for answer, (method, properties, body) in zip(published, messages):
        assert method.routing_key == properties.type == "person.updated"
        assert properties.message_id == properties.headers["esl-id"] == answer["id"]
        assert properties.headers["esl-seq"] == answer["seq"]
        assert properties.content_type == "application/json" and properties.delivery_mode == 2
        envelope = json.loads(body)
        assert envelope["id"] == answer["id"] and envelope["type"] == "person.updated"
        assert envelope["organization_id"] == properties.headers["esl-organization"]
    assert [json.loads(body)["data"]["n"] for _, _, body in messages] == list(range(1, 21, 2))
    print("ok: events are consumed by pattern, in their order")
    return messages[0][1].headers["esl-organization"]


def properties(organization, message_id, kind="order.placed"):
    headers = {"esl-organization": organization}
    return pika.BasicProperties(
        message_id=message_id, type=kind, headers=headers, delivery_mode=2, correlation_id="c-1"
    )


def published(server, kind):
    """The data of the events of a type, in their order."""
    page = server.call(f"/api/v1/events?type={kind}&limit=100")
    return [event["envelope"]["data"]["n"] for event in reversed(page["data"])]


def publishes(server, channel, organization):
    channel.confirm_delivery()
    for number in range(10):
        message = properties(organization, f"order-{number}")
        channel.basic_publish("", "esl.ingest", json.dumps({"n": number}), message)
    # The same message once more.
    channel.basic_publish("", "esl.ingest", '{"n": 3}', properties(organization, "order-3"))
    # By the exchange, with the type as routing key.
    message = properties(organization, "by-key", kind=None)
    channel.basic_publish("esl.ingest", "order.shipped", '{"n": 1}', message)
    until(lambda: published(server, "order.shipped") == [1], "the last event is published")
    assert published(server, "order.placed") == list(range(10))

    for body, message, reason in [
        ("{", properties(organization, "order-10"), "the body is not JSON"),
        ("{}", pika.BasicProperties(message_id="1"), "the header esl-organization is missing"),
        ('{"n": 4}', properties(organization, "order-3"), "exists with other content"),
    ]:
        channel.basic_publish("", "esl.ingest", body, message)
        [(_, dead, kept)] = take(channel, "esl.ingest.dead", 1)
        assert reason in dead.headers["esl-reason"], dead.headers
        assert kept.decode() == body
    left = channel.queue_declare("esl.ingest", passive=True).method.message_count
    assert left == 0, f"{left} messages are left"
    print("ok: events are published through the broker, once each, and what is wrong is put aside")


def outlives_the_broker(server, broker, organization, early):
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    channel.queue_declare("kept", durable=True)
    channel.queue_bind("kept", "esl.events", "#")
    connection.close()
    broker.kill()
    until(lambda: health(server)["broker"] == "away", "the server sees that the broker is gone")
    answers = [
        server.call("/api/v1/events", {"type": "pet.created", "data": {"n": number}})
        for number in range(50)
    ]
    broker.start()
    until(lambda: health(server)["broker"] == "connected", "the server is connected again")
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    seqs = []
    while answers[-1]["seq"] not in seqs:
        [(_, got, _)] = take(channel, "kept", 1)
        seqs.append(got.headers["esl-seq"])
    first = [seq for index, seq in enumerate(seqs) if seq not in seqs[:index]]
    expected = list(range(answers[0]["seq"], answers[-1]["seq"] + 1))
    assert first[-len(expected):] == expected, seqs
    assert early["seq"] not in seqs
    message = properties(organization, "order-after")
    channel.basic_publish("", "esl.ingest", '{"n": 100}', message)
    until(lambda: published(server, "order.placed")[-1] == 100, "events come in again")
    connection.close()
    print("ok: what was published while the broker was away has gone out")


main(sys.argv[1])
