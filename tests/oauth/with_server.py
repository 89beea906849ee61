"""Runs a program beside a server with a state of its own.

    with_server.py ESL_SERVER PROGRAM [ARGUMENT]...

The program gets the server's URL, a client's id and its secret as further arguments.
"""

import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from real_server import PATIENCE_SECONDS, running  # noqa: E402

# Authlib does not escape what it sends by HTTP Basic, so there is nothing that would have to be.
CLIENT, SECRET = "oauth-clients", "0123456789abcdef-0123456789_abcdef"

binary, *program = sys.argv[1:]
with running(binary, ESL_BOOTSTRAP_CLIENT=f"{CLIENT}:{SECRET}") as url:
    arguments = [url, CLIENT, SECRET]
    code = subprocess.run([*program, *arguments], timeout=PATIENCE_SECONDS).returncode
sys.exit(code)
