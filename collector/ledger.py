"""The ledger: what every agent counted itself, held against what the store has of it. The definitions stand in docs/ledger.md.

    made = applied + set aside + dropped + waiting + difference

The agent's word is its newest `agent_health` point; `made`, `dropped` and the bound of `waiting` are from there. `applied` and
`set aside` are the store's rows of batches made until then. What neither side can account for is the difference, and is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from agent.catalogue import Catalogue, Text
from collector.evaluate import format_time
from collector.ledger_past import BLUR_MS, past_word
from collector.ledger_words import (
    Count,
    Word,
    begun_anew,
    has_more,
    leaks,
    no_numbers,
    no_word,
    quiet,
    read_word,
    store_lost,
    too_old,
)
from collector.query import DAY_MS
from collector.stores import Account, BatchTotals, Hole, Latest, Period, Store

State = Literal["balanced", "unbalanced", "unknown"]

LOOK_BACK_MS = 7 * DAY_MS
"""An older word is none."""

STORE_REMEMBERS_MS = 360 * DAY_MS
"""Batch rows are kept a little longer; of an older account a part may be pruned."""


class Sums(msgspec.Struct, frozen=True):
    """One line of the ledger, in batches or in points: made is the sum of the others.

    difference: above 0 what is lost, below 0 what the store has beyond what the agent made.
    """

    made: int
    applied: int
    set_aside: int
    dropped: int
    waiting: int
    difference: int


class Finding(msgspec.Struct, frozen=True):
    """Why an account does not balance, or why nobody can tell: a code that never changes, and a sentence."""

    code: str
    text: Text


class AgentLedger(msgspec.Struct, frozen=True):
    """One agent's account. as_of: when the agent gave its word, began: when the account began, RFC 3339, None without a word.

    later_batches: what came that was made after that word. lost: numbers (boot, first, last) that will not come any more.
    unclear_points: of the points that wait, those of which nobody can tell yet whether they are in lost batches too.
    """

    agent: str
    state: State
    as_of: str | None = None
    began: str | None = None
    batches: Sums | None = None
    points: Sums | None = None
    later_batches: int = 0
    lost: tuple[tuple[str, int, int], ...] = ()
    unclear_points: int = 0
    findings: tuple[Finding, ...] = ()


class Ledger(msgspec.Struct, frozen=True):
    """All agents of a site, by name. is_balanced: no account is known not to balance."""

    site: str
    taken_at: str
    is_balanced: bool
    agents: tuple[AgentLedger, ...]


def read_ledger(store: Store, catalogue: Catalogue, site: str, now: int) -> Ledger:
    """Every agent of `site` that ever wrote. now: milliseconds."""
    totals = [total for total in store.totals() if total.site == site]
    words = newest_words(store.latest("agent_health", now - LOOK_BACK_MS), site)
    known = {total.agent: words[total.agent] for total in totals if total.agent in words}
    periods = {total.agent: words[total.agent].period() if total.agent in words else _newest(total) for total in totals}
    accounts = store.accounts(site, periods)
    stale_ms = round(catalogue.measurements["agent_health"].staleness_seconds * 1000)
    agents = tuple(
        _settle(known[total.agent], accounts[total.agent], now, stale_ms, _Past(store, site, now))
        if total.agent in known
        else _without_word(total, accounts[total.agent])
        for total in totals
    )
    is_balanced = all(one.state != "unbalanced" for one in agents)
    return Ledger(site, format_time(now), is_balanced, agents)


def newest_words(rows: Sequence[Latest], site: str) -> Mapping[str, Word]:
    """agent -> its newest word; an agent whose asset was renamed has several series."""
    words: dict[str, Word] = {}
    for row in rows:
        word = read_word(row) if row.tags["site"] == site else None
        if word and (word.agent not in words or words[word.agent].at < word.at):
            words[word.agent] = word
    return words


def _newest(total: BatchTotals) -> Period:
    """Enough to tell whether an agent numbers its batches, and it costs no look at years of them."""
    return Period(total.last_made_at, total.last_made_at)


def _without_word(total: BatchTotals, newest: Account) -> AgentLedger:
    """An agent of which the store has rows and no word, or none with an account."""
    is_numbered = newest.batches or newest.earlier_batches
    finding = Finding(*(no_word() if is_numbered else no_numbers()))
    return AgentLedger(total.agent, "unknown", later_batches=total.batches, findings=(finding,))


class _Past(NamedTuple):
    """Where to look for what an agent said before."""

    store: Store
    site: str
    now: int


class Balance(NamedTuple):
    """Both lines, and what of the difference is known: leak is missing in the agent's spool, short in the store.

    unclear_points: as in `AgentLedger`.
    """

    batches: Sums
    points: Sums
    leak: tuple[int, int]
    short: tuple[int, int]
    lost: Sequence[Hole]
    unclear_points: int


class _Held(NamedTuple):
    """What the store has, in batches or in points. arrived: of it, what was announced as dropped. undated: what may belong to it too."""

    written: int
    set_aside: int
    arrived: int
    undated: int


def balance(word: Word, account: Account, young: Account | None = None) -> Balance:
    """Hold one agent's word against the store's account of the same period.

    young: what the store has that was made since the oldest batch that waited by that word; it tells how many points wait still.
    """
    lost = lost_holes(word, account)
    unannounced = max(0, word.dropped.batches - account.announced_batches)
    numbers = max(0, sum(hole.last - hole.first + 1 for hole in lost) - unannounced)
    written = account.batches - account.empty_batches
    batches = _Held(written, account.empty_batches, account.dropped_batches, account.undated_batches)
    points = _Held(account.points, account.set_aside, account.dropped_points, account.undated_points)
    leak = (_leak(word, 0), _leak(word, 1))
    in_batches, in_points = _line(word, 0, batches, max(leak[0], numbers)), _line(word, 1, points, leak[1])
    in_points, unclear = _divide(word, in_batches, in_points, young)
    short = (_short(in_batches, leak[0]), _short(in_points, leak[1]))
    return Balance(in_batches, in_points, leak, short, lost if numbers else (), unclear)


def _leak(word: Word, unit: int) -> int:
    """What the agent itself cannot account for; unit: 0 batches, 1 points."""
    parts = word.applied[unit] + word.set_aside[unit] + word.dropped[unit] + word.waiting[unit]
    return word.made[unit] - parts


def _line(word: Word, unit: int, held: _Held, least_lost: int) -> Sums:
    """What of the rest, beyond what came or was dropped, may still wait; least_lost: so much of it does not."""
    made = word.made[unit]
    rest = made - held.written - held.set_aside
    dropped = max(0, min(word.dropped[unit] - held.arrived, rest))
    rest -= dropped
    lost = max(rest - word.waiting[unit] - held.undated, min(least_lost, rest))
    difference = lost if rest > 0 else rest
    return Sums(made, held.written, held.set_aside, dropped, rest - difference, difference)


def _divide(word: Word, batches: Sums, points: Sums, young: Account | None) -> tuple[Sums, int]:
    """The points of lost batches apart from those of batches in flight, and how many cannot be told apart."""
    rest = points.waiting + points.difference
    if batches.difference <= 0 or points.difference < 0:
        return points, 0
    waiting: int | None = 0
    if batches.waiting:
        waiting = _waiting_points(word, batches.waiting, young) if young else None
    if waiting is None:
        return points, points.waiting
    waiting = min(max(0, waiting), points.waiting)
    return msgspec.structs.replace(points, waiting=waiting, difference=rest - waiting), 0


def _waiting_points(word: Word, waiting_batches: int, young: Account) -> int | None:
    """Points of the batches in flight: what waited by the agent's word, less what came of it; None when other batches came too."""
    if word.waiting.batches != young.batches + waiting_batches:
        return None
    return word.waiting.points - young.points - young.set_aside


