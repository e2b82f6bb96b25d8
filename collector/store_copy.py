"""A site copied from one store to another: in which order, how far it came, and whether both agree in the end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from agent.catalogue import Catalogue
from agent.errors import InfravitalsError
from agent.language import say
from collector.buckets import Buckets
from collector.evaluate import Rules, evaluate
from collector.history import scores_of
from collector.inquiry import Site
from collector.query import HOUR_MS, Question
from collector.score import Scorecard
from collector.stores import BatchTotals, Instant, KnownSubject, Score, ScorecardRow, Store
from collector.stores._copy import BATCHES, Copying, Part, kept_parts
from collector.stores._kept import digest_of

MOST_POINTS = 50_000
"""Of one slice of time: what is in memory at once."""
CARDS_AT_ONCE = 20
FOR_EVER = 9_000_000_000_000


class CopyError(InfravitalsError):
    """A copy cannot begin, go on or be trusted."""


class State(msgspec.Struct):
    """How far a copy came; it stands in the target. source: what was copied. began_with: what its batches came to then.

    until: measurement, or BATCHES -> everything before this time is copied. cards: as_of of the last scorecard that is.
    """

    source: str
    began_with: str
    is_framed: bool = False
    until: dict[str, int] = {}
    cards: int = -1
    is_done: bool = False


class Progress(NamedTuple):
    """What was just copied: rows of a measurement, BATCHES or `scorecard`, up to a moment."""

    name: str
    until: int
    rows: int


class Task(NamedTuple):
    """What is to be copied. called: what names the source. questions: those whose kept buckets go along, by their digest."""

    site: str
    called: str
    catalogue: Catalogue
    questions: Mapping[str, Question]


Tell = Callable[[Progress], None]


def slices(hours: Sequence[tuple[int, int]], most: int = MOST_POINTS) -> Iterator[tuple[int, int, int]]:
    """(start, end, about how many rows): hours of few rows are taken together, one of many is cut into even parts."""
    start, end, rows = 0, 0, 0
    for hour, count in hours:
        if rows and rows + count > most:
            yield start, end, rows
            rows = 0
        if count > most:
            parts = -(-count // most)
            cuts = [hour + HOUR_MS * part // parts for part in range(parts + 1)]
            yield from ((first, after, count // parts) for first, after in pairwise(cuts))
            continue
        start = start if rows else hour
        end, rows = hour + HOUR_MS, rows + count
    if rows:
        yield start, end, rows


class _Listening:
    """A store that notes what it is asked."""

    def __init__(self, store: Instant) -> None:
        self._store = store
        self.asked: dict[str, Question] = {}

    def buckets(self, question: Question, now: int | None = None) -> Mapping[tuple[str, ...], Buckets]:
        self.asked.setdefault(digest_of(question), question)
        return self._store.buckets(question)

    def compiled(self, question: Question) -> str:
        return self._store.compiled(question)

    def subjects(
        self, measurement: str, per: Sequence[str], where: Mapping[str, Sequence[str]], until: int
    ) -> list[KnownSubject]:
        return self._store.subjects(measurement, per, where, until)


def asked_questions(store: Store, rules: Rules, site: Site) -> Mapping[str, Question]:
    """Every question that a scorecard asks when the newest batch has come, by its digest."""
    listening = _Listening(store)
    evaluate(listening, rules, site, max((total.last_received_at for total in totals_of(store, site.id)), default=0))
    return listening.asked


def totals_of(store: Store, site: str) -> list[BatchTotals]:
    """What the batches of a site's agents come to."""
    return [total for total in store.totals() if total.site == site]


def names_of(catalogue: Catalogue) -> list[str]:
    """What is copied by slices of time: points first, so that no batch has its row before its points."""
    return [*sorted(catalogue.measurements), BATCHES]


def copy_site(source: Store, target: Store, task: Task, tell: Tell) -> int:
    """Copies what is not copied yet. Gives how many questions have kept buckets that stay behind: only earlier rules asked them.

    Raises CopyError, or StoreError of either store.
    """
    site, totals = task.site, totals_of(source, task.site)
    if not totals:
        raise CopyError(say(f"来源中没有站点 '{site}' 的数据", f"the source holds no data of the site '{site}'"))
    with source.copying(site) as theirs, target.copying(site) as ours:
        copy = _Copy(theirs, ours, _begin(ours, task.called, totals), tell)
        copy.frame()
        for name in names_of(task.catalogue):
            copy.slices(name)
        copy.kept(task.questions)
        copy.cards(source, target, site)
        left = len(theirs.kept_questions() - task.questions.keys())
    _compare(source, target, site, totals)
    copy.state.is_done = True
    with target.copying(site) as ours:
        ours.take(Part(), msgspec.json.encode(copy.state).decode())
    return left


