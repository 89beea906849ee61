"""Receivers of several kinds in one server, which note all that is sent to them."""

import asyncio
import random
from dataclasses import dataclass, field

from services import now

LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass
class Kind:
    """How a receiver behaves, and what its subscription asks for."""

    events: str
    takes_seconds: tuple = (0, 0)
    fails: float = 0
    # Of so many seconds it fails for two, whatever comes, until all is to come to its end.
    fails_every: float = 0
    in_flight_max: int = 32
    options: dict = field(default_factory=dict)


STRICT = {"ordering": "strict"}
KINDS = {
    "healthy": Kind("*"),
    "slow": Kind("*", takes_seconds=(0.2, 0.6)),
    "limited": Kind("person.*", (0.05, 0.15), in_flight_max=2, options={"max_in_flight": 2}),
    "failing": Kind("*", fails=0.1, fails_every=40),
    "strict": Kind("pet.*", (0, 0.03), in_flight_max=1, options=STRICT),
    "strict-failing": Kind("pet.*", (0, 0.03), fails=0.05, in_flight_max=1, options=STRICT),
}


@dataclass(slots=True)
class Arrival:
    """One request."""

    at: float
    lane: str
    delivery: str
    event: str
    attempt: int
    node: str
    ended: float | None = None
    is_accepted: bool = False

    @property
    def seq(self):
        """It stands in the delivery's id, beside the lane."""
        number = 0
        for letter in self.delivery.removeprefix("dlv_"):
            number = number << 5 | LETTERS.index(letter)
        return number >> 40 & (1 << 40) - 1


class Receivers:
    def __init__(self, seed):
        self.random = random.Random(f"receivers {seed}")
        self.arrivals = []
        self.open = {}
        # The most requests at once by lane, as the receiver sees it.
        self.most_open = {}
        self.has_outages = True

    async def start(self):
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    def url(self, lane):
        return f"http://127.0.0.1:{self.port}/{lane}"

    def begin(self, lane, headers):
        name = next(name for name in headers if name.endswith("-delivery"))
        prefix = name.removesuffix("delivery")
        arrival = Arrival(
            at=now(), lane=lane, delivery=headers[name], event=headers["webhook-id"],
            attempt=int(headers[f"{prefix}attempt"]), node=prefix.removeprefix("x-").rstrip("-"),
        )
        self.arrivals.append(arrival)
        self.open[lane] = self.open.get(lane, 0) + 1
        self.most_open[lane] = max(self.most_open.get(lane, 0), self.open[lane])
        return arrival

    def end(self, arrival, is_accepted):
        self.open[arrival.lane] -= 1
        arrival.ended, arrival.is_accepted = now(), is_accepted

    def takes_seconds(self, lane):
        return self.random.uniform(*kind(lane).takes_seconds)

    def accepts(self, lane):
        every = self.has_outages and kind(lane).fails_every
        is_down = every and now() % every < 2
        return not is_down and self.random.random() >= kind(lane).fails


def kind(lane):
    """`org/kind/number` is a lane, and its path."""
    return KINDS[lane.split("/")[1]]


class Connection(asyncio.Protocol):
    """One connection, and the request that it has under way: that ends with it."""

    def __init__(self, receivers):
        self.receivers = receivers
        self.buffer = bytearray()
        self.arrival, self.timer = None, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        self.go_on()

    def go_on(self):
        end = self.buffer.find(b"\r\n\r\n")
        if self.arrival or end < 0:
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in lines[1:])
        end += 4 + int(headers["content-length"])
        if len(self.buffer) < end:
            return
        del self.buffer[:end]
        lane = lines[0].split()[1].removeprefix("/")
        self.arrival = self.receivers.begin(lane, headers)
        wait = self.receivers.takes_seconds(lane)
        self.timer = asyncio.get_running_loop().call_later(wait, self.answer)

    def answer(self):
        accepts = self.receivers.accepts(self.arrival.lane)
        status = b"200 OK" if accepts else b"500 Internal Server Error"
        # Noted first: what is answered is the server's to forget.
        self.receivers.end(self.arrival, accepts)
        self.arrival = None
        self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
        self.go_on()

    def connection_lost(self, error):
        if self.arrival:
            self.timer.cancel()
            self.receivers.end(self.arrival, False)
            self.arrival = None
