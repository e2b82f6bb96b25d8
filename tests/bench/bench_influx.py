"""How fast the InfluxDB store writes and answers: `python tests/bench/bench_influx.py`. Prints a table, asserts nothing.

Client and server share this machine. Written are rounds of 500 servers; asked is one field of 5,000 subjects over an hour
of raw points, and over ten days of which all hours but one are kept.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parent.parent))

from influxstore import config_of
from servers import Influx

from agent import catalogue
from agent.points import Point
from collector.query import HOUR_MS, Question, Take
from collector.stores import LATENESS_MS, AppliedBatch
from collector.stores.influxdb import Store

T = TypeVar("T")
START = 1_760_054_400_000
AGENTS, PARTS = 500, 50
SUBJECTS, HOURS = 5000, 240


def measured(what: str, call: Callable[[], T], points: int = 0) -> T:
    """The call's result; prints what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rate = f"{points / wall:>10,.0f} points/s" if points else ""
    print(f"{what:<60}{wall:>8.2f} s{cpu:>8.2f} s here{rate}", flush=True)
    return result


def a_round(seq: int) -> list[AppliedBatch]:
    """A batch of each agent."""
    at = START + seq * 15_000
    return [
        AppliedBatch("hospital", f"srv-{agent}", "boot", seq, f"boot/{seq}", at, at, list(parts(agent, seq, at)), 0, ())
        for agent in range(AGENTS)
    ]


def parts(agent: int, seq: int, at: int) -> Iterator[Point]:
    """The interfaces of one server."""
    for part in range(PARTS):
        fields = {"in_bits_per_second": float(agent * part * seq % 1000), "out_bits_per_second": 7.5, "is_up": 1.0}
        yield Point("net_interface", {"asset": f"srv-{agent}", "interface": f"eth{part}"}, fields, at)


def an_hour(hour: int) -> AppliedBatch:
    """One point of every subject in an hour."""
    at = START + hour * HOUR_MS
    points = [
        Point("host_cpu", {"asset": f"srv-{number:04d}"}, {"busy_ratio": (number * 7 + hour) % 1024 / 1024}, at)
        for number in range(SUBJECTS)
    ]
    return AppliedBatch("hospital", "gateway", "hours", hour, f"hours/{hour}", at, at, points, 0, ())


def ask(hours: int) -> Question:
    """The hourly mean of every subject."""
    where = (("site", ("hospital",)),)
    end = START + hours * HOUR_MS
    return Question("host_cpu", "busy_ratio", where, ("asset",), START, end, HOUR_MS, Take("mean"), Take("mean"))


def main() -> None:
    """The whole table."""
    with tempfile.TemporaryDirectory() as folder, Influx(Path(folder)) as influx:
        influx.ask("CREATE DATABASE bench")
        with Store(config_of(influx, "bench", timeout_seconds=600), catalogue.load()) as store:
            measured("write: 25,000 new series", lambda: store.write(a_round(0)), AGENTS * PARTS)
            for seq in range(1, 4):
                measured("write: 25,000 points", lambda: store.write(a_round(seq)), AGENTS * PARTS)  # noqa: B023
            for hour in range(HOURS):
                store.write([an_hour(hour)])
            last = START + HOURS * HOUR_MS
            measured(f"{SUBJECTS} subjects, an hour of raw points", lambda: store.buckets(ask(1)))
            measured(f"{SUBJECTS} subjects, {HOURS} hours of raw points", lambda: store.buckets(ask(HOURS), last))
            measured("keep these hours", store.keep)
            store.write([an_hour(HOURS)])
            now = last + HOUR_MS + LATENESS_MS
            measured("the hour after, the others kept", lambda: store.buckets(ask(HOURS + 1), now))
            measured("totals, first", store.totals)
            measured("totals, again", store.totals)


if __name__ == "__main__":
    main()
