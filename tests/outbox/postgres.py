"""An application that keeps persons, and says so in events, in one transaction: with psycopg.

    postgres.py URL SCHEMA ORGANIZATION

Prints the ids of the events that it has committed.
"""

import sys

import psycopg
from psycopg.types.json import Json

url, schema, organization = sys.argv[1:]
PERSONS = f"{schema}_persons"
PUBLISH = f"SELECT {schema}.publish(%s, 'person.created', %s, metadata => %s)"


class ChangedTheirMind(Exception):
    pass


def create(connection, name):
    """A row and its event."""
    connection.execute(f"INSERT INTO {PERSONS} (name) VALUES (%s)", [name])
    values = [organization, Json({"name": name}), Json({"source": "registration"})]
    return connection.execute(PUBLISH, values).fetchone()[0]


with psycopg.connect(url, autocommit=True) as connection:
    connection.execute(f"CREATE TABLE {PERSONS} (name text PRIMARY KEY)")
    for name in ["Ada", "Grace", "Barbara"]:
        with connection.transaction():
            event = create(connection, name)
        print(event)
        try:
            with connection.transaction():
                create(connection, f"not {name}")
                raise ChangedTheirMind
        except ChangedTheirMind:
            pass
        # What is wrong with the row takes the event with it, and the other way round.
        try:
            with connection.transaction():
                create(connection, name)
        except psycopg.errors.UniqueViolation:
            pass
        try:
            with connection.transaction():
                connection.execute(f"INSERT INTO {PERSONS} (name) VALUES ('nobody')")
                connection.execute(f"SELECT {schema}.publish(%s, 'nonsense', '{{}}')", [organization])
        except psycopg.Error as error:
            assert error.sqlstate == "ESL02", error
