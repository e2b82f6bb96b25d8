"""Fixtures of the SNMP tests."""

from collections.abc import Iterator

import pytest

from agent import language


@pytest.fixture
def english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)
