"""What the handlers are asked, and whether they said what is expected.

    vectors.py lines                   prints the vectors, one in a line, with bodies whole
    vectors.py compare WHO SCHEME…     reads lines `name accepted` or `name refused`, of all vectors of
                                       these schemes
"""

import base64
import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent.parent / "vectors"


def vectors():
    for path in sorted(FOLDER.glob("*.json")):
        if path.name != "exceptions.json":
            for vector in json.loads(path.read_text("utf-8"))["vectors"]:
                yield {**vector, "name": f"{path.stem}/{vector['name']}"}


def lines():
    for vector in vectors():
        body = base64.b64decode(vector["body"]) * vector.pop("body_times", 1)
        print(json.dumps({**vector, "body": base64.b64encode(body).decode()}))


def compare(who, *schemes):
    expected = {
        vector["name"]: "accepted" if "accepted" in vector["expected"] else "refused"
        for vector in vectors()
        if vector["scheme"] in schemes
    }
    said = dict(line.split() for line in sys.stdin)
    if said.keys() != expected.keys():
        sys.exit(f"{who}: was asked of {len(expected)} vectors, and answered of {len(said)}")
    differing = {name: verdict for name, verdict in said.items() if verdict != expected[name]}
    exceptions = json.loads((FOLDER / "exceptions.json").read_text("utf-8"))[who]
    if differing.keys() != exceptions.keys():
        sys.exit(f"{who}: differs in {differing}, but exceptions.json has {list(exceptions)}")
    accepted = list(said.values()).count("accepted")
    print(f"{who}: {accepted} vectors accepted, {len(said) - accepted} refused; "
          f"{len(differing)} of them unlike us, as is written down")


{"lines": lines, "compare": compare}[sys.argv[1]](*sys.argv[2:])
