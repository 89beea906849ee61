"""Runs a program beside a server with a state of its own.

    with_server.py ESL_SERVER PROGRAM [ARGUMENT]...

The program gets the server's URL, a client's id and its secret as further arguments.
"""

import json
import subprocess
import sys
import tempfile
import threading

# Authlib does not escape what it sends by HTTP Basic, so there is nothing that would have to be.
CLIENT, SECRET = "oauth-clients", "0123456789abcdef-0123456789_abcdef"
PATIENCE_SECONDS = 60

binary, *program = sys.argv[1:]
variables = {
    "ESL_LISTEN": "127.0.0.1:0",
    "ESL_LOG_FORMAT": "json",
    "ESL_BOOTSTRAP_CLIENT": f"{CLIENT}:{SECRET}",
}
with tempfile.TemporaryDirectory() as folder:
    server = subprocess.Popen(
        [binary], cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        events = map(json.loads, server.stderr)
        address = next(event["address"] for event in events if event["message"] == "listening")
        # Read on, so that the server never waits for us.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        arguments = [f"http://{address}", CLIENT, SECRET]
        code = subprocess.run([*program, *arguments], timeout=PATIENCE_SECONDS).returncode
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)
sys.exit(code)
