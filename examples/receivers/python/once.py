SEEN = """CREATE TABLE IF NOT EXISTS webhooks_seen
    (organization TEXT, id TEXT, PRIMARY KEY (organization, id))"""


def accept_once(database, event, work):
    """Does the work of an event once: what it writes, and that it was seen, are one transaction."""
    with database:  # commits, or rolls back what has raised
        seen = database.execute(
            "INSERT INTO webhooks_seen (organization, id) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [event["organization_id"], event["id"]],
        )
        if seen.rowcount == 1:
            work(database, event)
