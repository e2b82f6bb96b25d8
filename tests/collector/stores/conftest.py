"""The stores under test, found in their folder; a new one needs its line in `OPENERS` and no more."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from influxstore import config_of
from linkstore import CATALOGUE
from servers import Influx

from agent.catalogue import Catalogue
from collector import stores
from collector.stores import Store

Opener = Callable[[Catalogue], AbstractContextManager[Store]]


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    """One InfluxDB for all tests; each has a database of its own."""
    with Influx(tmp_path_factory.mktemp("influx")) as running:
        yield running


_databases = itertools.count()


@pytest.fixture
def database(influx: Influx) -> Iterator[str]:
    """An empty database of the test's own."""
    name = f"test_{next(_databases)}"
    influx.ask(f"CREATE DATABASE {name}")
    yield name
    influx.ask(f"DROP DATABASE {name}")


def open_duckdb(request: pytest.FixtureRequest) -> Opener:
    from collector.stores.duckdb import Config, Store

    folder: Path = request.getfixturevalue("tmp_path")
    return lambda catalogue: Store(Config(path=str(folder / "store.duckdb")), catalogue)


def open_influxdb(request: pytest.FixtureRequest) -> Opener:
    from collector.stores.influxdb import Store

    config = config_of(request.getfixturevalue("influx"), request.getfixturevalue("database"))
    return lambda catalogue: Store(config, catalogue)


OPENERS = {"duckdb": open_duckdb, "influxdb": open_influxdb}


@pytest.fixture(params=stores.names())
def opener(request: pytest.FixtureRequest) -> Opener:
    """Opens the same store again and again, as restarts do."""
    if request.param not in OPENERS:
        pytest.fail(f"add {request.param!r} to OPENERS in tests/collector/stores/conftest.py")
    return OPENERS[request.param](request)


@pytest.fixture
def store(opener: Opener) -> Iterator[Store]:
    with opener(CATALOGUE) as opened:
        yield opened
