"""What a command asks of the store beyond the scorecard of one time: the same function beside a server and on the file.

Every question is a function of (store, rules, site, arguments) that gives the bytes to print or to read on.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from agent.errors import InfravitalsError
from agent.language import say
from collector.compare import Moved, compare
from collector.coverage import measure_coverage, running_sources, seen_signals
from collector.evaluate import Rules, format_time
from collector.health import read_health
from collector.history import read_history
from collector.inquiry import Site
from collector.ledger import read_ledger
from collector.network import read_network
from collector.ruleset import load_rules
from collector.score import Scorecard
from collector.server import score_at
from collector.stores import Store


class NoSuchRevision(InfravitalsError):
    """A revision was asked for that is not stored."""


class Difference(msgspec.Struct, frozen=True):
    """What moved from one scorecard to another, and which two they were."""

    before: str
    after: str
    moved: tuple[Moved, ...]


class _Times(msgspec.Struct, frozen=True):
    before: int
    after: int


class _Card(msgspec.Struct, frozen=True):
    as_of: int | None
    revision: int | None = None


class _Since(msgspec.Struct, frozen=True):
    since: int


class _Folders(msgspec.Struct, frozen=True):
    old: str | None
    new: str | None
    as_of: int | None


Arguments = Mapping[str, object]
Answer = Callable[[Store, Rules, Site, Arguments], bytes]


def card_at(store: Store, rules: Rules, site: Site, as_of: int | None, revision: int | None = None) -> Scorecard:
    """The stored scorecard of exactly this time (its newest revision, or the one asked for), else one evaluated now.

    Raises NoSuchRevision when a revision is asked for that is not stored.
    """
    moment = int(time.time() * 1000) if as_of is None else as_of
    stored = store.scorecard_at(site.id, moment, revision)
    if stored is not None:
        return msgspec.structs.replace(msgspec.json.decode(stored.body, type=Scorecard), revision=stored.revision)
    if revision is not None:
        text = say(
            f"没有 {format_time(moment)} 的修订 {revision}；用 infravitals history 查看已有的",
            f"there is no revision {revision} of {format_time(moment)}; infravitals history lists what there is",
        )
        raise NoSuchRevision(text)
    return score_at(store, rules, site, moment)


def answer_card(store: Store, rules: Rules, site: Site, arguments: Arguments) -> bytes:
    """The JSON of a scorecard, as stored when it is."""
    wanted = msgspec.convert(arguments, _Card)
    return msgspec.json.encode(card_at(store, rules, site, wanted.as_of, wanted.revision))


def answer_difference(store: Store, rules: Rules, site: Site, arguments: Arguments) -> bytes:
    """The JSON of a Difference between two times: as stored when both are, else both evaluated now, like with like."""
    times = msgspec.convert(arguments, _Times)
    moments = (times.before, times.after)
    are_stored = all(store.scorecard_at(site.id, moment) is not None for moment in moments)
    give = card_at if are_stored else score_at
    before, after = (give(store, rules, site, moment) for moment in moments)
    return msgspec.json.encode(Difference(before.as_of, after.as_of, tuple(compare(before, after))))


def answer_rules_difference(store: Store, rules: Rules, site: Site, arguments: Arguments) -> bytes:
    """The JSON of a Difference between two rule folders over the same data and time; None: the rules in force."""
    wanted = msgspec.convert(arguments, _Folders)
    moment = int(time.time() * 1000) if wanted.as_of is None else wanted.as_of
    cards = [
        score_at(store, load_rules(Path(folder)).rules if folder else rules, site, moment)
        for folder in (wanted.old, wanted.new)
    ]
    names = [wanted.old or say("现行规则", "the rules in force"), wanted.new or say("现行规则", "the rules in force")]
    return msgspec.json.encode(Difference(names[0], names[1], tuple(compare(*cards))))


def answer_history(store: Store, rules: Rules, site: Site, arguments: Arguments) -> bytes:
    """The JSON of all revisions since a time."""
    return msgspec.json.encode(read_history(store, site.id, msgspec.convert(arguments, _Since).since))


def answer_coverage(store: Store, rules: Rules, site: Site, arguments: Arguments) -> bytes:
    """The JSON of what feeds what, what this site lacks and what to do next."""
    card = card_at(store, rules, site, msgspec.convert(arguments, _Card).as_of)
    seen, running = seen_signals(store, rules, site), running_sources(store, site)
    return msgspec.json.encode(measure_coverage(rules, card, seen, running, site.folder.has_register))


def answer_ledger(store: Store, rules: Rules, site: Site, arguments: Arguments) -> bytes:
    """The JSON of the ledger as it stands now."""
    return msgspec.json.encode(read_ledger(store, rules.catalogue, site.id, int(time.time() * 1000)))


def answer_health(store: Store, rules: Rules, site: Site, arguments: Arguments) -> bytes:
    """The JSON of every agent's health."""
    return msgspec.json.encode(read_health(store, site.id, site.folder.revoked, int(time.time() * 1000)))


def answer_network(store: Store, rules: Rules, site: Site, arguments: Arguments) -> bytes:
    """The JSON of what the wire said last."""
    return msgspec.json.encode(read_network(store, site.id, int(time.time() * 1000)))


ANSWERS: Mapping[str, Answer] = {
    "card": answer_card,
    "difference": answer_difference,
    "rules-difference": answer_rules_difference,
    "history": answer_history,
    "coverage": answer_coverage,
    "ledger": answer_ledger,
    "health": answer_health,
    "network": answer_network,
}
"""Command of the socket -> what answers it."""
