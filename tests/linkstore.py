"""What the tests of every store write and ask: links and alarms of a small catalogue, in minutes after START."""

from collections.abc import Iterable, Sequence

from agent.catalogue import Catalogue, Field, Measurement, Tag
from agent.points import Point, Value
from collector.numbers import answer_all
from collector.query import Bounds, Expectation, Question, SubjectAnswer, Take
from collector.stores import AppliedBatch, BatchName, Instant, Store

START = 1_760_054_400_000
MINUTE_MS = 60_000
GAUGE = Field(kind="gauge", zh="值", en="value", range=(0, 100), resolution="2^-10")
STATE = Field(kind="state", zh="状态", en="state", range=(0, 1), resolution="2^0")
EVENT = Field(kind="event", zh="事件", en="event", range=(0, None), resolution="2^0")
LABEL = Field(kind="label", zh="文本", en="text")


def link(**fields: Field) -> Measurement:
    return Measurement(
        zh="链路",
        en="link",
        interval_seconds=60,
        staleness_seconds=180,
        retention_days=30,
        tags={"interface": Tag(zh="接口", en="interface"), "lane": Tag(zh="通道", en="lane")},
        fields={"busy_ratio": GAUGE, "is_up": STATE, "alias": LABEL, **fields},
    )


def alarm() -> Measurement:
    return Measurement(
        zh="告警",
        en="alarm",
        interval_seconds=60,
        staleness_seconds=180,
        retention_days=90,
        fields={"raised_count": EVENT},
    )


CATALOGUE = Catalogue({"link": link(), "alarm": alarm()}, {})


def point(
    at: int, asset: str = "core-1", name: str = "link", tags: dict[str, str] | None = None, **fields: Value
) -> Point:
    """A point `at` milliseconds after START."""
    return Point(name, {"asset": asset, **(tags if tags is not None else {"interface": "eth0"})}, fields, START + at)


def batch(
    seq: int, *points: Point, agent: str = "gw-1", boot: str = "b1", dropped: Sequence[tuple[str, int, int, int]] = ()
) -> AppliedBatch:
    made_at = START + seq
    return AppliedBatch("main", agent, boot, seq, f"{boot}/{seq}", made_at, made_at + 5, points, 0, dropped)


def applied(store: Store, identities: Iterable[str], agent: str = "gw-1") -> set[str]:
    """Which of these batches of an agent have their row, when nobody knows when they were made."""
    return {name.identity for name in store.applied({BatchName("main", agent, one): None for one in identities})}


def ask(
    bucket: Take | None = None,
    subject: Take | None = None,
    field: str = "busy_ratio",
    buckets: int = 4,
    where: tuple[tuple[str, tuple[str, ...]], ...] = (),
    per: tuple[str, ...] = ("asset", "interface"),
    measurement: str = "link",
    each_ms: int = 5 * MINUTE_MS,
) -> Question:
    """A question over so many 5-minute buckets from START."""
    end = START + buckets * each_ms
    return Question(
        measurement,
        field,
        where,
        per,
        START,
        end,
        each_ms,
        bucket or Take("mean"),
        subject or Take("mean"),
    )


def answer(
    store: Instant, question: Question, expectations: Sequence[Expectation], bounds: Bounds
) -> list[SubjectAnswer]:
    """What follows from the store's buckets for each expectation."""
    return answer_all(question, store.buckets(question), expectations, bounds)


def expect(*subject: str, least: int = 1, since: int = 0, until: int = 2**62) -> Expectation:
    return Expectation(subject, since, ((0, least),), until)


ETH0 = expect("core-1", "eth0")
HIGH_IS_BAD = Bounds(worst=100.0, best=0.0, share_is_good=False)


def every_minute(count: int, value: float = 50.0, asset: str = "core-1", start: int = 0) -> list[Point]:
    return [point((start + minute) * MINUTE_MS, asset, busy_ratio=value) for minute in range(count)]
