"""The short form of `make chaos`: every part of a small hospital dies, and everything that was made is accounted for, by the product's own word too."""

from pathlib import Path

from chaos.breaking import KINDS, hurt, plan


def test_killed_parts_cost_nothing(tmp_path: Path) -> None:
    outcome = hurt(tmp_path, seed=24, seconds=24, agents=6, least_kills=1)
    assert outcome.complaints() == []
    assert outcome.counts.set_aside.points > 0, "the stranger's points should have been set aside"
    assert outcome.books.product == outcome.books.counted
    assert outcome.books.product.made.batches > 0
    assert outcome.counts.dropped.points > 0, "the store was away for longer than the first agent keeps its points"


def test_plan_is_the_seed_s() -> None:
    assert plan(7, 180) == plan(7, 180)
    assert plan(7, 180) != plan(8, 180)
    assert all(sum(kill.kind == kind for kill in plan(7, 180)) >= 5 for kind in KINDS)
