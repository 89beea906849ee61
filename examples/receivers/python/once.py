SEEN = "CREATE TABLE IF NOT EXISTS webhooks_seen (id TEXT PRIMARY KEY)"


def accept_once(database, event, work):
    """Does the work of an event once: what it writes, and that it was seen, are one transaction."""
    with database:  # commits, or rolls back what has raised
        seen = database.execute(
            "INSERT INTO webhooks_seen (id) VALUES (?) ON CONFLICT DO NOTHING", [event["id"]]
        )
        if seen.rowcount == 1:
            work(database, event)
