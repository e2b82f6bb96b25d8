"""What kept buckets save: `python tests/bench/bench_kept.py`. Prints a table, asserts nothing.

A site of 5,000 subjects with a sample every 5 minutes, 30 days of them, four questions to each subject. Cold: nothing is kept yet,
everything comes from raw points. Warm: the hour after, as the hourly scorecard asks. The points are put into the file as
columns, past the line. Limits: 20 s cold and 3 s warm for all questions together, buckets and answers.
"""

import logging
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent import catalogue
from agent.points import Point
from collector.numbers import answer_all
from collector.query import DAY_MS, HOUR_MS, Bounds, Expectation, Question, SubjectAnswer, Take
from collector.stores import LATENESS_MS, AppliedBatch, Store
from collector.stores import _kept as kept
from collector.stores._duckdb_schema import KEPT_TABLES
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB

START = 1_760_054_400_000
DAYS = 30
SUBJECTS = 5000
EVERY_MS = 300_000
MEMORY_BYTES = 2**30
"""What DuckDB may use; numpy's arrays come on top."""
COLD_LIMIT_SECONDS = 20.0
WARM_LIMIT_SECONDS = 3.0

QUESTIONS = {
    "mean of 1 h, then mean": (HOUR_MS, Take("mean"), Take("mean")),
    "p95 of 1 h, then p95": (HOUR_MS, Take("percentile", p=95), Take("percentile", p=95)),
    "min of 1 h, then min": (HOUR_MS, Take("min"), Take("min")),
    "max of 1 d, then mean": (DAY_MS, Take("max"), Take("mean")),
}


class Counter(logging.Handler):
    """Adds up what every reading says that it read."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.raw = self.kept = 0

    def emit(self, record: logging.LogRecord) -> None:
        *_, raw, from_kept = record.args if isinstance(record.args, tuple) else ()
        self.raw, self.kept = self.raw + int(raw), self.kept + int(from_kept)

    def take(self) -> tuple[int, int]:
        """What was read since the last call."""
        taken, self.raw, self.kept = (self.raw, self.kept), 0, 0
        return taken


def counting() -> Counter:
    """A counter that hears every reading of this process from now on."""
    counter = Counter()
    kept.log.setLevel(logging.DEBUG)
    kept.log.addHandler(counter)
    kept.log.propagate = False
    return counter


class Spent(NamedTuple):
    """Wall and processor seconds."""

    wall: float
    cpu: float


def asset(number: int) -> str:
    """The name of a subject."""
    return f"srv-{number:04d}"


def first_round(store: DuckDB) -> None:
    """Makes the series, and says that they are still seen."""
    points = [Point("host_cpu", {"asset": asset(n)}, {"busy_ratio": 0.5}, START) for n in range(SUBJECTS)]
    store.write([AppliedBatch("hospital", "gateway", "boot", 0, "boot/0", START, START, points, 0, ())])
    connection = store._open().connection
    connection.run("DELETE FROM points.host_cpu")
    connection.run("UPDATE series SET last_seen = ?", [START + (DAYS + 1) * DAY_MS])


def fill(store: DuckDB) -> int:
    """The points of all days and of a few hours more, as columns; gives how many."""
    first_round(store)
    chance = np.random.default_rng(1)
    rounds = (DAYS * DAY_MS + 6 * HOUR_MS) // EVERY_MS
    written = 0
    for start in range(0, rounds, 288):
        part = np.arange(start, min(start + 288, rounds))
        series = np.tile(np.arange(SUBJECTS, dtype=np.int32), len(part))
        columns = {
            "series": series,
            "time": START + np.repeat(part * EVERY_MS, SUBJECTS) + series * 3,
            "written": np.arange(written, written + len(series)),
            "busy_ratio": chance.integers(0, 2**20, len(series)) / 2**20,
        }
        store._open().connection.insert("points.host_cpu", columns)
        written += len(series)
    return written


def ask(store: Store, name: str, as_of: int, now: int | None) -> list[SubjectAnswer]:
    """One question at `as_of`, answered for every subject."""
    each, bucket, subject = QUESTIONS[name]
    end = as_of - as_of % each
    question = Question(
        "host_cpu",
        "busy_ratio",
        (("site", ("hospital",)),),
        ("asset",),
        end - DAYS * DAY_MS,
        end,
        each,
        bucket,
        subject,
    )
    expectations = [Expectation((asset(n),), START - DAY_MS, ((0, 10),)) for n in range(SUBJECTS)]
    return answer_all(question, store.buckets(question, now), expectations, Bounds(1.0, 0.0))


def a_pass(
    store: Store, counter: Counter, title: str, as_of: int, now: int | None, limit: float
) -> dict[str, list[SubjectAnswer]]:
    """All questions once; prints what each took and read."""
    print(f"\n{title:30} {'wall s':>8} {'cpu s':>8} {'raw samples':>14} {'kept buckets':>14}")
    counter.take()
    answers, total, read = {}, Spent(0, 0), (0, 0)
    for name in QUESTIONS:
        wall, cpu = time.perf_counter(), time.process_time()
        answers[name] = ask(store, name, as_of, now)
        spent = Spent(time.perf_counter() - wall, time.process_time() - cpu)
        raw, from_kept = counter.take()
        total, read = Spent(total.wall + spent.wall, total.cpu + spent.cpu), (read[0] + raw, read[1] + from_kept)
        print(f"{name:30} {spent.wall:8.2f} {spent.cpu:8.2f} {raw:14,} {from_kept:14,}")
    print(
        f"{'together':30} {total.wall:8.2f} {total.cpu:8.2f} {read[0]:14,} {read[1]:14,}"
        f"   {total.wall / limit:.2f}x of the limit, by cpu {total.cpu / limit:.2f}x"
    )
    return answers


def keep(store: Store) -> None:
    """Has what was read kept, and says what that took."""
    wall, cpu = time.perf_counter(), time.process_time()
    chunks = store.keep()
    print(f"keep: {chunks} chunks, {time.perf_counter() - wall:.2f} s, cpu {time.process_time() - cpu:.2f} s")


def late(store: Store, now: int) -> None:
    """One asset's day of a week ago comes late."""
    moment = now - 7 * DAY_MS
    points = [Point("host_cpu", {"asset": asset(7)}, {"busy_ratio": 0.25}, moment + n * EVERY_MS) for n in range(288)]
    store.write([AppliedBatch("hospital", "gateway", "boot", 1, "boot/1", now, now, points, 0, ())])


