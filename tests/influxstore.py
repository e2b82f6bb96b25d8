"""How tests reach their InfluxDB: the configuration of the store that the collector would have, and what lies in it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import msgspec
from line import Row
from servers import Influx

from agent.broker import Secret
from agent.catalogue import load
from agent.wire import Address
from collector.stores import Store
from collector.stores.influxdb import Config
from collector.stores.influxdb import Store as InfluxDB

DATABASE = "kept"


def config_of(influx: Influx, database: str, timeout_seconds: float = 60.0) -> Config:
    """The store's configuration for a database of a running server; the password stands in a file."""
    password = influx.folder / "password"
    password.write_text(f"{influx.ADMIN[1]}\n", "utf-8")
    return Config(
        url=influx.url,
        database=database,
        user=influx.ADMIN[0],
        password=Secret(file=str(password)),
        timeout_seconds=timeout_seconds,
    )


def rows_of(influx: Influx, database: str, query: str) -> Iterator[Mapping[str, Any]]:
    """Rows straight from the server, column -> value."""
    for result in json.loads(influx.ask(query, database))["results"]:
        for series in result.get("series", ()):
            for values in series["values"]:
                yield dict(zip(series["columns"], values, strict=True))


class KeptInInfluxDB:
    """A server of its own with one database. See `line.Kept`."""

    def __init__(self, folder: Path) -> None:
        self.server = Influx(folder / "influx")
        config = self._config()
        settings = {
            "kind": "influxdb",
            "url": config.url,
            "database": DATABASE,
            "user": config.user,
            "password": {"file": f"{self.server.folder}/password"},
        }
        self.section = json.dumps(settings)

    def __enter__(self) -> Self:
        self.server.start()
        self.server.ask(f"CREATE DATABASE {DATABASE}")
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.kill()

    def open(self, port: int | None = None, timeout_seconds: float = 60.0) -> AbstractContextManager[Store]:
        """For a collector inside the test. port: where it finds the server, else the server's own."""
        config = self._config(timeout_seconds)
        url = f"http://127.0.0.1:{port}" if port else config.url
        return InfluxDB(msgspec.structs.replace(config, url=url), load())

    def rows(self, address: Address) -> list[Row]:
        """Every row of host_uptime that an agent's points became, ordered."""
        query = f'SELECT uptime_seconds FROM "host_uptime" WHERE {_of(address)}'
        return sorted(Row(row["time"], row["uptime_seconds"]) for row in rows_of(self.server, DATABASE, query))

    def batches(self, address: Address) -> list[tuple[str, int, int]]:
        """Every row of a batch: boot, seq, points; ordered."""
        query = f'SELECT boot, seq, points FROM "batch" WHERE {_of(address)}'
        return sorted((row["boot"], row["seq"], row["points"]) for row in rows_of(self.server, DATABASE, query))

    def _config(self, timeout_seconds: float = 60.0) -> Config:
        return config_of(self.server, DATABASE, timeout_seconds)


def _of(address: Address) -> str:
    return f"\"site\" = '{address.site}' AND \"agent\" = '{address.agent}'"
