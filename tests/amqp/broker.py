"""Starts a RabbitMQ for others, says its URL, and ends it when nobody holds the other end of the input.

    broker.py VIRTUAL_HOSTS

That many virtual hosts are in it: esl-test-0, esl-test-1, and so on.
"""

import os
import sys
import tempfile
from pathlib import Path

from processes import Broker


def main(virtual_hosts):
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder) / "broker", virtual_hosts)
        try:
            broker.start()
            print(broker.url.rstrip("/"), flush=True)
            # Whoever reads the line does not read on.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stdin.read()
        finally:
            broker.end()


main([f"esl-test-{number}" for number in range(int(sys.argv[1]))])
