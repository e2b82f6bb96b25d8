"""What an agent said of its account before a certain moment, from its stored words."""

from collector.ledger_words import FIELDS, Word, read_word
from collector.query import DAY_MS, Question, Take
from collector.stores import Latest, Period, Store

MINUTE_MS = 60_000
WORDS_BEFORE_MS = 8 * DAY_MS
"""How far back the last word may lie."""

BLUR_MS = 10_000
"""A store gives buckets with nine digits: of a time since 1970 that leaves ten seconds."""


def past_word(store: Store, site: str, word: Word) -> Word | None:
    """The agent's last word before its account began. Its times are blurred by BLUR_MS, and so a loss by a few batches."""
    end = word.began // MINUTE_MS * MINUTE_MS
    period = Period(end - WORDS_BEFORE_MS, end)
    found: dict[tuple[str, ...], dict[str, tuple[int, float]]] = {}
    for field in FIELDS:
        for subject, buckets in store.buckets(_question(site, word.agent, field, period)).items():
            if len(buckets.positions):
                place = (int(buckets.positions[-1]), float(buckets.values[-1]))
                found.setdefault(subject, {})[field] = place
    if not found:
        return None
    asset = max(found, key=lambda subject: max(position for position, _ in found[subject].values()))
    newest = max(position for position, _ in found[asset].values())
    fields = {field: value for field, (position, value) in found[asset].items() if position == newest}
    return read_word(Latest({"agent": word.agent}, fields, period.since + newest * MINUTE_MS))


def _question(site: str, agent: str, field: str, period: Period) -> Question:
    where = (("site", (site,)), ("agent", (agent,)))
    last = Take("last")
    return Question("agent_health", field, where, ("asset",), period.since, period.until, MINUTE_MS, last, last)
