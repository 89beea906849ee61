"""Three nodes with everything going wrong: nodes.py fire|stops BINARY SECONDS SEED. `run.sh` says more."""

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

tests = Path(__file__).parent.parent
sys.path[:0] = [str(tests), str(tests / "amqp")]

from processes import Broker

import faults
import judge
from clients import Consumer, Ingest, Organization
from receivers import KINDS, Receivers, kind
from services import Node, Postgres, now

ORGANIZATIONS = 2
# For each of them. Where most nodes stand still most of the time, most publishers wait.
PUBLISHERS = {"fire": 2, "stops": 8}
# So many lanes of a kind for each organization; of the others there is one.
LANES = {"healthy": 2, "limited": 2, "strict": 2}
DRAIN_SECONDS_MAX = 180
FAILURES_SHOWN = 20


class Run:
    def __init__(self, way, binary, seconds, seed):
        self.way, self.binary, self.seconds, self.seed = way, binary, seconds, seed
        self.random = random.Random(f"{way} {seed}")
        self.folder = Path(tempfile.mkdtemp(prefix="esl-nodes-"))
        self.postgres = Postgres()
        self.broker = Broker(self.folder / "broker") if way == "fire" else None
        self.receivers = Receivers(seed)
        self.faults = []
        self.failures = []
        self.peers = []

    async def run(self):
        await self.set_up()
        quiet = await faults.come_and_go(self) if self.way == "fire" else None
        began = now()
        await (faults.fire(self) if self.way == "fire" else faults.stops(self))
        print(f"{now() - began:.0f} s of faults are over", flush=True)
        self.stopped.set()
        self.receivers.has_outages = False
        await asyncio.gather(*self.publishers)
        for peer in self.peers[:1]:
            await asyncio.to_thread(peer.stop)
        await self.drain()
        for peer in self.peers:
            await asyncio.to_thread(peer.stop)
        await judge.judge(self, quiet)

    async def set_up(self):
        self.postgres.start()
        broker_url = None
        if self.broker:
            self.broker.start()
            broker_url = self.broker.url
        roles = self.random.choice([["all", "all", "all"], ["api", "worker", "all"]])
        if self.way == "stops":
            roles = ["all"] * 3
        print(f"seed {self.seed}: {', '.join(roles)}", flush=True)
        self.nodes = [
            Node(self.binary, self.folder, f"n{number}", role, self.postgres, broker_url)
            for number, role in enumerate(roles, 1)
        ]
        ports = [node.port for node in self.nodes if node.role != "worker"]
        await self.receivers.start()
        # The third comes later.
        for node in self.nodes[:2]:
            node.start()
            await self.until_listens(node)
        self.organizations = [await self.organization(n, ports) for n in range(ORGANIZATIONS)]
        if self.broker:
            self.peers = [Ingest(broker_url, self.organizations, self.seed), Consumer(broker_url)]
            self.peers[1].start()
            await self.until(lambda: self.peers[1].is_bound, "somebody consumes")
            self.peers[0].start()
        if self.way == "stops":
            statements = (Path(__file__).parent / "settlements.sql").read_text()
            self.postgres.ask(statements)
            self.nodes[2].start()
            await self.until_listens(self.nodes[2])
        self.stopped = asyncio.Event()
        self.publishers = [
            asyncio.create_task(organization.publish(self.stopped))
            for organization in self.organizations for _ in range(PUBLISHERS[self.way])
        ]

    async def organization(self, number, ports):
        name = f"organization-{number}"
        node = self.nodes[0]
        await asyncio.to_thread(node.run, "org", "create", name, "--json")
        await asyncio.to_thread(node.run, "org", "set", name, "--tier", "none")
        client = await asyncio.to_thread(node.run, "client", "create", "--org", name, "--json")
        organization = Organization(name, client, ports, self.seed)
        await organization.authorize()
        for way in KINDS:
            for copy in range(LANES.get(way, 1)):
                lane = f"{number}/{way}/{copy}"
                url = self.receivers.url(lane)
                await organization.subscribe(lane, url, kind(lane))
        return organization

    def lanes(self):
        return [
            f"{number}/{way}/{copy}"
            for number in range(ORGANIZATIONS) for way in KINDS for copy in range(LANES.get(way, 1))
        ]

    async def until_listens(self, node):
        await self.until(node.listens, f"{node.name} listens")

    async def until(self, is_so, what, seconds=60):
        ends = now() + seconds
        while not is_so():
            if now() > ends:
                raise SystemExit(f"waited in vain until {what}; state and logs: {self.folder}")
            await asyncio.sleep(0.02)

    async def drain(self):
        """Waits until nothing is owed to anybody, nor on its way in or out."""
        began = now()
        owed = (
            "SELECT (SELECT count(*) FROM esl.open) + (SELECT count(*) FROM esl.intake)"
            " + (SELECT count(*) FROM esl.fan_outs)"
        )
        while True:
            [[count]] = await asyncio.to_thread(self.postgres.ask, owed)
            if count == "0" and not self.unheard():
                break
            if now() - began > DRAIN_SECONDS_MAX:
                self.failures.append(f"{count} deliveries are owed still, {self.unheard()} events not out")
                break
            await asyncio.sleep(0.5)
        # What was sent last may come once more.
        await asyncio.sleep(2)
        print(f"drained after {now() - began:.0f} s", flush=True)

    def unheard(self):
        """How many messages were confirmed and not seen as events, and events acknowledged and not consumed."""
        if not self.broker:
            return 0
        consumer = self.peers[1]
        count = 0
        for organization in self.organizations:
            came = {event for _, event in consumer.came.get(organization.id, [])}
            count += len(organization.seqs.keys() - came)
        left = sum(len(confirmed) for confirmed in self.peers[0].confirmed.values())
        came = sum(len(set(came)) for came in consumer.came.values())
        known = sum(len(organization.seqs) for organization in self.organizations)
        return max(count, known + left - came)

    def end(self):
        for node in getattr(self, "nodes", []):
            if node.process and node.process.poll() is None:
                node.kill()
        if self.broker:
            if self.broker.process and self.broker.process.poll() is None:
                os.killpg(self.broker.process.pid, signal.SIGCONT)
            self.broker.end()
        self.postgres.end()
        for failure in self.failures[:FAILURES_SHOWN]:
            print(f"FAILED: {failure}")
        if self.failures:
            print(f"{len(self.failures)} failures; logs: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def main(way, binary, seconds, seed):
    # So that what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(way, binary, int(seconds), int(seed))
    try:
        asyncio.run(run.run())
    except BaseException:
        run.failures.append("it did not come to its end")
        raise
    finally:
        run.end()
    return 1 if run.failures else 0


sys.exit(main(*sys.argv[1:]))
