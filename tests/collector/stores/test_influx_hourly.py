"""The hourly pass over InfluxDB reads one hour of raw points, and kept buckets for the rest.

Counted is what the server says that it read: the samples of every bucket that a statement about raw points returned.
"""

from collections.abc import Iterator, Sequence

import msgspec
import pytest
from influxstore import config_of
from linkstore import CATALOGUE, MINUTE_MS, START, ask, batch, point
from servers import Influx

from collector.query import DAY_MS, HOUR_MS, Question, Take
from collector.stores import LATENESS_MS, AppliedBatch
from collector.stores._influx_http import Rows
from collector.stores.influxdb import Store

ASSETS = 15
HOURS = 50
A_DAY = Question(
    "link",
    "busy_ratio",
    (),
    ("asset",),
    START,
    START + DAY_MS,
    DAY_MS,
    Take("max"),
    Take("mean"),
    (START,),
)
QUESTIONS = [
    ask(Take("mean"), per=("asset",)),
    ask(Take("percentile", p=95), per=("asset",), each_ms=HOUR_MS),
    ask(Take("share", operator=">", threshold=50.0), per=("asset",)),
    ask(Take("last"), per=("asset", "interface"), each_ms=HOUR_MS),
]


def hour_of(number: int) -> AppliedBatch:
    """The points of one hour, a minute apart, received at its end."""
    start = number * HOUR_MS
    points = [
        point(start + minute * MINUTE_MS, f"a-{asset}", busy_ratio=float((asset * 7 + minute) % 100))
        for asset in range(ASSETS)
        for minute in range(60)
    ]
    return batch(number, *points)._replace(received_at=START + start + HOUR_MS - 1, made_at=START + start)


def pass_at(store: Store, hour: int, window: int) -> list[object]:
    """What the evaluation of a full hour asks: the last `window` hours, and the day before the last midnight."""
    as_of = START + hour * HOUR_MS
    midnight = as_of - as_of % DAY_MS
    asked = [msgspec.structs.replace(one, start=as_of - window * HOUR_MS, end=as_of) for one in QUESTIONS] + [
        msgspec.structs.replace(A_DAY, start=midnight - DAY_MS, end=midnight, edges=(midnight - DAY_MS,))
    ]
    answers = [
        {
            subject: [part.tolist() for part in found]
            for subject, found in store.buckets(question, as_of + LATENESS_MS).items()
        }
        for question in asked
    ]
    store.keep()
    return answers


@pytest.fixture
def counted(influx: Influx, database: str) -> Iterator[tuple[Store, list[int]]]:
    """A store with two days of points, and the samples in every bucket that its statements about raw points return."""
    samples: list[int] = []
    with Store(config_of(influx, database), CATALOGUE) as store:
        store.write([hour_of(number) for number in range(HOURS - 1)])
        ask_server = store._open.ask

        def count(statements: Sequence[str]) -> Iterator[Rows]:
            for rows in ask_server(statements):
                if 'FROM "link"' in statements[rows.statement]:
                    samples.append(sum(int(values[-1]) for values in rows.values))
                yield rows

        store._open.ask = count  # type: ignore[method-assign]
        yield store, samples


def test_hourly_pass_reads_one_hour_of_raw_points(counted: tuple[Store, list[int]]) -> None:
    store, samples = counted
    an_hour = ASSETS * 60
    pass_at(store, HOURS - 1, window=24)
    assert sum(samples) >= len(QUESTIONS) * 24 * an_hour, "the first pass reads everything"
    store.write([hour_of(HOURS - 1)])
    samples.clear()
    warm = pass_at(store, HOURS, window=24)
    share_again = an_hour  # a share is two counts
    assert len(QUESTIONS) * an_hour <= sum(samples) <= len(QUESTIONS) * an_hour + share_again
    store._fresh.take()
    samples.clear()
    assert pass_at(store, HOURS, window=24) == warm
    assert samples == [], "asked again, nothing raw is read"


def test_late_points_cost_the_hours_and_assets_that_they_reach(counted: tuple[Store, list[int]]) -> None:
    store, samples = counted
    pass_at(store, HOURS - 1, window=24)
    late = batch(100, point(40 * HOUR_MS + 1, "a-3", busy_ratio=99.0))
    store.write([late._replace(received_at=START + HOURS * HOUR_MS)])
    samples.clear()
    pass_at(store, HOURS - 1, window=24)
    an_hour, a_day = 61, 24 * 60 + 1  # of that asset; a share is two counts
    assert 0 < sum(samples) <= (len(QUESTIONS) + 1) * an_hour + a_day
