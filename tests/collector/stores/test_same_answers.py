"""One question, one answer: DuckDB and InfluxDB give the same buckets to the last bit, and so the same digests."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from influxstore import config_of
from linkstore import CATALOGUE, MINUTE_MS, START, batch, point
from servers import Influx

from collector.evidence import canonical_digest
from collector.numbers import answer_all
from collector.query import HOUR_MS, Bounds, Expectation, Question, Take
from collector.stores import Store
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB
from collector.stores.influxdb import Store as InfluxDB

TAKES = [
    *(Take(by) for by in ("mean", "min", "max", "last", "sum", "count")),
    *(Take("percentile", p=p) for p in (0.0, 1.0, 5.0, 50.0, 95.0, 99.9, 100.0)),
    *(
        Take("share", operator=operator, threshold=threshold)
        for operator in ("<", "<=", ">", ">=", "==")
        for threshold in (40.0, -0.5, 1e-7)
    ),
]
SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["", "1", "2"]),
        st.integers(0, 6 * 60 * 2 - 1).map(lambda half_minute: half_minute * 30_000),
        st.one_of(st.sampled_from([40.0, 0.0, -0.5]), st.integers(-(2**30), 2**30).map(lambda step: step / 1024)),
    ),
    min_size=1,
    max_size=80,
)
EDGES = [(), tuple(START + hour * HOUR_MS for hour in (0, 2, 3, 5))]
"""Even buckets, and days of which one is shorter."""
sites = itertools.count()


@pytest.fixture
def both(tmp_path: Path, influx: Influx, database: str) -> Iterator[tuple[Store, Store]]:
    with (
        DuckDB(Config(path=str(tmp_path / "store.duckdb")), CATALOGUE) as duckdb,
        InfluxDB(config_of(influx, database), CATALOGUE) as influxdb,
    ):
        yield duckdb, influxdb


def digest(store: Store, question: Question) -> str:
    expectations = [Expectation((asset, lane), 0, ((0, 1),)) for asset in "abc" for lane in ("", "1", "2")]
    return canonical_digest(answer_all(question, store.buckets(question), expectations, Bounds(100.0, 0.0)))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    parts=st.lists(SAMPLES, min_size=1, max_size=3),
    per=st.sampled_from([("asset", "lane"), ("lane", "asset"), ("asset",), ()]),
    each=st.sampled_from([MINUTE_MS, 5 * MINUTE_MS, 7 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS]),
    edges=st.sampled_from(EDGES),
    shift=st.integers(0, 40),
)
def test_every_reduction_gives_the_same_buckets_and_the_same_digest(
    both: tuple[Store, Store],
    parts: list[list[tuple[str, str, int, float]]],
    per: tuple[str, ...],
    each: int,
    edges: tuple[int, ...],
    shift: int,
) -> None:
    site = f"site-{next(sites)}"
    for seq, samples in enumerate(parts):
        points = [point(at, asset, tags={"lane": lane}, busy_ratio=value) for asset, lane, at, value in samples]
        for store in both:
            store.write([batch(seq, *points)._replace(site=site)])
    start = START if edges else START + shift * MINUTE_MS
    plain = Question(
        "link", "busy_ratio", (("site", (site,)),), per, start, START + 6 * HOUR_MS, each, TAKES[0], Take("mean"), edges
    )
    for take in TAKES:
        question = msgspec.structs.replace(plain, bucket=take)
        expected, found = (
            {
                subject: [one.positions.tolist(), [value.hex() for value in one.values], one.samples.tolist()]
                for subject, one in store.buckets(question).items()
            }
            for store in both
        )
        assert found == expected, take
        if len(per) == 2:
            assert digest(both[0], question) == digest(both[1], question)
