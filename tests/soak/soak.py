"""Mixed load with faults: soak.py BINARY SECONDS. `run.sh` says more."""

import datetime
import os
import random
import sys
import tempfile
import threading
import time

from receiver import Receiver
from server import Api, Server

ORGANIZATIONS = 3
ARRAY = 20
# Subscriptions that get everything in the end, and such that do not.
SOUND = ["good", "flaky"]
UNSOUND = ["bad", "hang", "reset"]
RETRIES_MS = [1000, 2000, 4000]

# Bounds, none of which a slow machine meets.
RSS_MIB_MAX = 256
GROWTH = 1.5
WAL_MIB_MAX = 160
FILES_MAX = 700
# The worst retry, a restart, and far more than that for a machine that is busy.
DUE_SECONDS_MAX = 120
DRAIN_SECONDS_MAX = 600


class Soak:
    def __init__(self, binary, seconds):
        self.folder = tempfile.mkdtemp(prefix="esl-soak-")
        self.server = Server(binary, self.folder)
        self.receiver = Receiver()
        self.seconds = seconds
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.failures = []
        self.acknowledged = [set() for _ in range(ORGANIZATIONS)]
        self.erased = set()
        self.counts = dict.fromkeys(["kills", "backups", "erasures", "churned"], 0)
        self.samples = []

    def run(self):
        self.server.start()
        self.apis = [self.organization(number) for number in range(ORGANIZATIONS)]
        self.sound = [self.subscribe(n, way) for n in range(ORGANIZATIONS) for way in SOUND]
        unsound = [self.subscribe(n, way) for n in range(ORGANIZATIONS) for way in UNSOUND]
        work = [(self.sample,), (self.faults,)]
        for number in range(ORGANIZATIONS):
            work += [(self.publish, number, 1), (self.publish, number, ARRAY), (self.churn, number)]
        threads = [threading.Thread(target=self.guard, args=one, daemon=True) for one in work]
        for thread in threads:
            thread.start()
        self.stop.wait(self.seconds)
        self.stop.set()
        for thread in threads:
            thread.join()
        for number, subscription in unsound:
            self.apis[number].ask("DELETE", f"/api/v1/subscriptions/{subscription}")
        self.drain()
        self.judge()
        self.server.kill()
        return self.report()

    def guard(self, work, *arguments):
        try:
            work(*arguments)
        except BaseException as error:
            self.failures.append(f"{work.__name__}: {error!r}")
            self.stop.set()

    def organization(self, number):
        name = f"organization-{number}"
        self.server.run("org", "create", name, "--json")
        self.server.run("org", "set", name, "--tier", "none")
        api = Api(self.server, self.server.run("client", "create", "--org", name, "--json"))
        api.authorize()
        return api

    def subscribe(self, number, way):
        body = {
            "callback_url": self.receiver.url(f"/{way}/{number}"),
            "events": ["person.*"],
            "timeout_ms": 1000 if way in UNSOUND else 15000,
            "retry_schedule": RETRIES_MS * (5 if way in SOUND else 1),
        }
        status, answer = self.apis[number].ask("POST", "/api/v1/subscriptions", body)
        assert status == 201, answer
        return number, answer["id"]

    def publish(self, number, size):
        api = self.apis[number].for_another_thread()
        while not self.stop.is_set():
            ids = [event_id() for _ in range(size)]
            data = "x" * random.choice([10, 500, 5000])
            events = [{"id": one, "type": "person.updated", "data": data} for one in ids]
            # With an id of its own, an event may be published again after a kill.
            status, answer = api.ask("POST", "/api/v1/events", events if size > 1 else events[0])
            assert status == 202, (status, answer)
            with self.lock:
                self.acknowledged[number].update(ids)
            self.stop.wait(0.02 if size == 1 else 0.5)

    def churn(self, number):
        api = self.apis[number].for_another_thread()
        while not self.stop.is_set():
            body = {"callback_url": self.receiver.url("/churn"), "events": ["*"]}
            status, answer = api.ask("POST", "/api/v1/subscriptions", body)
            assert status == 201, answer
            self.stop.wait(random.uniform(0.5, 5))
            status, _ = api.ask("DELETE", f"/api/v1/subscriptions/{answer['id']}")
            assert status in (204, 404), status
            self.counts["churned"] += 1

    def faults(self):
        """One thing after the other, so that a command finds a server that is not being killed."""
        while not self.stop.wait(random.uniform(2, 6)):
            what = random.choice(["kills", "backups", "erasures", "erasures"])
            if what == "kills":
                with self.server.lock:
                    self.server.kill()
                    self.server.start()
            elif what == "backups":
                file = f"{self.folder}/backup.db"
                self.server.run("backup", file)
                os.remove(file)
            else:
                self.erase()
            self.counts[what] += 1

    def erase(self):
        with self.lock:
            known = random.choice(self.acknowledged)
            if not known:
                return
            one = random.choice(tuple(known))
            # What is erased need not arrive.
            self.erased.add(one)
        self.server.run("event", "erase", one)

    def sample(self):
        apis = [api.for_another_thread() for api in self.apis]
        while not self.stop.wait(3):
            sample = self.server.sample()
            sample["due"] = max(due_age(apis[number], one) for number, one in self.sound)
            self.samples.append(sample)

    def drain(self):
        until = time.monotonic() + DRAIN_SECONDS_MAX
        for number, one in self.sound:
            path = f"/api/v1/subscriptions/{one}/deliveries?state=pending&limit=1"
            while self.apis[number].ask("GET", path)[1]["data"]:
                if time.monotonic() > until:
                    self.failures.append(f"{one} does not drain")
                    return
                time.sleep(0.2)

    def judge(self):
        for number in range(ORGANIZATIONS):
            for way in SOUND:
                came = self.receiver.accepted(f"/{way}/{number}")
                missing = self.acknowledged[number] - self.erased - came
                if missing:
                    some = sorted(missing)[:3]
                    self.failures.append(f"{way}/{number}: {len(missing)} missing, as {some}")
        # The first third warms up.
        third = len(self.samples) // 3
        if third < 3:
            self.failures.append("too few samples")
            return
        warm, late = self.samples[third : 2 * third], self.samples[2 * third :]
        for what, bound in [
            ("rss", min(RSS_MIB_MAX, GROWTH * most(warm, "rss") + 32)),
            ("wal", WAL_MIB_MAX),
            ("files", FILES_MAX),
            ("due", DUE_SECONDS_MAX),
        ]:
            if most(late, what) > bound:
                self.failures.append(f"{what}: {most(late, what)} is more than {bound}")

    def report(self):
        total = sum(len(ids) for ids in self.acknowledged)
        print(f"{self.seconds} s: {total} events acknowledged, {self.receiver.requests} requests")
        print(", ".join(f"{count} {what}" for what, count in self.counts.items()))
        print(f"came again (after a kill): {self.receiver.again}")
        units = {"rss": "MiB", "wal": "MiB", "files": "open", "due": "s"}
        for what, unit in units.items():
            values = [sample[what] for sample in self.samples]
            thirds = [values[part * len(values) // 3 : (part + 1) * len(values) // 3] for part in range(3)]
            shown = " / ".join(f"{max(third, default=0):.0f}" for third in thirds)
            print(f"{what:6} at most, by thirds: {shown} {unit}")
        for failure in self.failures:
            print(f"FAILED: {failure}")
        print(f"state and log: {self.folder}" if self.failures else "nothing missing")
        return 1 if self.failures else 0


def most(samples, what):
    return max(sample[what] for sample in samples)


def due_age(api, subscription):
    """For how many seconds the oldest delivery has been due."""
    status, answer = api.ask("GET", f"/api/v1/subscriptions/{subscription}")
    assert status == 200, answer
    oldest = answer["health"]["oldest_due_at"]
    if oldest is None:
        return 0
    due = datetime.datetime.fromisoformat(oldest.replace("Z", "+00:00"))
    return max(0, (datetime.datetime.now(datetime.timezone.utc) - due).total_seconds())


def event_id():
    number = int(time.time() * 1000) << 80 | random.getrandbits(80)
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "evt_" + "".join(letters[number >> 5 * place & 31] for place in reversed(range(26)))


sys.exit(Soak(sys.argv[1], int(sys.argv[2])).run())
