"""What docs/receiving.md says of trying a receiver on one's own machine, as it stands there.

    at_home.py ESL_SERVER
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "examples" / "receivers" / "python")]
from real_server import CLIENT, CLIENT_SECRET, PATIENCE_SECONDS, server
from recorder import recorder
from verify import refusal

PAGE = (HERE.parent.parent / "docs" / "receiving.md").read_text("utf-8")
SECTION = PAGE.split("\n## On your own machine\n")[1].split("\n## ")[0]
LISTEN, VERIFY = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
SAYS = re.search(r"^```\n```\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)[1]
REQUEST = re.search(r"^```\n(POST .*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[1]


def environment(folder: str, binary: pathlib.Path) -> dict:
    """One in which there is an `esl-server`, and nothing else of ours."""
    os.symlink(binary, f"{folder}/esl-server")
    return {"PATH": f"{folder}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}


def the_request_is_found_genuine(binary: pathlib.Path):
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "request.txt").write_text(REQUEST, "utf-8")
        run = ["bash", "-euo", "pipefail", "-c", VERIFY]
        done = subprocess.run(run, cwd=folder, env=environment(folder, binary), stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout.decode()) == (0, SAYS), done


def what_is_published_is_forwarded(binary: pathlib.Path):
    with tempfile.TemporaryDirectory() as folder, server(binary) as api:
        url, requests = recorder()
        script = LISTEN
        for documented, here in (
            ("http://127.0.0.1:8080", api.base),
            ("demo", CLIENT),
            ("a-secret-of-at-least-32-characters", CLIENT_SECRET),
            ("http://127.0.0.1:9000/", url),
        ):
            assert script.count(documented) == 1, documented
            script = script.replace(documented, here)
        listening = subprocess.Popen(
            ["bash", "-euc", script],
            env=environment(folder, binary),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            next(line for line in listening.stderr if line.startswith(b"forwarding "))
            event = api.publish('{"name":"John"}')
            headers, body = requests.get(timeout=PATIENCE_SECONDS)
        finally:
            os.killpg(listening.pid, signal.SIGTERM)
            listening.wait(PATIENCE_SECONDS)
    assert headers["webhook-id"] == event
    secret = re.search(r"ESL_WEBHOOK_SECRET=(\S+)", LISTEN)[1]
    assert refusal(headers, body, [secret.encode()], int(headers["webhook-timestamp"])) is None


binary = pathlib.Path(sys.argv[1]).resolve()
the_request_is_found_genuine(binary)
what_is_published_is_forwarded(binary)
print("at home: listen and verify do as docs/receiving.md says")
