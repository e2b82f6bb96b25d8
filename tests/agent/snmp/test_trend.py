"""When a pool will be full."""

from pathlib import Path

import pytest
from replayed import replayed

from agent.snmp.trend import NEVER_SECONDS, Trends

DAY, GIB = 86400.0, 2.0**30


class Days:
    """A pool of 1000 GiB, looked at every six hours."""

    def __init__(self, path: Path | None = None) -> None:
        self.now = 0.0
        self.trends = Trends(path, lambda: self.now)

    def look(self, days: float, used: float, growth_a_day: float) -> float | None:
        told = None
        for step in range(int(days * 4) + 1):
            told = self.trends.time_to_full("Pool-1", (used + growth_a_day * step / 4) * GIB, 1000 * GIB)
            self.now += DAY / 4
        return told


def test_growing_pool_has_its_day() -> None:
    assert Days().look(10, 400, 20) == pytest.approx((1000 - 600) / 20 * DAY)


@pytest.mark.parametrize("growth", [0.0, -5.0])
def test_pool_that_does_not_grow_is_never_full(growth: float) -> None:
    assert Days().look(10, 400, growth) == NEVER_SECONDS


def test_full_pool_is_full_now() -> None:
    assert Days().look(2, 1000, 0) == 0.0


def test_nothing_is_said_before_a_day_has_passed() -> None:
    assert Days().look(0.75, 400, 20) is None


def test_old_growth_is_forgotten() -> None:
    days = Days()
    days.look(40, 100, 10)
    assert days.look(31, 500, 0) == NEVER_SECONDS


def test_samples_outlive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "snmp" / "array.pools.json"
    before = Days(path)
    before.look(3, 400, 20)
    before.trends.save()
    after = Days(path)
    after.now = before.now
    assert after.look(0, 480, 0) == pytest.approx(520 / 20 * DAY, rel=0.3)
    path.write_text("{")
    assert Days(path).look(0, 480, 0) is None


async def test_array_tells_when_its_pools_are_full() -> None:
    async with replayed("built_oceanstor") as bench:
        now = [0.0]
        bench.device._trends = Trends(clock=lambda: now[0])
        assert "time_to_full_seconds" not in await bench.fields("storage_pool", pool="Pool-1")
        now[0] = 2 * DAY
        bench.replayed.put("1.3.6.1.4.1.34774.4.1.23.4.2.1.9.1.48", 2, 200_000)
        assert (await bench.fields("storage_pool", pool="Pool-1"))["time_to_full_seconds"] == pytest.approx(2 * DAY)
        assert (await bench.fields("storage_pool", pool="Pool-2"))["time_to_full_seconds"] == NEVER_SECONDS
