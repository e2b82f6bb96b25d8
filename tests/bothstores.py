"""Empty stores of both kinds, as many as a test wants: what one answers the other must."""

import itertools
from contextlib import ExitStack
from pathlib import Path

from influxstore import config_of
from linkstore import CATALOGUE
from servers import Influx

from collector.stores import Store
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB
from collector.stores.influxdb import Store as InfluxDB

numbers = itertools.count()


class Stores(ExitStack):
    """Files in `folder`, and databases of a running server; closed and gone with it."""

    def __init__(self, folder: Path, influx: Influx) -> None:
        super().__init__()
        self._folder, self._influx = folder, influx

    def duckdb(self) -> Store:
        config = Config(path=str(self._folder / f"{next(numbers)}.duckdb"))
        return self.enter_context(DuckDB(config, CATALOGUE))

    def influxdb(self) -> Store:
        name = f"both_{next(numbers)}"
        self._influx.ask(f"CREATE DATABASE {name}")
        self.callback(self._influx.ask, f"DROP DATABASE {name}")
        return self.same_influxdb(name)

    def same_influxdb(self, name: str) -> Store:
        """Another collector's, on a database that is there."""
        return self.enter_context(InfluxDB(config_of(self._influx, name), CATALOGUE))
