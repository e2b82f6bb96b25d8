"""What every test session does."""

import gc

from hypothesis import settings

# the same examples on every machine, and no deadline: how long one takes says how busy the machine is;
# to look for others: pytest --hypothesis-profile=default
settings.load_profile("ci")


def pytest_sessionfinish() -> None:
    """Drop what failed assertions and fixtures still hold, or DuckDB's binding prints a page about it at the end."""
    gc.collect()
