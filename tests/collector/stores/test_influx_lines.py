"""Many points become lines at one blow; each says what the point says, however they follow one another."""

import itertools
import re
from collections.abc import Sequence

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from influxstore import config_of
from linkstore import CATALOGUE, START, batch, point
from servers import Influx

from agent.points import Point
from collector.query import HOUR_MS
from collector.stores._influx_http import Door
from collector.stores._influx_records import LAST_MS
from collector.stores._influx_series import SeriesMemory
from collector.stores._influx_text import field_text, numbers_texts, tags_text
from collector.stores._influx_write import PointWriter
from collector.stores.influxdb import Store

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
EXTREMES = [0.0, -0.0, 5e-324, 1e-7, 0.1, 1e15, 1e16, 1e22, 123456789012345680.0, 1.7976931348623157e308, -2.5e-310]
TIMES = st.sampled_from([-HOUR_MS - 1, -HOUR_MS, -1, 0, 1, 7, HOUR_MS - 1, HOUR_MS, LAST_MS + 1 - START, -START - 1])
TAGS = [{"interface": "eth0"}, {"interface": "eth1", "lane": "a b"}, {"lane": "a b", "interface": "eth1"}, {}]
FIELDS = st.fixed_dictionaries(
    {}, optional={"busy_ratio": FLOATS, "is_up": FLOATS, "alias": st.text('ab" ,={}:\\', max_size=4)}
).filter(bool)
POINTS = st.lists(
    st.one_of(
        st.builds(lambda at, tags, fields: point(at, tags=tags, **fields), TIMES, st.sampled_from(TAGS), FIELDS),
        st.builds(lambda at, count: point(at, name="alarm", tags={}, raised_count=count), TIMES, FLOATS),
    ),
    max_size=8,
)
numbers = itertools.count()


@given(st.lists(st.dictionaries(st.from_regex("[a-z][a-z0-9_]{0,8}", fullmatch=True), FLOATS), max_size=5))
@example([{"a": number} for number in EXTREMES])
def test_numbers_are_read_back_as_the_same_floats(points: list[dict[str, float]]) -> None:
    texts = numbers_texts(points)
    assert len(texts) == len(points)
    for text, fields in zip(texts, points, strict=True):
        read = dict(part.split("=") for part in text.split(",")) if text else {}
        assert {name: number.hex() for name, number in fields.items()} == {
            name: float(number).hex() for name, number in read.items()
        }


def test_the_server_reads_every_number_as_it_was(influx: Influx, database: str) -> None:
    points = [point(at, busy_ratio=number) for at, number in enumerate(EXTREMES)]
    with Store(config_of(influx, database), CATALOGUE) as store:
        for seq, one in enumerate(points):
            store.write([batch(seq, one)])
            (row,) = store.latest("link", START)
            assert row.fields == one.fields


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(POINTS, max_size=3), min_size=1, max_size=3))
def test_lines_hours_and_first_sights_are_those_of_every_point_by_itself(
    influx: Influx, database: str, writes: list[list[list[Point]]]
) -> None:
    with Door(config_of(influx, database).place({})) as door:
        series = SeriesMemory(door)
        series.load({("main", "link"), ("main", "alarm")})
    writer = PointWriter(CATALOGUE, series)
    first: dict[tuple[str, str], int] = {}
    for write in writes:
        batches = [batch(next(numbers), *points, agent=f"gw-{place}") for place, points in enumerate(write)]
        made = writer.lines(batches)
        sent = [(one.agent, point) for one in batches for point in one.points]
        timely = [(agent, point) for agent, point in sent if 0 <= point.timestamp <= LAST_MS]
        assert [_plain(line) for line in made.lines] == [_line(agent, point) for agent, point in timely]
        assert made.timeless == len(sent) - len(timely)
        touched = {(_name(agent, point), point.timestamp // HOUR_MS) for agent, point in timely}
        assert {((one.measurement, one.key), hour) for one, hour in made.cells} == touched
        assert made.hours == {("main", measurement, hour * HOUR_MS) for (measurement, _), hour in touched}
        for agent, point_ in timely:
            name = _name(agent, point_)
            first[name] = min(point_.timestamp, first.get(name, LAST_MS))
        assert {(one.measurement, one.key): one.first for one, _ in made.cells} == {
            name: first[name] for name, _ in touched
        }
        assert all(one.hour_end > hour * HOUR_MS for one, hour in made.cells)


def _name(agent: str, point: Point) -> tuple[str, str]:
    tags = {"agent": agent, **point.tags}
    return point.name, "{" + ",".join(f'"{tag}":"{value}"' for tag, value in sorted(tags.items())) + "}"


def _line(agent: str, point: Point) -> Sequence[object]:
    tags = tags_text({"site": "main", "agent": agent, **point.tags})
    texts = {name: field_text(value) for name, value in point.fields.items() if isinstance(value, str)}
    values = {name: value for name, value in point.fields.items() if not isinstance(value, str)}
    return [f"{point.name}{tags}", list(point.fields), texts, values, f"{point.timestamp}000000"]


_FIELD = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^,]*)(?:,|$)', re.DOTALL)


def _plain(line: str) -> Sequence[object]:
    """A line taken apart: series, names of the fields, its texts, its numbers, time."""
    found = re.fullmatch(r"((?:[^ \\]|\\.)+) (.*) ([0-9]+)", line, re.DOTALL)
    assert found
    fields = dict(_FIELD.findall(found[2]))
    texts = {name: value for name, value in fields.items() if value.startswith('"')}
    values = {name: float(value) for name, value in fields.items() if name not in texts}
    return [found[1], list(fields), texts, values, found[3]]
