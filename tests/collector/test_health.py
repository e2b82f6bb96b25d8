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
    (agent,) = read_health(store, "hospital", {}, NOW)
    assert agent.is_alive is is_alive


@pytest.mark.parametrize(("minutes_ago", "sends"), [(1, False), (10, True)])
def test_a_revoked_agent_is_not_expected_and_what_it_sends_long_after_is_told(
    store: Store, minutes_ago: int, sends: bool
) -> None:
    tags = {"asset": "srv-1", "source": "host_cpu", "target": "local"}
    point = Point("source_round", tags, {"is_success": 1.0, "interval_seconds": 15.0}, NOW)
    store.write(
        [AppliedBatch("hospital", name, "", -1, name, NOW, NOW, (point,), 0, ()) for name in ("srv-1", "srv-2")]
    )
    revoked_at = NOW - minutes_ago * MINUTE
    there, gone = read_health(store, "hospital", {"srv-2": revoked_at, "never-seen": NOW}, NOW)
    assert (there.is_expected, there.sends_though_revoked) == (True, False)
    assert (gone.is_expected, gone.revoked_at, gone.sends_though_revoked) == (False, revoked_at, sends)
    (_, later) = read_health(store, "hospital", {"srv-2": revoked_at}, NOW + 60 * MINUTE)
    assert not later.sends_though_revoked
