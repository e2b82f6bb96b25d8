"""An InfluxDB for the tests that need one."""

import itertools
from collections.abc import Iterator

import pytest
from servers import Influx


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
