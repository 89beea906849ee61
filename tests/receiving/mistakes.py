"""The mistakes that docs/receiving.md has, made at a real server: each shows itself as is said there.

    mistakes.py ESL_SERVER
"""

import contextlib
import hmac
import http.server
import json
import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "examples" / "receivers" / "python")]
from real_server import PATIENCE_SECONDS, server
from verify import key, refusal

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OF_ANOTHER = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
HARMLESS = '{"id":"person_1","name":"John"}'
TELLING = [r'{"n":1e3}', r'{"path":"a\/b"}', r'{"o":"\u00f6"}', '{ "spaced": 1 }']
BEYOND_ASCII = '{"name":"Jörg"}'


def verified(headers, body, keys=(key(WHSEC),), clock_off_by=0):
    """What the handler answers who verifies these, in place of what came."""
    why = refusal(headers, body, keys, time.time() + clock_off_by)
    return (401, why) if why else (200, "OK")


def by_capitals(headers, body):
    return (200, "OK") if "Webhook-Signature" in dict(headers) else (401, "no such header")


def by_sapien(headers, body, secret):
    tag = hmac.new(secret, body, "sha256").hexdigest()
    matches = hmac.compare_digest(tag, headers["x-sapien-signature"])
    return (200, "OK") if matches else (401, "no match")


def first_entry_alone(headers, body):
    first = headers["webhook-signature"].split(" ")[0]
    names = ("webhook-id", "webhook-timestamp")
    return verified({**{it: headers[it] for it in names}, "webhook-signature": first}, body)


def written_again(body):
    return json.dumps(json.loads(body)).encode()


def written_again_closely(body):
    return json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode()


def through_latin_1(body):
    return body.decode("latin-1").encode()


MISTAKES = {
    "none": verified,
    "parsed": lambda headers, body: verified(headers, written_again(body)),
    "parsed-closely": lambda headers, body: verified(headers, written_again_closely(body)),
    "encoding": lambda headers, body: verified(headers, through_latin_1(body)),
    "byte-order-mark": lambda headers, body: verified(headers, b"\xef\xbb\xbf" + body),
    "proxy": lambda headers, body: verified(headers, body + b"\n"),
    "clock-fast": lambda headers, body: verified(headers, body, clock_off_by=400),
    "clock-slow": lambda headers, body: verified(headers, body, clock_off_by=-400),
    "whsec-as-text": lambda headers, body: verified(headers, body, [WHSEC.encode()]),
    "whsec-as-bytes": lambda headers, body: by_sapien(headers, body, key(WHSEC)),
    "whsec-as-written": lambda headers, body: by_sapien(headers, body, WHSEC.encode()),
    "of-another": lambda headers, body: verified(headers, body, [key(OF_ANOTHER)]),
    "capitals": by_capitals,
    "first-entry-alone": first_entry_alone,
    "redirect-301": lambda headers, body: (301, "moved"),
    "redirect-302": lambda headers, body: (302, "moved"),
    "redirect-307": lambda headers, body: (307, "moved"),
    "redirect-308": lambda headers, body: (308, "moved"),
    "form-token": lambda headers, body: (419, "page expired"),
    "gone": lambda headers, body: (410, "gone"),
    "not-stored": lambda headers, body: (200, "OK"),
}


class Receiver(http.server.BaseHTTPRequestHandler):
    asked, lock, over = [], threading.Lock(), threading.Event()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        mistake = self.path.strip("/")
        with self.lock:
            self.asked.append((mistake, self.headers["webhook-id"]))
            is_first = self.asked.count(self.asked[-1]) == 1
        if mistake == "late":
            if is_first:
                self.over.wait()  # has the event already, but has not answered
            status, text = 200, "OK"
        elif mistake == "broken-off":
            if is_first:
                return self.connection.close()
            status, text = 200, "OK"
        else:
            status, text = MISTAKES[mistake](self.headers, body)
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        if mistake.startswith("redirect"):
            self.send_header("location", "/none")
        with contextlib.suppress(ConnectionError):  # too late for whoever asked
            self.end_headers()
            self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def main(binary):
    http.server.ThreadingHTTPServer.request_queue_size = 1024  # all of them come at once
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    listener.daemon_threads = True
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        with server(binary) as api:
            show(api, f"http://127.0.0.1:{listener.server_address[1]}")
    finally:
        Receiver.over.set()
        listener.shutdown()


