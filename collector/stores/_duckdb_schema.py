"""The tables of the DuckDB store: one per measurement, made from the catalogue, and the store's own."""

from agent.catalogue import Catalogue, Field
from agent.errors import StoreError
from agent.language import say
from collector.stores._duckdb_connection import Connection

FORMAT = 3
"""Rises when an older program could no longer read the file."""

_OWN_TABLES = """
CREATE SCHEMA IF NOT EXISTS points;
CREATE TABLE IF NOT EXISTS opening (format INTEGER, number BIGINT);
CREATE TABLE IF NOT EXISTS series (id INTEGER, measurement VARCHAR, site VARCHAR, agent VARCHAR, asset VARCHAR,
    tags MAP(VARCHAR, VARCHAR), first_seen BIGINT, last_seen BIGINT);
CREATE TABLE IF NOT EXISTS owner (site VARCHAR, asset VARCHAR, agent VARCHAR);
CREATE TABLE IF NOT EXISTS double_hour (measurement VARCHAR, hour BIGINT);
CREATE TABLE IF NOT EXISTS batch (site VARCHAR, agent VARCHAR, boot VARCHAR, seq BIGINT, identity VARCHAR,
    made_at BIGINT, received_at BIGINT, points BIGINT, set_aside BIGINT);
CREATE TABLE IF NOT EXISTS gone (site VARCHAR, agent VARCHAR, boot VARCHAR, first BIGINT, last BIGINT, points BIGINT);
CREATE TABLE IF NOT EXISTS kept ({kept});
CREATE TABLE IF NOT EXISTS late (measurement VARCHAR, site VARCHAR, asset VARCHAR, hour BIGINT, received BIGINT);
CREATE TABLE IF NOT EXISTS pruned (measurement VARCHAR, before BIGINT);
CREATE TABLE IF NOT EXISTS copied (site VARCHAR, state VARCHAR);
CREATE TABLE IF NOT EXISTS scorecard (site VARCHAR, as_of BIGINT, revision INTEGER, digest VARCHAR,
    written_at BIGINT, body BLOB, why VARCHAR, summary VARCHAR, is_packed BOOLEAN);
"""
_KEPT_COLUMNS = """question VARCHAR, measurement VARCHAR, start BIGINT, finish BIGINT, made_at BIGINT,
    places BLOB, samples BLOB, "values" BLOB"""
KEPT_TABLES = tuple(f"kept_{digit}" for digit in "0123456789abcdef")
"""Where chunks are kept, by the first digit of their question's digest."""

_TO_FORMAT_2 = """
ALTER TABLE scorecard ADD COLUMN why VARCHAR DEFAULT '';
ALTER TABLE scorecard ADD COLUMN summary VARCHAR DEFAULT '';
ALTER TABLE scorecard ADD COLUMN is_packed BOOLEAN DEFAULT false;
"""
# series: one row per measurement and tags, never pruned; last_seen is the first sight in its newest hour.
# batch.identity: only where boot is empty (a foreign sender); else it is boot/seq and stands in those columns.
# gone: sequence numbers that need no batch row: announced as dropped, or up to the last that was pruned (points null then).
# kept_0 to kept_f: a chunk of buckets of all subjects in a row, as `_kept` packs it (up to format 2 all numbers in 8 bytes);
# DuckDB compresses the three blobs on its own, 2048 rows together: whoever reads one question's rows unpacks its neighbours',
# so they stand in 16 tables.
# kept: what an older program kept; its rows move on when the file is opened.
# pruned: one row per measurement whose points were pruned, and before when; format 1 did not write it down.
# copied: how far a copy into this file came, one row per site.
# scorecard.is_packed: whether the body is compressed; those of format 1 stay as they were written.
# A point's row holds its series' number instead of its tags: five times the rows a second of text columns.


def prepare(connection: Connection, catalogue: Catalogue) -> None:
    """Makes what is missing in the file, columns of new fields included; writes nothing when nothing is missing."""
    with connection.transaction():
        connection.run(_OWN_TABLES.format(kept=_KEPT_COLUMNS))
        for table in KEPT_TABLES:
            connection.run(f"CREATE TABLE IF NOT EXISTS {table} ({_KEPT_COLUMNS})")
        _check_format(connection)
        _move_kept(connection)
        present = _present_columns(connection)
        for name, measurement in catalogue.measurements.items():
            if name not in present:
                connection.run(f"CREATE TABLE points.{name} ({_POINT_COLUMNS})")
            for field, declared in measurement.fields.items():
                if field not in present.get(name, set()):
                    connection.run(f'ALTER TABLE points.{name} ADD COLUMN "{field}" {_type(declared)}')


_POINT_COLUMNS = "series INTEGER, time BIGINT, written BIGINT"


def _type(field: Field) -> str:
    return "DOUBLE" if field.is_number else "VARCHAR"


def count_writer(connection: Connection) -> int:
    """A number for this opening of the file, greater than any before; inside the caller's transaction."""
    connection.run("UPDATE opening SET number = number + 1")
    return int(connection.rows("SELECT number FROM opening")[0][0])


def _check_format(connection: Connection) -> None:
    rows = connection.rows("SELECT format FROM opening")
    if not rows:
        connection.run("INSERT INTO opening VALUES (?, 0)", [FORMAT])
        return
    found = rows[0][0]
    if found > FORMAT:
        text = say(
            f"文件由更新的版本写入(格式 {found}，本程序为 {FORMAT})；请升级本程序",
            f"written by a newer version (format {found}, this program knows {FORMAT}); upgrade this program",
        )
        raise StoreError(f"{connection.path}: {text}")
    if found < FORMAT:  # to 3 nothing moves: what was kept says itself how wide its numbers are
        connection.run("UPDATE opening SET format = ?", [FORMAT])
    if found < 2:
        connection.run(_TO_FORMAT_2)
        for name in _present_columns(connection):
            connection.run(f"INSERT INTO pruned SELECT '{name}', min(time) FROM points.{name} HAVING count(*) > 0")  # noqa: S608


def _move_kept(connection: Connection) -> None:
    if not connection.rows("SELECT 1 FROM kept LIMIT 1"):
        return
    for table in KEPT_TABLES:
        same = " AND ".join(f"{table}.{name} = kept.{name}" for name in ("question", "start", "finish"))
        connection.run(f"DELETE FROM {table} USING kept WHERE {same}")  # noqa: S608  # names of our own
        connection.run(f"INSERT INTO {table} SELECT * FROM kept WHERE question[1] = '{table[-1]}' ORDER BY start")  # noqa: S608
    connection.run("DELETE FROM kept")


def _present_columns(connection: Connection) -> dict[str, set[str]]:
    present: dict[str, set[str]] = {}
    for table, column in connection.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'points'"
    ):
        present.setdefault(table, set()).add(column)
    return present
