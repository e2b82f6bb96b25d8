"""Whether an InfluxDB store can be written, read and deleted from: really tried, with a record that nobody else asks for."""

import secrets

from agent.errors import StoreError
from agent.language import say
from collector.stores._influx_http import Door
from collector.stores._influx_records import BASE_NS, PROBE
from collector.stores._influx_text import line


def probe(door: Door) -> None:
    """Writes a record, reads it back and deletes it. Raises StoreError with the reason, also when it is not there to read.

    Several may do so at once: each has its own moment.
    """
    mark = secrets.randbelow(2**48)
    moment = BASE_NS + mark
    door.write([line(PROBE, {}, {"mark": mark}, moment)])
    try:
        statement = f'SELECT "mark" FROM "{PROBE}" WHERE time = {moment}'  # noqa: S608  # of our own numbers
        found = [int(row[1]) for rows in door.ask([statement]) for row in rows.values]
    finally:
        door.delete(PROBE, moment, moment + 1, {})
    if found != [mark]:
        text = say("刚写入的一条记录读不回来", "a record that was just written cannot be read back")
        raise StoreError(f"{door.place.url}: {text}")