def _begin(ours: Copying, called: str, totals: Sequence[BatchTotals]) -> State:
    """The state of this very copy, or that of a new one."""
    began_with = msgspec.json.encode(totals).decode()
    text = ours.state()
    if not text and ours.is_empty():
        return State(called, began_with)
    state = msgspec.json.decode(text, type=State) if text else None
    if state is None or state.source != called:
        raise CopyError(
            say(
                "目标中已有这个站点的其他数据；请换一个空的目标",
                "the target holds other data of this site already; choose an empty one",
            )
        )
    if state.is_done:
        raise CopyError(
            say(
                "这次复制已经完成，目标可以使用；要再复制一次，请换一个空的目标",
                "this copy is complete and the target may be used; to copy once more, choose an empty one",
            )
        )
    if state.began_with != began_with:
        raise CopyError(_changed())
    return state


def _changed() -> str:
    return say(
        "复制开始之后来源又有写入；请停止写入来源的采集中心，换一个空的目标重新复制",
        "the source was written to after the copy had begun; stop the collectors that write to it and copy into an empty target",
    )


class _Copy:
    """The steps; each goes on from where `state` stands."""

    def __init__(self, theirs: Copying, ours: Copying, state: State, tell: Tell) -> None:
        self._theirs, self._ours, self.state, self._tell = theirs, ours, state, tell

    def _take(self, part: Part) -> None:
        self._ours.take(part, msgspec.json.encode(self.state).decode())

    def frame(self) -> None:
        """Marks the target as ours before anything else, then who there is."""
        if not self.state.is_framed:
            self._take(Part())
            self.state.is_framed = True
            self._take(self._theirs.frame())

    def slices(self, name: str) -> None:
        """The points of a measurement, or the batch rows."""
        since = self.state.until.get(name, 0)
        for start, end, _ in slices(self._theirs.hours(name, since - since % HOUR_MS)):
            if end <= since:
                continue
            part = self._theirs.slice(name, max(start, since), end)
            self.state.until[name] = end
            self._take(part)
            rows = len(part.batches) + sum(map(len, part.points.values()))
            self._tell(Progress(name, end, rows))

    def kept(self, questions: Mapping[str, Question]) -> None:
        """What only kept buckets know; it is written over itself."""
        for question in questions.values():
            for part in kept_parts(self._theirs.source(question), question):
                self._take(Part(kept=[part]))
                self._tell(Progress("bucket", part.chunks[-1].end, len(part.chunks)))

    def cards(self, source: Store, target: Store, site: str) -> None:
        """The scorecards in their order, so that they get the same revisions; one that is there is not written again."""
        rows = source.scorecard_list(site, self.state.cards, FOR_EVER)
        for first in range(0, len(rows), CARDS_AT_ONCE):
            some = rows[first : first + CARDS_AT_ONCE]
            for row in some:
                _copy_card(source, target, site, row)
            self.state.cards = some[-1].as_of
            self._take(Part())
            self._tell(Progress("scorecard", some[-1].as_of, len(some)))


def _copy_card(source: Store, target: Store, site: str, row: ScorecardRow) -> None:
    card = source.scorecard_at(site, row.as_of, row.revision)
    if card is None:
        raise CopyError(_changed())
    told = (card.why, card.summary, _scores(card.body))
    target.save_scorecard(site, card.as_of, card.digest, card.body, card.written_at, *told)


def _scores(body: bytes) -> Sequence[Score]:
    """What is drawn of a scorecard; nothing of one whose form is no longer known."""
    try:
        return scores_of(msgspec.json.decode(body, type=Scorecard))
    except msgspec.DecodeError:
        return ()


def _compare(source: Store, target: Store, site: str, before: Sequence[BatchTotals]) -> None:
    """Raises CopyError unless the source stood still and the target agrees with it."""
    if totals_of(source, site) != list(before):
        raise CopyError(_changed())
    for zh, en, ask in _AGREEMENTS:
        if ask(source, site) != ask(target, site):
            text = say(
                f"复制之后两边的{zh}不一致；请不要使用目标，换一个空的目标重新复制",
                f"after the copy the {en} of both differ; do not use the target, copy again into an empty one",
            )
            raise CopyError(text)


_AGREEMENTS: Sequence[tuple[str, str, Callable[[Store, str], object]]] = (
    ("批次合计", "sums of batches", totals_of),
    ("资产归属", "owners of assets", lambda store, site: dict(store.owners(site))),
    ("评分卡", "scorecards", lambda store, site: store.scorecard_list(site, 0, FOR_EVER)),
)


def count_site(source: Store, catalogue: Catalogue, site: str) -> Mapping[str, int]:
    """What a copy would carry: measurement, BATCHES or `scorecard` -> about how many rows, those that there are."""
    with source.copying(site) as theirs:
        counted = {name: sum(rows for _, rows in theirs.hours(name, 0)) for name in names_of(catalogue)}
    counted["scorecard"] = len(source.scorecard_list(site, 0, FOR_EVER))
    return {name: rows for name, rows in counted.items() if rows}
