"""The outage state machine: literal sequences, then random ones in random orders, with late and repeated tokens and restarts."""

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.continuity.losses import measure_loss
from agent.continuity.outages import Outage, OutageWatch, Rule, State
from agent.continuity.tokens import Token

RULE = Rule(failures=2, sustained=3)


def token(number: int, is_good: bool, served_by: str = "") -> Token:
    """One token a second, answered after 10 ms or failed after 900."""
    return Token(number, float(number), number + (0.01 if is_good else 0.9), is_good, served_by if is_good else "")


def tokens(course: str) -> list[Token]:
    """One token a letter: `.` failed, any other good and served by the server of that name."""
    return [token(number, letter != ".", letter) for number, letter in enumerate(course)]


def outages(course: str) -> list[Outage]:
    watch = OutageWatch(RULE)
    return [outage for each in tokens(course) for outage in watch.take(each)]


def test_outage_is_from_first_failure_to_first_of_the_sustained_good_ones() -> None:
    assert outages("aaaa....bbb") == [Outage(4.0, 8.01, 4, "a", "b", 3, 8)]
    assert outages("aaaa....bbb")[0].is_moved


def test_one_lost_token_is_no_outage_and_a_flapping_end_prolongs_it() -> None:
    assert outages("aaaa.aaaa") == []
    [outage] = outages("aa..a.aa.aaaa")
    assert (outage.began_at, outage.ended_at, outage.failed) == (2.0, 9.01, 4)


def test_outage_that_has_not_ended_is_not_told() -> None:
    watch = OutageWatch(RULE)
    assert [outage for each in tokens("aa....aa") for outage in watch.take(each)] == []
    assert watch.is_out


def test_move_without_a_failed_token_is_told_with_the_time_between_the_answers() -> None:
    assert outages("aaabaacbaa") == [], "one answer from elsewhere is no move"
    [outage] = outages("aaabbb")
    assert outage.is_moved and outage.failed == 0
    assert (outage.began_at, outage.ended_at) == (2.01, 3.01)


def test_late_answer_ends_the_outage_when_it_came_and_not_when_it_was_sent() -> None:
    watch = OutageWatch(Rule(1, 2))
    late = [token(0, True), token(1, False), Token(2, 2.0, 2.8, True), Token(3, 3.0, 3.01, True)]
    [outage] = [outage for each in late for outage in watch.take(each)]
    assert outage.ended_at == 2.8


def with_unknown(course: str) -> list[Token]:
    """As `tokens`; `?` is one of which nobody knows anything."""
    return [msgspec.structs.replace(each, is_unknown=course[each.number] == "?", is_good=course[each.number] not in ".?")
            for each in tokens(course)]  # fmt: skip


def test_token_of_which_nobody_knows_begins_no_outage_and_ends_none() -> None:
    watch = OutageWatch(RULE)
    assert [outage for each in with_unknown("aa?????") for outage in watch.take(each)] == []
    assert not watch.is_out and watch.state.began_at is None
    assert watch.state.is_good is None, "whether it is up nobody knows"
    for course in ("aa..??", "aa..??aa?aa"):
        watch = OutageWatch(RULE)
        assert [outage for each in with_unknown(course) for outage in watch.take(each)] == []
        assert watch.is_out, "an outage that is on does not end by our looking away"
    watch = OutageWatch(RULE)
    [outage] = [outage for each in with_unknown("aa..??aaa") for outage in watch.take(each)]
    assert (outage.began_at, outage.ended_at, outage.failed, outage.is_blurred) == (2.0, 6.01, 2, True)


def test_blurred_is_what_we_looked_away_from_and_a_move_in_it_counts_from_the_last_answer() -> None:
    for course, began_at, failed in (("aaa??..aaa", 5.0, 2), ("aaa??..bbb", 2.01, 2), ("aaa????bbb", 2.01, 0)):
        watch = OutageWatch(RULE)
        [outage] = [outage for each in with_unknown(course) for outage in watch.take(each)]
        assert (outage.began_at, outage.failed, outage.is_blurred) == (began_at, failed, True), course
        [after] = [outage for each in tokens("." * 10 + "...ccc")[10:] for outage in watch.take(each)]
        assert not after.is_blurred, "and the next is clear again"
    watch = OutageWatch(RULE)
    [outage] = [outage for each in with_unknown("a??aa...aaa") for outage in watch.take(each)]
    assert not outage.is_blurred, "it was seen well right before"


def test_in_a_drill_what_nobody_saw_is_failed() -> None:
    strict = msgspec.structs.replace(RULE, is_unknown_failed=True)
    watch = OutageWatch(strict)
    [outage] = [outage for each in with_unknown("aa.????aaa") for outage in watch.take(each)]
    assert (outage.began_at, outage.ended_at, outage.failed, outage.is_blurred) == (2.0, 7.01, 5, True)
    watch = OutageWatch(strict)
    assert not [outage for each in with_unknown("aa??????") for outage in watch.take(each)]
    assert watch.is_out and watch.state.is_good is False


