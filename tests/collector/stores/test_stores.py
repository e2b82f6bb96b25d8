"""What every store must do: write once, remember, count, forget in time. Questions stand in test_answers.py."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from linkstore import (
    CATALOGUE,
    ETH0,
    GAUGE,
    HIGH_IS_BAD,
    MINUTE_MS,
    START,
    alarm,
    answer,
    applied,
    ask,
    batch,
    every_minute,
    link,
    point,
)

from agent.catalogue import Catalogue
from agent.points import Point
from collector.query import DAY_MS, HOUR_MS, SubjectAnswer, Take
from collector.stores import Account, AppliedBatch, Hole, Period, ScorecardRow, Store, StoredScorecard
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB

Opener = Callable[[Catalogue], AbstractContextManager[Store]]
"""Opens the same store again and again, as restarts do."""


# -- writing


def test_mean_of_buckets_is_found_again_after_writing(store: Store) -> None:
    store.write([batch(0, *every_minute(10, 20.0), *every_minute(10, 40.0, start=10))])
    assert answer(store, ask(), [ETH0], HIGH_IS_BAD) == [
        SubjectAnswer(("core-1", "eth0"), at_worst=30.0, at_best=30.0, known=30.0, expected=4, found=4, samples=20)
    ]


def test_batch_that_comes_again_is_not_written_again(store: Store) -> None:
    one = batch(0, *every_minute(5))
    store.write([one])
    store.write([one])
    assert [(total.batches, total.points) for total in store.totals()] == [(1, 5)]
    assert answer(store, ask(Take("count"), Take("sum")), [ETH0], HIGH_IS_BAD)[0].known == 5.0


def test_batch_twice_in_one_call_is_written_once(store: Store) -> None:
    one = batch(0, *every_minute(5))
    store.write([one, one])
    assert [(total.batches, total.points) for total in store.totals()] == [(1, 5)]


def test_batch_that_comes_again_after_a_restart_is_not_written_again(opener: Opener) -> None:
    one = batch(0, *every_minute(5))
    with opener(CATALOGUE) as store:
        store.write([one])
    with opener(CATALOGUE) as store:
        store.write([one])
        assert [(total.batches, total.points) for total in store.totals()] == [(1, 5)]


def test_foreign_batch_is_known_by_its_digest(store: Store) -> None:
    foreign = AppliedBatch("main", "telegraf", "", -1, "9f" * 32, START, START, every_minute(2), 0, ())
    store.write([foreign, foreign])
    store.write([foreign])
    assert [(total.batches, total.points) for total in store.totals()] == [(1, 2)]
    assert applied(store, ["9f" * 32, "00" * 32], "telegraf") == {"9f" * 32}


def test_applied_names_the_batches_that_have_their_row(store: Store) -> None:
    store.write([batch(0, point(0, busy_ratio=1.0)), batch(2, point(1, busy_ratio=1.0))])
    assert applied(store, ["b1/0", "b1/1", "b1/2", "b2/0"]) == {"b1/0", "b1/2"}
    assert applied(store, ["b1/0"], "gw-2") == set()


def test_applied_is_remembered_across_a_restart_with_its_gaps(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        store.write([batch(seq, point(seq, busy_ratio=1.0)) for seq in (0, 1, 4, 5, 9)])
    with opener(CATALOGUE) as store:
        known = applied(store, [f"b1/{seq}" for seq in range(11)])
        assert known == {"b1/0", "b1/1", "b1/4", "b1/5", "b1/9"}


def test_batch_without_points_has_its_row(store: Store) -> None:
    store.write([batch(0)])
    assert applied(store, ["b1/0"]) == {"b1/0"}


# -- one identity twice


def test_point_that_comes_again_in_another_batch_counts_once(store: Store) -> None:
    store.write([batch(0, *every_minute(5))])
    store.write([batch(1, *every_minute(5))])
    assert answer(store, ask(Take("count"), Take("sum")), [ETH0], HIGH_IS_BAD)[0].known == 5.0


def test_later_write_wins_field_by_field(store: Store) -> None:
    store.write([batch(0, point(0, busy_ratio=10.0, is_up=1.0)), batch(1, point(0, busy_ratio=30.0))])
    assert answer(store, ask(), [ETH0], HIGH_IS_BAD)[0].known == 30.0
    assert answer(store, ask(field="is_up"), [ETH0], HIGH_IS_BAD)[0].known == 1.0
    assert store.latest("link", START)[0].fields == {"busy_ratio": 30.0, "is_up": 1.0}


def test_later_point_of_one_batch_wins_whatever_fields_came_between(store: Store) -> None:
    store.write([batch(0, point(0, is_up=1.0), point(0, busy_ratio=9.0, is_up=0.0), point(0, is_up=1.0))])
    assert answer(store, ask(field="is_up"), [ETH0], HIGH_IS_BAD)[0].known == 1.0


def test_later_write_wins_across_a_restart(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        store.write([batch(0, point(0, busy_ratio=10.0), point(MINUTE_MS, busy_ratio=10.0))])
    with opener(CATALOGUE) as store:
        store.write([batch(1, point(0, busy_ratio=30.0))])
        assert answer(store, ask(), [ETH0], HIGH_IS_BAD)[0].known == 20.0


def test_doubles_in_many_scattered_hours_count_once(store: Store) -> None:
    hours = [*range(0, 60, 2), *range(70, 90), 97]
    points = [point(hour * HOUR_MS + part, busy_ratio=1.0) for hour in range(100) for part in (0, 1)]
    again = [point(hour * HOUR_MS, busy_ratio=1.0) for hour in hours]
    store.write([batch(0, *points), batch(1, *again)])
    counts = [
        answer(store, ask(Take("count"), Take(by), buckets=100, each_ms=HOUR_MS), [ETH0], HIGH_IS_BAD)[0].known
        for by in ("sum", "max")
    ]
    assert counts == [200.0, 2.0]


def test_doubles_are_still_one_after_pruning(store: Store) -> None:
    store.write([batch(0, *every_minute(5)), batch(1, *every_minute(5)), batch(2, *every_minute(5, start=60))])
    store.prune(START + DAY_MS)
    assert answer(store, ask(Take("count"), Take("sum")), [ETH0], HIGH_IS_BAD)[0].known == 5.0


def test_double_after_pruning_is_seen(store: Store) -> None:
    store.write([batch(0, *every_minute(5, start=5)), batch(1, *every_minute(5))])
    store.prune(START + DAY_MS)
    store.write([batch(2, *every_minute(5))])
    assert answer(store, ask(Take("count"), Take("sum")), [ETH0], HIGH_IS_BAD)[0].known == 10.0


# -- what is known


def test_subjects_remember_first_and_last_sight_and_who_reported_first(store: Store) -> None:
    store.write([batch(0, point(HOUR_MS, busy_ratio=1.0), agent="gw-2")])
    store.write([batch(0, point(0, busy_ratio=1.0)), batch(1, point(3 * HOUR_MS, busy_ratio=1.0))])
    (known,) = store.subjects("link", ("asset",), {}, START + DAY_MS)
    assert (known.subject, known.first_seen, known.agent) == (("core-1",), START, "gw-1")
    assert 0 <= START + 3 * HOUR_MS - known.last_seen < HOUR_MS


def test_subjects_are_those_seen_until_then_and_wanted(store: Store) -> None:
    store.write([batch(0, point(0, "b", busy_ratio=1.0), point(1, "a", busy_ratio=1.0), point(9, "c", busy_ratio=1.0))])
    assert [one.subject for one in store.subjects("link", ("asset",), {}, START + 1)] == [("a",), ("b",)]
    assert [one.subject for one in store.subjects("link", ("asset",), {"asset": ["b", "c"]}, START + 1)] == [("b",)]
    assert store.subjects("alarm", ("asset",), {}, START + 1) == []
    assert store.subjects("alarm", (), {}, START + 1) == []


def test_subjects_outlive_a_restart_and_their_samples(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        store.write([batch(0, point(0, busy_ratio=1.0))])
        store.prune(START + 365 * DAY_MS)
    with opener(CATALOGUE) as store:
        assert [one.first_seen for one in store.subjects("link", ("asset", "interface"), {}, START)] == [START]


def test_first_reporter_owns_an_asset_for_good(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        store.write([batch(0, point(0, busy_ratio=1.0)), batch(0, point(0, busy_ratio=1.0), agent="gw-2")])
    with opener(CATALOGUE) as store:
        store.write([batch(1, point(1, "core-2", busy_ratio=1.0), point(1, busy_ratio=1.0), agent="gw-2")])
        assert store.owners("main") == {"core-1": "gw-1", "core-2": "gw-2"}
        assert store.owners("elsewhere") == {}


def test_latest_is_the_newest_row_of_each_series_with_its_label(store: Store) -> None:
    store.write(
        [batch(0, point(0, busy_ratio=1.0), point(5, busy_ratio=2.0, alias="to core"), point(3, "a", is_up=1.0))]
    )
    assert [(row.tags["asset"], row.fields, row.timestamp - START) for row in store.latest("link", START)] == [
        ("a", {"is_up": 1.0}, 3),
        ("core-1", {"busy_ratio": 2.0, "alias": "to core"}, 5),
    ]
    newest = store.latest("link", START + 4)
    assert [row.tags for row in newest] == [{"site": "main", "agent": "gw-1", "asset": "core-1", "interface": "eth0"}]


def test_what_happened_is_every_row_of_the_site_newest_first_and_no_more_than_asked(store: Store) -> None:
    def event(at: int, raised: float, asset: str = "core-1") -> Point:
        return point(at, asset, "alarm", {}, raised_count=raised)

    elsewhere = batch(0, event(9, 9.0))._replace(site="elsewhere")
    store.write([batch(0, event(5, 1.0), event(7, 2.0), event(6, 3.0, "a"), event(-1, 4.0)), elsewhere])
    store.write([batch(1, event(5, 5.0))])
    found = store.happened("main", "alarm", START, 10)
    seen = [(row.tags["asset"], row.fields["raised_count"], row.timestamp - START) for row in found]
    assert seen == [("core-1", 2.0, 7), ("a", 3.0, 6), ("core-1", 5.0, 5)], "what was sent again counts as it was last"
    assert store.happened("main", "alarm", START, 2) == found[:2]
    assert store.happened("main", "alarm", START + 8, 10) == store.happened("nowhere", "alarm", 0, 10) == []


# -- the ledger


def test_totals_count_batches_and_points_per_agent(store: Store) -> None:
    one = AppliedBatch("main", "gw-2", "b9", 0, "b9/0", START, START + 9, [point(0, busy_ratio=1.0)], 3, ())
    store.write([batch(0, *every_minute(3)), batch(1, *every_minute(2, start=3)), one])
    first, second = store.totals()
    assert (first.agent, first.batches, first.points, first.set_aside, first.holes) == ("gw-1", 2, 5, 0, ())
    assert (second.agent, second.points, second.set_aside) == ("gw-2", 1, 3)
    assert (second.last_made_at, second.last_received_at) == (START, START + 9)


def test_holes_are_what_neither_came_nor_was_announced(store: Store) -> None:
    store.write([batch(seq) for seq in (2, 3, 7)])
    store.write([batch(12, dropped=[("b1", 4, 5, 80), ("b0", 0, 3, 40)])])
    (total,) = store.totals()
    assert list(total.holes) == [("b1", 0, 1), ("b1", 6, 6), ("b1", 8, 11)]
    assert total.dropped == 120


def test_hole_is_closed_when_the_batch_comes(store: Store) -> None:
    store.write([batch(0), batch(2)])
    store.write([batch(1)])
    assert list(store.totals()[0].holes) == []


def test_repeated_and_grown_announcement_is_counted_once(store: Store) -> None:
    store.write([batch(5, dropped=[("b1", 0, 2, 30)]), batch(6, dropped=[("b1", 0, 2, 30)])])
    store.write([batch(7, dropped=[("b1", 0, 4, 50)])])
    (total,) = store.totals()
    assert (total.dropped, list(total.holes)) == (50, [])


def test_account_sums_what_was_made_within_its_period(store: Store) -> None:
    store.write([batch(seq, *every_minute(seq + 1, start=10 * seq)) for seq in range(5)])
    aside = batch(5)._replace(set_aside=7)
    store.write([aside, batch(9, boot="", agent="telegraf")._replace(identity="ab")])
    found = store.accounts("main", {"gw-1": Period(START + 1, START + 5), "gw-9": Period(0, START)})
    assert found["gw-1"] == Account(5, 2 + 3 + 4 + 5, 7, 1, earlier_batches=1)
    assert found["gw-9"] == Account()
    assert store.accounts("elsewhere", {"gw-1": Period(0, START + 5)}) == {"gw-1": Account()}
    early = store.accounts("main", {"gw-1": Period(0, START + 1)})["gw-1"]
    assert (early.later_batches, early.undated_batches, early.undated_points) == (4, 1, 7)


def test_account_names_holes_with_what_came_after_them(store: Store) -> None:
    store.write([batch(seq, *every_minute(2)) for seq in (0, 1, 4, 6)])
    store.write([batch(seq, *every_minute(2), boot="b2") for seq in (20, 22)])
    (account,) = store.accounts("main", {"gw-1": Period(START, START + 21)}).values()
    assert list(account.holes) == [
        Hole("b1", 2, 3, START + 4),
        Hole("b1", 5, 5, START + 6),
        Hole("b2", 0, 19, START + 20),
    ]


def test_account_tells_what_came_and_was_announced_as_dropped_all_the_same(store: Store) -> None:
    lost = [("b1", 1, 2, 20), ("b1", 1, 4, 40), ("b0", 7, 7, 1)]
    store.write([batch(0, *every_minute(2)), batch(3, *every_minute(9)), batch(5, *every_minute(2), dropped=lost)])
    store.write([batch(7 - 1_000_000, *every_minute(2), boot="b0")._replace(seq=8)])
    (account,) = store.accounts("main", {"gw-1": Period(START, START + 5)}).values()
    assert (account.batches, account.dropped_batches, account.dropped_points) == (3, 1, 9)
    assert account.announced_batches == 4, "what another account announced is not among them"
    assert (account.earlier_batches, account.holes) == (1, ())
    later = store.accounts("main", {"gw-1": Period(START + 5, START + 9)})["gw-1"]
    assert later.announced_batches == 0, "nor what the same boot announced in the account before"


def test_scorecard_revision_is_known_by_its_digest(store: Store) -> None:
    revisions = [
        store.save_scorecard("main", START, digest, digest.encode(), START + 1) for digest in ("d1", "d2", "d1")
    ]
    assert revisions == [1, 2, 1]
    assert store.save_scorecard("main", START + HOUR_MS, "d1", b"x", START + 2) == 1
    assert [
        (card.as_of - START, card.revision, card.digest, card.body) for card in store.scorecards("main", START)
    ] == [
        (0, 1, "d1", b"d1"),
        (0, 2, "d2", b"d2"),
        (HOUR_MS, 1, "d1", b"x"),
    ]
    assert [card.revision for card in store.scorecards("main", START + 1)] == [1]
    assert store.scorecards("elsewhere", 0) == []


def test_scorecard_says_why_it_exists_and_its_summary_is_listed_without_the_body(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        store.save_scorecard("main", START, "d1", b"{1}", START + 1)
        store.save_scorecard("main", START, "d2", b"{2}" * 9999, START + 2, why="迟到的数据", summary='{"low":7.5}')
        store.save_scorecard("main", START + HOUR_MS, "d1", b"", START + 3, why="new rules")
    with opener(CATALOGUE) as store:
        assert store.scorecard_list("main", START, START + HOUR_MS) == [
            ScorecardRow(START, 1, "d1", START + 1, "", ""),
            ScorecardRow(START, 2, "d2", START + 2, "迟到的数据", '{"low":7.5}'),
        ]
        assert [row.why for row in store.scorecard_list("main", START + 1, START + DAY_MS)] == ["new rules"]
        assert store.scorecard_list("elsewhere", 0, START + DAY_MS) == []


def test_last_scorecards_are_the_newest_revision_of_the_last_card_of_each_span(opener: Opener) -> None:
    days = [START + day * DAY_MS for day in range(5)]
    with opener(CATALOGUE) as store:
        for hour in (0, 5, 23, 24, 47, 72):  # days 0 and 1 have several, day 2 none, day 3 one on its first edge
            for digest in (f"{hour} first", f"{hour} second"):
                store.save_scorecard("main", START + hour * HOUR_MS, digest, b"{}" * 999, START + 1, summary=digest)
        store.save_scorecard("elsewhere", START + 80 * HOUR_MS, "other", b"{}", START + 1)
        store.save_scorecard("main", START + 96 * HOUR_MS, "beyond the last edge", b"{}", START + 1)
    with opener(CATALOGUE) as store:
        found = store.last_scorecards("main", days)
        listed = store.scorecard_list("main", START, START + 4 * DAY_MS)
        assert [((row.as_of - START) // HOUR_MS, row.revision, row.summary) for row in found] == [
            (23, 2, "23 second"),
            (47, 2, "47 second"),
            (72, 2, "72 second"),
        ]
        assert all(row in listed for row in found), "the same rows as the list has"
        assert [row.as_of for row in store.last_scorecards("main", [days[0], START + 6 * HOUR_MS, days[4]])] == [
            START + 5 * HOUR_MS,
            START + 72 * HOUR_MS,
        ], "spans need not be equal, as days are not where clocks are put on"
        assert [store.last_scorecards("main", edges) for edges in ([], days[:1], days[2:4])] == [[], [], []]
        assert store.last_scorecards("nowhere", days) == []


def test_scorecard_at_is_the_newest_revision_or_the_one_asked_for(store: Store) -> None:
    for digest in ("d1", "d2"):
        store.save_scorecard("main", START, digest, digest.encode(), START + 1, why=f"why {digest}")
    newest = store.scorecard_at("main", START)
    assert newest == StoredScorecard(START, 2, "d2", START + 1, b"d2", "why d2", "")
    first = store.scorecard_at("main", START, revision=1)
    assert first == StoredScorecard(START, 1, "d1", START + 1, b"d1", "why d1", "")
    assert store.scorecard_at("main", START, revision=3) is None
    assert store.scorecard_at("main", START + 1) is None
    assert store.scorecard_at("elsewhere", START) is None


# -- retention, evolution


def test_points_leave_by_the_retention_of_their_measurement(store: Store) -> None:
    event = point(0, name="alarm", tags={}, raised_count=1.0)
    store.write([batch(0, event, point(0, busy_ratio=1.0), point(2 * DAY_MS, busy_ratio=2.0))])
    assert store.prune(START + 31 * DAY_MS) == 1
    assert len(store.latest("alarm", 0)) == 1
    question = ask(Take("count"), Take("sum"), each_ms=DAY_MS)
    assert answer(store, question, [ETH0], HIGH_IS_BAD)[0].known == 1.0


def test_pruned_batch_rows_are_no_holes(store: Store) -> None:
    old, young = batch(0), AppliedBatch("main", "gw-1", "b1", 1, "b1/1", START + 371 * DAY_MS, START, (), 0, ())
    store.write([old, young])
    assert store.prune(START + 371 * DAY_MS) == 1
    assert store.prune(START + 371 * DAY_MS) == 0
    assert [(total.batches, total.dropped, list(total.holes)) for total in store.totals()] == [(1, 0, [])]


def test_field_added_to_the_catalogue_is_found_in_an_old_file(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        store.write([batch(0, point(0, busy_ratio=1.0))])
    grown = Catalogue({"link": link(error_ratio=GAUGE), "alarm": alarm(), "canary": alarm()}, {})
    with opener(grown) as store:
        store.write([batch(1, point(MINUTE_MS, error_ratio=0.5), point(0, name="canary", tags={}, raised_count=1.0))])
        answers = [
            answer(store, ask(field=f, buckets=1), [ETH0], HIGH_IS_BAD)[0] for f in ("busy_ratio", "error_ratio")
        ]
        assert [(row.known, row.samples) for row in answers] == [(1.0, 1), (0.5, 1)]
        assert len(store.latest("canary", 0)) == 1


# -- being looked at


def test_probe_leaves_nothing_behind(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        store.write([batch(0, *every_minute(5))])
        seen = (store.totals(), store.latest("link", 0), store.subjects("link", ("asset",), {}, 2**62))
        for _ in range(2):
            store.probe()
        assert (store.totals(), store.latest("link", 0), store.subjects("link", ("asset",), {}, 2**62)) == seen
    with opener(CATALOGUE) as store:
        assert store.totals() == seen[0]


def test_saved_copy_answers_as_the_store_did_at_that_moment(opener: Opener, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with opener(CATALOGUE) as store:
        store.write([batch(0, *every_minute(5, 20.0))])
        store.write([batch(1, *every_minute(5, 40.0))])  # the same identities: the later write of each wins
        before, totals = answer(store, ask(), [ETH0], HIGH_IS_BAD), store.totals()
        if not store.save_copy(str(path)):
            assert not path.exists()  # a server has the data, and its own backup
            return
        store.write([batch(2, *every_minute(5, 90.0, start=10))])
        assert answer(store, ask(), [ETH0], HIGH_IS_BAD) != before
    with DuckDB(Config(path=str(path)), CATALOGUE) as saved:
        assert (answer(saved, ask(), [ETH0], HIGH_IS_BAD), saved.totals()) == (before, totals)
        saved.write([batch(1, *every_minute(5, 40.0)), batch(3, *every_minute(5, 60.0, start=10))])
        assert [total.batches for total in saved.totals()] == [3]  # it goes on, and knows what it has