def show(api, base: str):
    def subscribe(mistake, **options):
        return api.subscribe(f"{base}/{mistake}", WHSEC, **options)

    subscriptions = {mistake: subscribe(mistake, retry_schedule=[]) for mistake in MISTAKES}
    late = subscribe("late", retry_schedule=[10], timeout_ms=1000)
    broken_off = subscribe("broken-off", retry_schedule=[10])
    harmless, beyond_ascii = api.publish(HARMLESS), api.publish(BEYOND_ASCII)
    telling = [api.publish(data) for data in TELLING]

    def is_accepted(mistake, event):
        delivery = api.delivery(subscriptions[mistake], event, "delivered")
        assert delivery["attempts"] == 1, delivery

    def is_refused(mistake, event, status=401, detail=None):
        delivery = api.delivery(subscriptions[mistake], event, "exhausted")
        assert (delivery["last_status"], delivery["last_error"]) == (status, "status"), delivery
        said = delivery["attempts_log"][0]["detail"]
        assert detail is None or said == detail, delivery

    no_match = "no signature in webhook-signature matches"
    for event in [harmless, beyond_ascii, *telling]:
        for mistake in ("none", "whsec-as-written", "not-stored"):
            is_accepted(mistake, event)
        for mistake in ("parsed", "byte-order-mark", "proxy", "whsec-as-text", "of-another"):
            is_refused(mistake, event, detail=no_match)
        for mistake in ("clock-fast", "clock-slow"):
            is_refused(mistake, event, detail="signed more than 5 minutes from now")
        is_refused("whsec-as-bytes", event)
        is_refused("capitals", event, detail="no such header")
        for status in (301, 302, 307, 308):
            is_refused(f"redirect-{status}", event, status=status)
        is_refused("form-token", event, status=419, detail="page expired")

    # Some events pass, which makes these hard to find.
    for event in (harmless, beyond_ascii):
        is_accepted("parsed-closely", event)
    for event in telling:
        is_refused("parsed-closely", event, detail=no_match)
    for event in (harmless, *telling):
        is_accepted("encoding", event)
    is_refused("encoding", beyond_ascii, detail=no_match)

    for event in [harmless, beyond_ascii, *telling]:
        assert Receiver.asked.count(("none", event)) == 1, "a redirect was followed"

    gone = api.delivery(subscriptions["gone"], harmless, "held")
    assert (gone["last_status"], gone["last_error"]) == (410, "status"), gone
    switched_off = api.get(f"/api/v1/subscriptions/{subscriptions['gone']}")
    assert (switched_off["active"], switched_off["disabled_reason"]) == (False, "gone")

    # The new secret's signature is the first one, and the receiver does not have that secret yet.
    is_accepted("first-entry-alone", harmless)
    for mistake in ("none", "first-entry-alone"):
        api.post(f"/api/v1/subscriptions/{subscriptions[mistake]}/rotate-secret", "{}")
    rotated = api.publish(HARMLESS)
    is_refused("first-entry-alone", rotated, detail=no_match)
    is_accepted("none", rotated)
    api.post(f"/api/v1/subscriptions/{subscriptions['none']}/rotate-secret", '{"finish":true}')
    is_refused("none", api.publish(HARMLESS), detail=no_match)

    # What was acknowledged and lost comes again when somebody asks for it.
    not_stored = subscriptions["not-stored"]
    api.post(f"/api/v1/subscriptions/{not_stored}/replay", '{"state":"delivered"}')
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(Receiver.asked.count(("not-stored", event)) < 2 for event in [harmless, *telling]):
        assert time.monotonic() < deadline, "the replay does not come"
        time.sleep(0.02)

    for subscription, error in ((late, "timeout"), (broken_off, "reset")):
        delivery = api.delivery(subscription, harmless, "delivered")
        assert delivery["attempts"] == 2, delivery
        first = delivery["attempts_log"][0]
        assert (first["status"], first["error"]) == (None, error), delivery
    assert Receiver.asked.count(("late", harmless)) == 2, "answered late, and so it came again"
    print(f"mistakes: {len(MISTAKES) + 2} show themselves as docs/receiving.md says")


main(pathlib.Path(sys.argv[1]).resolve())
