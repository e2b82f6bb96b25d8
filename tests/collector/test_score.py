"""The arithmetic from subjects to the tree."""

import hashlib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from agent.catalogue import Text
from collector.evidence import CriterionResult, canonical_digest, worst_subjects
from collector.plan import SettledStep as Step
from collector.plan import Span
from collector.query import SubjectAnswer, Take, least_samples, percentile_rank, reduce, round9
from collector.rulebook import Basis, Counted, Index, Node, Rulebook, Rung, Scale
from collector.score import build_tree, cross, points

OWN = (Basis(source="own", confidence="own-judgement"),)
COVERAGE = Scale(
    title=Text("覆盖", "coverage"),
    unit="ratio",
    better="higher",
    rungs=(Rung(at=1.0, points=100, basis=OWN), Rung(at=0.8, points=70, basis=OWN), Rung(at=0.5, points=40, basis=OWN)),
)
UTILISATION = Scale(
    title=Text("利用率", "utilisation"),
    unit="ratio",
    better="lower",
    rungs=(Rung(at=0.5, points=100, basis=OWN), Rung(at=0.9, points=25, basis=OWN)),
)


@pytest.mark.parametrize(
    ("scale", "value", "earned"),
    [
        (COVERAGE, 1.0, 100),
        (COVERAGE, 0.999, 70),
        (COVERAGE, 0.8, 70),
        (COVERAGE, 0.49, 0),
        (UTILISATION, 0.5, 100),
        (UTILISATION, 0.51, 25),
        (UTILISATION, 0.91, 0),
    ],
)
def test_the_best_rung_met_wins_and_nothing_lies_between_rungs(scale: Scale, value: float, earned: float) -> None:
    assert points(scale, value) == earned


def test_a_line_is_straight_between_its_points_and_flat_outside() -> None:
    scale = Scale(title=Text("", ""), unit="seconds", better="lower", line=((10, 100), (20, 50), (40, 0)))
    assert [points(scale, value) for value in (0, 10, 15, 20, 30, 40, 99)] == [100, 100, 75, 50, 25, 0, 0]


def test_percentile_ranks_are_those_of_influxql() -> None:
    assert [percentile_rank(20, p) for p in (0, 1, 5, 50, 95, 99, 100)] == [0, 0, 1, 10, 19, 20, 20]


def test_a_missing_bucket_takes_the_bound_and_a_share_divides_by_what_was_due() -> None:
    assert reduce(Take("mean"), [1.0, 1.0], 4, 0.0, False) == 0.5
    assert reduce(Take("percentile", p=95), [0.1] * 10, 12, 1.0, False) == 1.0
    assert reduce(Take("share", operator=">=", threshold=1), [1.0, 1.0, 0.0], 4, 0.0, False) == 0.5
    assert reduce(Take("share", operator=">=", threshold=1), [1.0, 1.0, 0.0], 4, 1.0, True) == 0.75


def test_known_values_alone_ignore_what_is_missing() -> None:
    assert reduce(Take("mean"), [1.0, 0.0], 4, None, False) == 0.5
    assert reduce(Take("max"), [], 4, None, False) is None


def test_a_bucket_may_lack_a_tenth_of_its_samples_and_one_more() -> None:
    assert [least_samples(300_000, interval) for interval in (15, 60, 100, 300)] == [17, 4, 2, 1]


def test_nine_digits_make_the_same_number_of_two_sums() -> None:
    assert round9(0.1 + 0.2) == round9(0.3)


def test_four_hundred_switches_weigh_as_one_asset_group() -> None:
    numbers = {("core", str(port)): Span(0.0, 0.0) for port in range(400)} | {("edge", "1"): Span(1.0, 1.0)}
    steps = (Step(Take("mean"), ("asset",)), Step(Take("mean"), ()))
    assert cross(("asset", "interface"), numbers, steps) == {(): Span(0.5, 0.5)}


