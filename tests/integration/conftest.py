"""A broker, a store and a quarantine for tests of the whole line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Mosquitto

from agent.catalogue import load
from collector.quarantine import Quarantine
from collector.server import StoreThreads
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    settings = f"allow_anonymous true\npersistence true\npersistence_location {folder}/\nautosave_interval 1"
    with Mosquitto(folder, settings) as daemon:
        yield daemon


@pytest.fixture
def threads(tmp_path: Path) -> Iterator[StoreThreads]:
    with DuckDB(Config(path=str(tmp_path / "store.duckdb")), load()) as store:
        opened = StoreThreads(store)
        yield opened
        opened.close()


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    with Quarantine(tmp_path / "quarantine.sqlite") as opened:
        yield opened
