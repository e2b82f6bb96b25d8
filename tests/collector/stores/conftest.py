"""The stores under test, found in their folder; a new one needs its line in `OPENERS` and no more."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from bothstores import Stores
from influxstore import config_of
from linkstore import CATALOGUE
from servers import Influx

from agent.catalogue import Catalogue
from collector import stores
from collector.stores import Store

Opener = Callable[[Catalogue], AbstractContextManager[Store]]


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


@pytest.fixture
def stores(tmp_path: Path, influx: Influx) -> Iterator[Stores]:
    """As many of both kinds as are wanted."""
    with Stores(tmp_path, influx) as made:
        yield made
