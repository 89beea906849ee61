"""The code in docs/receiving.md is that of the files which it names, and its request is genuine and brings
the person.updated of docs/events; run.sh says how to run it.

    docs.py            says whether it is
    docs.py --write    puts it there

Where a block of code stands behind `<!-- the file's path -->`, the file is the truth.
"""

import hmac
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "examples" / "receivers" / "python"))
from verify import key, refusal

PAGE = ROOT / "docs" / "receiving.md"
EVENTS = ROOT / "docs" / "events" / "README.md"
BLOCK = re.compile(r"(<!-- (\S+) -->\n```\w+\n)(.*?)(^```$)", re.DOTALL | re.MULTILINE)

EVENT = re.compile(r"<!-- event: person.updated -->\n```json\n(.*?)^```$", re.DOTALL | re.MULTILINE)
REQUEST = re.compile(r"^POST .*?\n(.*?)\n\n(.*?)\n```$.*?the secret `(\w+)`", re.DOTALL | re.MULTILINE)

page = PAGE.read_text("utf-8")
drifted = []

head, body, secret = REQUEST.search(page).groups()
headers = dict(line.split(": ") for line in head.splitlines())
body, sent_at = body.encode(), int(headers["webhook-timestamp"])
if why := refusal(headers, body, [key(secret)], sent_at):
    sys.exit(f"docs/receiving.md has a request that is not genuine: {why}")
if hmac.digest(secret.encode(), body, "sha256").hex() != headers["x-sapien-signature"]:
    sys.exit("docs/receiving.md has a request whose X-Sapien-Signature is not genuine")
if len(body) != int(headers["content-length"]):
    sys.exit("docs/receiving.md has a request of another length than it says")
if json.loads(body) != json.loads(EVENT.search(EVENTS.read_text("utf-8"))[1]):
    sys.exit("docs/receiving.md has a request with another person.updated than docs/events")


def of_file(block):
    before, path, code, after = block.groups()
    file = (ROOT / path).read_text("utf-8")
    if code != file:
        drifted.append(path)
    return before + file + after


written = BLOCK.sub(of_file, page)
shown = {path for _, path, _, _ in BLOCK.findall(page)}
expected = {
    str(path.relative_to(ROOT))
    for path in (ROOT / "examples" / "receivers").rglob("*")
    if path.is_file() and path.suffix in {".go", ".js", ".php", ".py", ".rb"}
    and "__pycache__" not in path.parts
}
if missing := expected - shown:
    sys.exit(f"docs/receiving.md does not show {sorted(missing)}")
if sys.argv[1:] == ["--write"]:
    PAGE.write_text(written, "utf-8")
elif drifted:
    sys.exit(f"docs/receiving.md shows other code than {drifted}: tests/receiving/run.sh --write-docs")
print(f"docs/receiving.md: {len(shown)} blocks are their files")
