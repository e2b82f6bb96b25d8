"""The stores under test, found in their folder; a new one needs its line in `OPENERS` and no more."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from linkstore import CATALOGUE

from agent.catalogue import Catalogue
from collector import stores
from collector.stores import Store

Opener = Callable[[Catalogue], AbstractContextManager[Store]]


def open_duckdb(folder: Path) -> Opener:
    from collector.stores.duckdb import Config, Store

    return lambda catalogue: Store(Config(path=str(folder / "store.duckdb")), catalogue)


OPENERS = {"duckdb": open_duckdb}


@pytest.fixture(params=stores.names())
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same store again and again, as restarts do."""
    if request.param not in OPENERS:
        pytest.fail(f"add {request.param!r} to OPENERS in tests/collector/stores/conftest.py")
    return OPENERS[request.param](tmp_path)


@pytest.fixture
def store(opener: Opener) -> Iterator[Store]:
    with opener(CATALOGUE) as opened:
        yield opened
