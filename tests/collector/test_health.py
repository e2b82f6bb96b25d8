"""Whether an agent is alive: what it gathers most often tells, and not what stays fresh for hours."""

from collections.abc import Iterator, Sequence

import pytest

from agent.points import Point
from collector.health import read_health
from collector.ruleset import load_rules, memory_store
from collector.stores import AppliedBatch, Store

NOW = 1_790_000_000_000
MINUTE = 60_000


@pytest.fixture
def store() -> Iterator[Store]:
    with memory_store(load_rules().rules.catalogue) as opened:
        yield opened


@pytest.mark.parametrize(
    ("rounds", "is_alive"),
    [
        ([("host_cpu", 15, 28), ("host_raid", 3600, 40)], False),
        ([("host_cpu", 15, 0.5), ("host_raid", 3600, 40)], True),
        ([("host_cpu", 15, 28), ("host_disk", 60, 3)], True),  # one source hangs
        ([("snmp", 300, 15), ("host_raid", 3600, 40)], True),  # none is fast: the fastest tells
        ([("snmp", 300, 28), ("host_raid", 3600, 40)], False),
        ([("host_cpu", 15, 2 * 1440), ("host_raid", 3600, 40)], True),  # the fast one was switched off long before
    ],
)
def test_an_agent_lives_while_what_it_gathers_most_often_is_fresh(
    store: Store, rounds: Sequence[tuple[str, float, float]], is_alive: bool
) -> None:
    points = [
        Point(
            "source_round",
            {"asset": "srv-1", "source": source, "target": "local"},
            {"is_success": 1.0, "interval_seconds": float(interval)},
            int(NOW - minutes * MINUTE),
        )
        for source, interval, minutes in rounds
    ]
    store.write([AppliedBatch("hospital", "srv-1", "", -1, "only", NOW, NOW, points, 0, ())])
    (agent,) = read_health(store, "hospital", NOW)
    assert agent.is_alive is is_alive
