"""The handlers with an `accept` that fails on the first time of each event; run.sh says how to run it.

    failing.py SCRATCH

What has failed is not acknowledged and is accepted when it comes again; also where `accept` takes its
time, of eight at once it is run once.
"""

import base64
import concurrent.futures
import hmac
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from live import EXAMPLES, OLD, Handler

# Of each language: the file, its line that accepts, and what fails before it. To make a folder is what
# everyone can do once.
FAILING = {
    "php": (
        "index.php",
        "    file_put_contents('php://stdout'",
        """    if (@mkdir(getenv('FAILED') . '/' . $event['id'])) {
        throw new RuntimeException('the first time');
    }
    usleep(100_000);
""",
    ),
    "python": (
        "server.py",
        '    print("accepted"',
        """    if not os.path.exists(folder := os.environ["FAILED"] + "/" + event["id"]):
        os.mkdir(folder)
        raise RuntimeError("the first time")
    time.sleep(0.1)
""",
    ),
    "node": (
        "server.js",
        '  console.log("accepted"',
        """  await new Promise((resolve) => setTimeout(resolve, 100));
  const { mkdir } = require("node:fs/promises");
  const isFirst = await mkdir(`${process.env.FAILED}/${event.id}`).then(() => true, () => false);
  if (isFirst) throw new Error("the first time");
""",
    ),
    "go": (
        "server.go",
        '\t_, err := fmt.Println("accepted"',
        """\tif os.Mkdir(os.Getenv("FAILED")+"/"+event.ID, 0o700) == nil {
\t\treturn fmt.Errorf("the first time")
\t}
\ttime.Sleep(100 * time.Millisecond)
""",
    ),
    "ruby": (
        "server.rb",
        '  puts "accepted',
        """  folder = "#{ENV.fetch("FAILED")}/#{event["id"]}"
  unless Dir.exist?(folder)
    Dir.mkdir(folder)
    raise "the first time"
  end
  sleep 0.1
""",
    ),
}


def command(language: str, folder: pathlib.Path):
    """What starts a copy of the handler whose `accept` fails."""
    shutil.copytree(EXAMPLES / language, folder)
    name, accepts, fails = FAILING[language]
    file = folder / name
    code = file.read_text("utf-8")
    assert code.count(accepts) == 1, f"{language} accepts otherwise now"
    file.write_text(code.replace(accepts, fails + accepts), "utf-8")
    if language == "php":
        return lambda port: ["php", "-d", "display_errors=1", "-S", f"127.0.0.1:{port}", file]
    if language == "go":
        build = ["go", "build", "-o", "receiver", "server.go", "verify.go"]
        subprocess.run(build, cwd=folder, check=True)
        return lambda _: [folder / "receiver"]
    program = {"python": sys.executable, "node": "node", "ruby": "ruby"}[language]
    return lambda _: [program, file]


def request(event: str):
    body = json.dumps({"id": event, "type": "person.updated", "data": {}}).encode()
    sent_at = str(int(time.time()))
    tag = hmac.digest(OLD.encode(), f"{event}.{sent_at}.".encode() + body, "sha256")
    signature = f"v1,{base64.b64encode(tag).decode()}"
    headers = {"webhook-id": event, "webhook-timestamp": sent_at, "webhook-signature": signature}
    return headers, body


def check(handler: Handler):
    def eight_at_once(event):
        with concurrent.futures.ThreadPoolExecutor(8) as eight:
            return list(eight.map(lambda _: handler.ask(*request(event)), range(8)))

    def accepted(event):
        return handler.said().count(f"accepted person.updated {event}\n")

    # Python closes the connection, which is no answer either.
    assert handler.ask(*request("evt_1")) in (500, None), f"{handler.name}: acknowledges what failed"
    assert accepted("evt_1") == 0
    assert eight_at_once("evt_1") == [200] * 8, f"{handler.name}: refuses what has failed before"
    assert handler.ask(*request("evt_1")) == 200
    assert accepted("evt_1") == 1, f"{handler.name}: accepted {accepted('evt_1')} times"

    statuses = eight_at_once("evt_2")
    assert set(statuses) <= {200, 500, None} and set(statuses) != {200}, f"{handler.name}: {statuses}"
    assert handler.ask(*request("evt_2")) == 200
    assert accepted("evt_2") == 1, f"{handler.name}: accepted {accepted('evt_2')} times"
    print(f"{handler.name}: what fails is accepted when it comes again, once")


scratch = pathlib.Path(sys.argv[1]).resolve()
(scratch / "said").mkdir(parents=True)
for language in FAILING:
    os.environ["FAILED"] = str(scratch / f"failed-{language}")
    os.mkdir(os.environ["FAILED"])
    handler = Handler(language, command(language, scratch / language), OLD, str(scratch / "said"))
    try:
        handler.await_listening()
        check(handler)
    finally:
        handler.stop()
