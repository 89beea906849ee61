"""Ports for servers that go and come back: `ports.py` prints one."""

import random
import socket
from pathlib import Path

FIRST = 10000
# From which on the system gives ports to connections; Linux says it.
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count):
    """Different ports that nobody listens to, and that no connection is given while their server is away."""
    end = int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 32768
    found = []
    while len(found) < count:
        port = random.randrange(FIRST, end)
        if port not in found and is_free(port):
            found.append(port)
    return found


def is_free(port):
    try:
        socket.create_server(("127.0.0.1", port)).close()
        return True
    except OSError:
        return False


if __name__ == "__main__":
    print(*free_ports(1))
