"""What goes wrong, and when."""

import asyncio
import os
import signal
from dataclasses import dataclass

from services import now

# Below the epoch of 30 s, and above it.
PAUSE_SECONDS = 20
STOP_SECONDS = (31, 40)
# After each fault of a service that nodes have to follow.
REST_SECONDS = 4


@dataclass
class Fault:
    kind: str
    # A life of a node, or a service.
    who: str
    began: float
    ended: float | None = None


@dataclass
class Quiet:
    """The time without faults: when it ended, and when nodes came and went."""

    ended: float
    changes: list


def began(run, kind, who):
    fault = Fault(kind, who, now())
    run.faults.append(fault)
    return fault


async def come_and_go(run):
    """A node joins, one leaves in order and joins again, and nothing else happens."""
    _, second, third = run.nodes
    await asyncio.sleep(2)
    changes = [("nothing happens", now())]
    await asyncio.sleep(5)
    for what, node in [("joins", third), ("leaves", second), ("joins", second)]:
        if what == "joins":
            node.start()
            await run.until_listens(node)
        changes.append((f"{node.name} ({node.role}) {what}", now()))
        if what == "leaves":
            node.process.terminate()
            code = await asyncio.to_thread(node.process.wait, 60)
            assert code == 0, f"{node.name} has ended with {code}"
        await asyncio.sleep(9)
    return Quiet(now(), changes)


async def fire(run):
    """Nodes are killed every few seconds; beside that each other thing happens once."""
    things = [restart_postgres, pause_postgres, restart_broker, pause_broker_and_node]
    run.random.shuffle(things)
    ends = now() + run.seconds
    killing = asyncio.create_task(kill_nodes(run, ends))
    slack = max(0, run.seconds - 2 * PAUSE_SECONDS - len(things) * REST_SECONDS - 10) / len(things)
    for thing in things:
        await asyncio.sleep(run.random.uniform(0, slack))
        print(f"{thing.__name__} at {now() - ends + run.seconds:.0f} s", flush=True)
        await thing(run)
        await asyncio.sleep(REST_SECONDS)
    await killing
    for node in run.nodes:
        await run.until_listens(node)


async def kill_nodes(run, ends):
    while now() < ends:
        await asyncio.sleep(run.random.uniform(2, 7))
        # One that has just been started again has its turn, too.
        node = run.random.choice([node for node in run.nodes if not is_paused(run, node)])
        fault = began(run, "kill", node.label)
        node.kill()
        fault.ended = now()
        await asyncio.sleep(run.random.uniform(0, 2))
        node.start()


def is_paused(run, node):
    return any(one.kind == "pause" and one.who == node.label and not one.ended for one in run.faults)


async def stop_node(run, node, seconds):
    # One that is only starting has nothing to lose.
    await run.until_listens(node)
    fault = began(run, "pause", node.label)
    node.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    node.process.send_signal(signal.SIGCONT)
    fault.ended = now()


async def restart_postgres(run):
    fault = began(run, "restart", "postgres")
    how = run.random.choice([signal.SIGINT, signal.SIGQUIT])
    await asyncio.to_thread(run.postgres.stop, how)
    await asyncio.sleep(run.random.uniform(0, 3))
    await asyncio.to_thread(run.postgres.start)
    fault.ended = now()


async def pause_postgres(run):
    fault = began(run, "pause", "postgres")
    run.postgres.pause()
    await asyncio.sleep(PAUSE_SECONDS)
    run.postgres.resume()
    fault.ended = now()


async def restart_broker(run):
    fault = began(run, "restart", "rabbitmq")
    await asyncio.to_thread(run.broker.kill)
    await asyncio.to_thread(run.broker.start)
    fault.ended = now()


async def pause_broker_and_node(run):
    """Nodes go without a broker, so these two have nothing to do with each other."""
    node = run.random.choice(run.nodes)
    await asyncio.gather(pause_broker(run), stop_node(run, node, PAUSE_SECONDS))


async def pause_broker(run):
    fault = began(run, "pause", "rabbitmq")
    os.killpg(run.broker.process.pid, signal.SIGSTOP)
    await asyncio.sleep(PAUSE_SECONDS)
    os.killpg(run.broker.process.pid, signal.SIGCONT)
    fault.ended = now()


async def stops(run):
    """Each node stands still again and again, for longer than an epoch, whatever the others do."""
    ends = now() + run.seconds

    async def stop_again(node):
        while True:
            await asyncio.sleep(run.random.uniform(3, 20))
            if now() + STOP_SECONDS[0] > ends:
                return
            await stop_node(run, node, run.random.uniform(*STOP_SECONDS))

    await asyncio.gather(*map(stop_again, run.nodes))