def plainly(course: list[Token], rule: Rule) -> list[tuple[float, float, int]]:
    """The definition, read from the whole list at once: maximal stretches between runs of `sustained` good tokens."""
    found, index = [], 0
    while index < len(course):
        if course[index].is_good:
            index += 1
            continue
        end = index
        while end < len(course) and not (
            end + rule.sustained <= len(course) and all(t.is_good for t in course[end : end + rule.sustained])
        ):
            end += 1
        failed = sum(not t.is_good for t in course[index:end])
        if end < len(course) and failed >= rule.failures:
            back = min(t.settled_at for t in course[end : end + rule.sustained])
            found.append((course[index].sent_at, back, failed))
        index = end
    return found


RULES = st.builds(Rule, st.integers(1, 4), st.integers(1, 4))
COURSES = st.lists(st.booleans(), max_size=60)


@settings(deadline=None)
@given(COURSES, RULES, st.randoms(use_true_random=False))
def test_any_order_with_repeats_gives_what_the_definition_says(goods: list[bool], rule: Rule, chance) -> None:  # type: ignore[no-untyped-def]
    course = [token(number, is_good) for number, is_good in enumerate(goods)]
    shuffled = [*course, *course[::3]]
    chance.shuffle(shuffled)
    watch = OutageWatch(rule)
    found = [outage for each in shuffled for outage in watch.take(each)]
    assert [(o.began_at, o.ended_at, o.failed) for o in found] == plainly(course, rule)


@settings(deadline=None)
@given(st.lists(COURSES, max_size=4), RULES, st.integers(0, 5))
def test_restart_forgets_neither_an_outage_nor_invents_one(runs: list[list[bool]], rule: Rule, in_flight: int) -> None:
    """The last tokens of each run never settle; the machine is written down and read again between the runs."""
    state, found, seen, number = State(), [], [], 0
    for goods in runs:
        watch = OutageWatch(rule, msgspec.json.decode(msgspec.json.encode(state), type=State))
        watch.skip_to(number)
        run = [token(number + index, is_good) for index, is_good in enumerate(goods)]
        found += [outage for each in run for outage in watch.take(each)]
        seen.append(run)
        number += len(goods) + in_flight
        state = watch.state
    # good tokens that had not lasted long enough before a restart prove nothing after it
    assert sum(outage.failed for outage in found) <= sum(not t.is_good for t in itertools.chain(*seen))
    if len(runs) == 1:
        assert [(o.began_at, o.ended_at, o.failed) for o in found] == plainly(seen[0], rule)
    starts = [t.sent_at for t in itertools.chain(*seen) if not t.is_good]
    assert all(outage.began_at in starts and outage.ended_at > outage.began_at for outage in found)
    assert all(later.began_at >= earlier.ended_at - 0.9 for earlier, later in itertools.pairwise(found))


def test_outage_over_a_restart_is_one_outage() -> None:
    watch = OutageWatch(RULE)
    for each in tokens("aa..."):
        watch.take(each)
    again = OutageWatch(RULE, watch.state)
    again.skip_to(9)
    found = [outage for number in range(9, 13) for outage in again.take(token(number, True, "b"))]
    assert found == [Outage(2.0, 9.01, 3, "a", "b", 1, 9)]


def test_loss_is_what_was_acknowledged_and_is_gone() -> None:
    course = tokens("aaaaaa..bbb")
    assert measure_loss(course, set(range(11))).lost == ()
    loss = measure_loss(course, {0, 1, 2, 3, 8, 9, 10})
    assert loss.lost == (4, 5)
    assert loss.span_seconds == 2.0  # from the answer to 3, which survived, to the answer to 5
    assert measure_loss(course, set()).lost == (0, 1, 2, 3, 4, 5, 8, 9, 10)


@given(COURSES, st.sets(st.integers(0, 59)))
def test_loss_is_nothing_exactly_when_every_acknowledged_token_is_there(goods: list[bool], present: set[int]) -> None:
    course = [token(number, is_good) for number, is_good in enumerate(goods)]
    loss = measure_loss(course, present)
    assert set(loss.lost) == {t.number for t in course if t.is_good} - present
    assert (loss.span_seconds > 0) == bool(loss.lost)


def test_answers_of_several_others_are_one_move_from_the_first_answer_of_the_one_that_stays() -> None:
    [outage] = outages("aaabccc")
    assert (outage.served_before, outage.served_after, outage.first_good) == ("a", "c", 4)
