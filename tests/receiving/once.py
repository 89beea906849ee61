"""What docs/receiving.md says of accepting once in the handler's own transaction; run.sh runs it."""

import pathlib
import sqlite3
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "examples" / "receivers" / "python"))
from once import SEEN, accept_once


def work(database, event):
    database.execute("INSERT INTO done VALUES (?)", [event["id"]])


def failing(database, event):
    work(database, event)
    raise RuntimeError("after it has written")


with tempfile.TemporaryDirectory() as folder:
    file = f"{folder}/done.db"

    def opened():
        return sqlite3.connect(file, timeout=30)

    def event(id, organization="org_1"):
        return {"id": id, "organization_id": organization}

    def done():
        return [id for (id,) in opened().execute("SELECT id FROM done ORDER BY id")]

    database = opened()
    database.execute(SEEN)
    database.execute("CREATE TABLE done (id TEXT)")
    for _ in range(2):
        accept_once(database, event("evt_1"), work)
    assert done() == ["evt_1"], "the same event, again"

    try:
        accept_once(database, event("evt_2"), failing)
    except RuntimeError:
        pass
    assert done() == ["evt_1"], "what fails leaves nothing"
    accept_once(database, event("evt_2"), work)
    assert done() == ["evt_1", "evt_2"], "what has failed is done when it comes again"

    accept_once(database, event("evt_2", "org_2"), work)
    assert done() == ["evt_1", "evt_2", "evt_2"], "another organization's"

    def come():
        mine = opened()
        accept_once(mine, event("evt_3"), work)
        mine.close()

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done() == ["evt_1", "evt_2", "evt_2", "evt_3"], "eight at once"
print("once: the same event again, one that failed, another organization's, and eight at once")
