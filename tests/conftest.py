"""What every test session does."""

import gc

from hypothesis import HealthCheck, settings

# a machine that stands still for a moment makes no example wrong; what a test says of its own settings comes on top
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_sessionfinish() -> None:
    """Drop what failed assertions and fixtures still hold, or DuckDB's binding prints a page about it at the end."""
    gc.collect()