def _short(sums: Sums, leak: int) -> int:
    """What of the difference the store lacks: the rest is missing at the agent."""
    return max(0, sums.difference - max(0, leak))


def lost_holes(word: Word, account: Account) -> Sequence[Hole]:
    """Numbers that never came and were made before the oldest batch that still waited when the agent gave its word."""
    limit = word.newest if word.oldest is None else word.oldest
    return tuple(hole for hole in account.holes if hole.before <= limit)


def _settle(word: Word, account: Account, now: int, stale_ms: int, past: _Past) -> AgentLedger:
    found = balance(word, account)
    if found.unclear_points and word.oldest is not None:
        since = {word.agent: Period(word.oldest, word.newest)}
        found = balance(word, account, past.store.accounts(past.site, since)[word.agent])
    wrong = list(_find_wrong(word, account, found))
    remarks: list[Finding] = []
    is_known = True
    before = find_before(past, word, account)
    if before is not None:
        (wrong if before.is_loss else remarks).append(before.finding)
    if now - word.at > stale_ms:
        remarks.append(Finding(*quiet(word, account.later_batches)))
        is_known = False
    if now - word.began > STORE_REMEMBERS_MS:
        wrong, remarks, is_known = [], [Finding(*too_old())], False
    return AgentLedger(
        agent=word.agent,
        state="unbalanced" if wrong else "balanced" if is_known else "unknown",
        as_of=format_time(word.at),
        began=format_time(word.began),
        batches=found.batches,
        points=found.points,
        later_batches=account.later_batches,
        lost=tuple((hole.boot, hole.first, hole.last) for hole in found.lost),
        unclear_points=found.unclear_points,
        findings=(*wrong, *remarks),
    )


def _find_wrong(word: Word, account: Account, found: Balance) -> Iterator[Finding]:
    if any(found.leak):
        yield Finding(*leaks(word, found.leak))
    if any(found.short):
        ranges = [(hole.first, hole.last) for hole in found.lost]
        yield Finding(*store_lost(*found.short, found.unclear_points, ranges))
    # a row without points has the time at which it came, and may have been made after the word
    surplus = (account.batches - account.empty_batches - word.made.batches, account.points - word.made.points)
    if max(surplus) > 0:
        yield Finding(*has_more(max(0, surplus[0]), max(0, surplus[1])))


class Before(NamedTuple):
    """What is known of the account before a spool file that was begun anew."""

    finding: Finding
    is_loss: bool


ANEW_MS = 30 * DAY_MS
"""How long after it a spool that was begun anew is still looked into: its agent's earlier words are there for so long."""


def find_before(past: _Past, word: Word, account: Account) -> Before | None:
    """Whether the spool was begun anew, and what of its last account can never come any more."""
    if word.closings or not account.earlier_batches or past.now - word.began > ANEW_MS:
        return None
    last = past_word(past.store, past.site, word)
    if last is None:
        return Before(Finding(*begun_anew(word, None)), False)
    period = Period(last.began - BLUR_MS, min(last.newest + BLUR_MS, word.began - 1))
    held = past.store.accounts(past.site, {word.agent: period})[word.agent]
    lost = balance(last._replace(waiting=Count(0, 0), oldest=None), held)
    missing = (max(0, lost.batches.difference), max(0, lost.points.difference))
    return Before(Finding(*begun_anew(word, missing)), any(missing))
