"""How fast the stores write and answer: `python tests/bench/bench_store.py`. Prints a table, asserts nothing.

Written are batches of a server's points as they come off the wire; asked is one field of 200 subjects over 30 days at one
sample a minute. Medians of several runs on one thread; the limits are the design's: 150,000 points/s and 1 s.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agent import catalogue, wire
from agent.points import Point
from collector.numbers import answer_all
from collector.query import HOUR_MS, Bounds, Expectation, Question, SubjectAnswer, Take
from collector.stores import AppliedBatch, Store
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB

START = 1_760_054_400_000
MINUTE_MS = 60_000
DAYS = 30
SUBJECTS = 200
WRITE_LIMIT = 150_000
"""Points a second on one core, from decoded batch to commit."""
ANSWER_LIMIT_SECONDS = 1.0

PARTS = {
    "host_cpu": ("", 1),
    "host_memory": ("", 1),
    "host_uptime": ("", 1),
    "host_clock": ("", 1),
    "agent_health": ("", 1),
    "filesystem": ("mount", 10),
    "disk_device": ("device", 8),
    "net_interface": ("interface", 12),
    "sensor": ("sensor", 40),
    "service_unit": ("unit", 150),
    "source_round": ("source", 12),
}
"""What one server reports in a round: measurement -> the tag that tells its parts apart, and how many there are."""


def host_points(asset: str, moment: int, signals: catalogue.Catalogue) -> list[Point]:
    """A round of one server, some 240 points."""
    points = []
    for name, (tag, count) in PARTS.items():
        fields = signals.measurements[name].fields
        for part in range(count):
            tags = {"asset": asset, tag: f"{tag}-{part}"} if tag else {"asset": asset}
            values = {
                field: ((moment // 1000 * 7919 + part * 104_729 + len(field) * 31) % 4096) / 4096
                if declared.is_number
                else "uplink to core"
                for field, declared in fields.items()
            }
            points.append(Point(name, tags, values, moment + part))
    return points


def decoded_batches(agents: int, rounds: int) -> Iterator[list[AppliedBatch]]:
    """For every round the batches of all agents, each through the wire's own codec."""
    signals = catalogue.load()
    for seq in range(rounds):
        call = []
        for number in range(agents):
            agent, made_at = f"srv-{number:03d}", START + seq * 15_000
            payload = wire.encode_batch(wire.Batch(host_points(agent, made_at, signals), "boot", seq, made_at))
            points = wire.decode_batch(payload).batch.metrics
            call.append(AppliedBatch("hospital", agent, "boot", seq, f"boot/{seq}", made_at, made_at, points, 0, ()))
        yield call


class Spent(NamedTuple):
    """What a call took: by the clock on the wall, and of the processor alone (what else runs here does not count)."""

    wall_seconds: float
    cpu_seconds: float


def timed(call: Callable[[], object]) -> Spent:
    """Runs `call` once."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median_of(spent: Sequence[Spent]) -> Spent:
    """The median of each."""
    walls, cpus = zip(*spent, strict=True)
    return Spent(statistics.median(walls), statistics.median(cpus))


def bench_write(store: Store, agents: int, rounds: int) -> None:
    """One row of the table of writes; the first call, which numbers the series, is told apart."""
    spent, points = [], 0
    for call in decoded_batches(agents, rounds):
        points = sum(len(batch.points) for batch in call)
        spent.append(timed(lambda call=call: store.write(call)))  # type: ignore[misc]  # bound now, not later
    wall, cpu = median_of(spent[1:])
    mean = statistics.mean(one.wall_seconds for one in spent[1:])
    print(
        f"{f'{agents} batches, {points:,} points a call':45} {points / wall:12,.0f} {points / wall / WRITE_LIMIT:8.2f}x"
        f" {points / cpu:12,.0f} {points / mean:12,.0f} {points / spent[0].wall_seconds:12,.0f}"
    )


def fill(store: Store, hours: int = DAYS * 24, boot: str = "boot") -> None:
    """8.6 M samples: one field of 200 assets every minute for 30 days."""
    for hour in range(hours):
        for number in range(0, SUBJECTS, 50):
            points = [
                Point(
                    "host_cpu",
                    {"asset": f"srv-{asset:03d}"},
                    {"busy_ratio": ((hour * 60 + minute) * 7919 + asset * 104_729) % 2**20 / 2**20},
                    START + hour * HOUR_MS + minute * MINUTE_MS + asset * 37,
                )
                for minute in range(60)
                for asset in range(number, number + 50)
            ]
            moment, agent = START + hour * HOUR_MS, f"gateway-{number}"
            store.write([AppliedBatch("hospital", agent, boot, hour, f"{boot}/{hour}", moment, moment, points, 0, ())])


QUESTIONS = {
    "mean of 5 min, then p95": (Take("mean"), Take("percentile", p=95)),
    "mean of 5 min, then mean": (Take("mean"), Take("mean")),
    "mean of 5 min, then share": (Take("mean"), Take("share", operator="<", threshold=0.6)),
    "max of 5 min, then max": (Take("max"), Take("max")),
    "last of 5 min, then last": (Take("last"), Take("last")),
    "p90 of 5 min, then p95": (Take("percentile", p=90), Take("percentile", p=95)),
}


def ask(store: Store, bucket: Take, subject: Take) -> list[SubjectAnswer]:
    """One question over everything that `fill` wrote."""
    end = START + DAYS * 24 * HOUR_MS
    question = Question("host_cpu", "busy_ratio", (), ("asset",), START, end, 5 * MINUTE_MS, bucket, subject)
    expectations = [Expectation((f"srv-{number:03d}",), START, ((START, 4),)) for number in range(SUBJECTS)]
    answers = answer_all(question, store.buckets(question), expectations, Bounds(1.0, 0.0))
    assert all(answer.samples == DAYS * 24 * 60 for answer in answers)
    return answers


def bench_answers(store: Store, title: str) -> None:
    """The table of questions."""
    print(f"\n{title:45} {'wall s':>12} {'of limit':>9} {'cpu s':>12}")
    for name, (bucket, subject) in QUESTIONS.items():
        wall, cpu = median_of([timed(functools.partial(ask, store, bucket, subject)) for _ in range(5)])
        print(f"{name:45} {wall:12.2f} {wall / ANSWER_LIMIT_SECONDS:8.2f}x {cpu:12.2f}")


def main() -> None:
    """Writes and asks in a temporary directory."""
    heads = ("points/s", "of limit", "by cpu", "mean", "first call")
    print(
        f"{'write, decoded batch to commit, median':45} {heads[0]:>12} {heads[1]:>9}"
        + "".join(f" {h:>12}" for h in heads[2:])
    )
    with tempfile.TemporaryDirectory() as folder:
        for agents in (4, 20, 60, 120):
            with DuckDB(Config(path=f"{folder}/write-{agents}.duckdb"), catalogue.load()) as store:
                bench_write(store, agents, 1200 // agents)
        path = Path(folder) / "ask.duckdb"
        with DuckDB(Config(path=str(path)), catalogue.load()) as store:
            fill(store)
            bench_answers(store, "answer over 8.64 M samples of 200 subjects")
            fill(store, hours=24, boot="again")
            bench_answers(store, "the same, one day of the 30 delivered twice")
        print(
            f"\nfile: {path.stat().st_size / 1e6:.0f} MB, {path.stat().st_size / 8.928e6:.1f} bytes a point of one field"
        )


if __name__ == "__main__":
    main()