def test_without_a_subject_there_is_no_number() -> None:
    assert cross(("asset",), {}, (Step(Take("min"), ()),)) == {}


def result(name: str, low: float, high: float, status: str = "scored", coverage: float = 1.0) -> CriterionResult:
    return CriterionResult(
        id=name, title=Text("", ""), kind="measured", status=status, weight=0, effective_weight=0, low=low, high=high,  # type: ignore[arg-type]
        coverage=coverage, value=None, best_value=None, provisional=None, unit="ratio", query=None, window=None, expected=0, found=0, samples=0,
        subjects=0, worst=(), reason=None, digest="",
    )  # fmt: skip


def book(*leaves: Node) -> Rulebook:
    top = Node(id="top", zh="顶", en="top", weight=1.0, children=leaves)
    return Rulebook({}, {}, {}, Index(title=Text("", ""), source="own", tree=(top,)), "x", {}, {})


def test_a_node_is_the_weighted_sum_of_its_children_and_criteria() -> None:
    left = Node(
        id="left", zh="左", en="left", weight=0.25, criteria=(Counted(id="a", weight=0.4), Counted(id="b", weight=0.6))
    )
    right = Node(id="right", zh="右", en="right", weight=0.75)
    total, nodes = build_tree(book(left, right), {"a": result("a", 50, 80), "b": result("b", 100, 100)}, {})
    assert [(node.id, node.low, node.high, node.status) for node in nodes] == [
        ("top", 20.0, 98.0, "scored"),
        ("top.left", 80.0, 92.0, "scored"),
        ("top.right", 0.0, 100.0, "no_data"),
    ]
    assert (total.low, total.high, total.coverage) == (20.0, 98.0, 0.25)
    assert [(criterion.id, criterion.effective_weight) for criterion in nodes[1].criteria] == [("a", 0.4), ("b", 0.6)]


def answer(name: str, worst: float, best: float) -> SubjectAnswer:
    return SubjectAnswer((name,), worst, best, worst, 10, 9, 90)


def test_the_digest_does_not_depend_on_the_order_of_rows() -> None:
    rows = [answer("b", 0.1, 0.2), answer("a", 0.3, 0.4)]
    assert canonical_digest(rows) == canonical_digest(rows[::-1]) != canonical_digest(rows[:1])
    canonical = b'[[["a"],0.3,0.4,0.3,10,9,90],[["b"],0.1,0.2,0.1,10,9,90]]'
    assert canonical_digest(rows) == hashlib.sha256(canonical).hexdigest()


def test_the_worst_subjects_come_first_by_the_direction_of_their_number() -> None:
    rows = [answer("a", 0.5, 0.5), answer("b", 0.1, 0.9), answer("c", 0.9, 0.9)]
    assert [worst.subject["asset"] for worst in worst_subjects(("asset",), rows, True)] == ["b", "a", "c"]
    assert [worst.subject["asset"] for worst in worst_subjects(("asset",), rows, False)] == ["c", "a", "b"]


TAKES = st.sampled_from(
    [Take("mean"), Take("min"), Take("max"), Take("percentile", p=90), Take("share", operator=">=", threshold=0.5)]
)


@given(
    values=st.lists(st.integers(0, 64).map(lambda step: step / 64), min_size=1, max_size=30),
    keep=st.data(),
    take=TAKES,
)
def test_removing_buckets_never_raises_the_worst_reading_nor_lowers_the_best(
    values: list[float], keep: st.DataObject, take: Take
) -> None:
    kept = keep.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    left = [value for value, stays in zip(values, kept, strict=True) if stays]
    whole = (reduce(take, values, len(values), 0.0, False), reduce(take, values, len(values), 1.0, True))
    holed = (reduce(take, left, len(values), 0.0, False), reduce(take, left, len(values), 1.0, True))
    assert holed[0] is None or whole[0] is None or holed[0] <= whole[0]
    assert holed[1] is None or whole[1] is None or holed[1] >= whole[1]