def run(store: DuckDB, counter: Counter, size: Callable[[], int]) -> None:
    """Cold, warm an hour later, warm after late points, and the last one cold again, which must be the same."""
    before = size()
    as_of = START + DAYS * DAY_MS
    a_pass(store, counter, "cold", as_of, as_of + LATENESS_MS, COLD_LIMIT_SECONDS)
    keep(store)
    as_of += HOUR_MS
    a_pass(store, counter, "warm, an hour later", as_of, as_of + LATENESS_MS, WARM_LIMIT_SECONDS)
    keep(store)
    as_of += HOUR_MS
    late(store, as_of)
    warm = a_pass(store, counter, "warm, a day of one came late", as_of, as_of + LATENESS_MS, WARM_LIMIT_SECONDS)
    keep(store)
    connection = store._open().connection
    packed = sum(
        connection.rows(f"SELECT coalesce(sum(octet_length(places)), 0) * 3 FROM {table}")[0][0]
        for table in KEPT_TABLES
    )
    connection.run("CHECKPOINT")
    print(f"\nfile: {before / 1e6:.0f} MB of points, {size() / 1e6:.0f} MB with {packed / 1e6:.0f} MB of kept buckets")
    for table in KEPT_TABLES:
        connection.run(f"DELETE FROM {table}")
    cold = a_pass(store, counter, "the same, cold", as_of, None, COLD_LIMIT_SECONDS)
    print(f"\nwarm and cold are {'the same' if warm == cold else 'DIFFERENT'}")


def main() -> None:
    """Fills and asks in a temporary directory."""
    counter = counting()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.duckdb"
        with DuckDB(Config(path=str(path), memory_bytes=MEMORY_BYTES), catalogue.load()) as store:
            print(f"{fill(store):,} samples of {SUBJECTS:,} subjects over {DAYS} days, written as columns")
            run(store, counter, lambda: path.stat().st_size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
