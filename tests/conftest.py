"""What every test session does."""

import gc


def pytest_sessionfinish() -> None:
    """Drop what failed assertions and fixtures still hold, or DuckDB's binding prints a page about it at the end."""
    gc.collect()
