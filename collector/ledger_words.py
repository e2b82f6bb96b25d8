"""An agent's own word on its account, and the sentences of the ledger: each finding has a code that never changes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.catalogue import Text
from collector.stores import Latest, Period

RANGES_SHOWN = 5


class Count(NamedTuple):
    """Of batches and of the points in them."""

    batches: int
    points: int


class Word(NamedTuple):
    """What an agent said of itself at `at`. began, newest, oldest: made_at of the account's first batch, of the newest one
    made, and of the oldest that waits (None when none does). Milliseconds. waiting is counted in the spool, not computed."""

    agent: str
    at: int
    made: Count
    applied: Count
    set_aside: Count
    dropped: Count
    waiting: Count
    closings: int
    began: int
    newest: int
    oldest: int | None

    def period(self) -> Period:
        """What was made in this account until the word was given."""
        return Period(self.began, self.newest)


OUTCOMES = ("made", "applied", "set_aside", "dropped", "waiting")
FIELDS = (
    *(f"ledger_{outcome}_{what}_count" for outcome in OUTCOMES for what in ("batches", "points")),
    "ledger_closings_count",
    "ledger_began_seconds",
    "ledger_newest_seconds",
    "ledger_oldest_seconds",
)
"""The fields of agent_health that make a word; the last is absent when nothing waits."""


def read_word(row: Latest) -> Word | None:
    """The word in a row of agent_health; None when the agent is older than the ledger or its account is not known yet."""
    numbers = {name: value for name in FIELDS if isinstance(value := row.fields.get(name), float)}
    if not set(FIELDS[:-1]) <= numbers.keys():
        return None
    made, applied, set_aside, dropped, waiting = (_count(numbers, outcome) for outcome in OUTCOMES)
    oldest = numbers.get(FIELDS[-1])
    return Word(
        agent=row.tags["agent"],
        at=row.timestamp,
        made=made,
        applied=applied,
        set_aside=set_aside,
        dropped=dropped,
        waiting=waiting,
        closings=round(numbers["ledger_closings_count"]),
        began=round(numbers["ledger_began_seconds"] * 1000),
        newest=round(numbers["ledger_newest_seconds"] * 1000),
        oldest=None if oldest is None else round(oldest * 1000),
    )


def _count(numbers: Mapping[str, float], outcome: str) -> Count:
    return Count(*(round(numbers[f"ledger_{outcome}_{what}_count"]) for what in ("batches", "points")))


Sentence = tuple[str, Text]
"""A code and its sentence."""


def leaks(word: Word, leak: tuple[int, int]) -> Sentence:
    """The agent's own sums do not add up."""
    if min(leak) < 0:
        text = Text(
            "采集代理自己的账对不上：各项之和多于生成数；缓存文件被改动过",
            "the agent's own account does not add up: its parts are more than it made; somebody changed its spool file",
        )
    else:
        text = Text(
            f"采集代理的缓存里少了 {leak[0]} 批（{leak[1]} 点）：既没有回执，也不在等待，也没有作为丢弃公布；缓存文件被改动过，这些数据已丢失",
            f"{leak[0]} batches ({leak[1]} points) are gone from the agent's spool without a receipt and unannounced; somebody changed its file, they are lost",
        )
    return "spool_leak", text


def store_lost(batches: int, points: int, unclear_points: int, ranges: Sequence[tuple[int, int]]) -> Sentence:
    """The agent has receipts for what the store does not hold. unclear_points: may be lost beyond `points`."""
    which = _spell(ranges)
    zh, en = f"{points} 点", f"{points} points"
    if unclear_points:
        most = points + unclear_points
        zh, en = (
            f"{points} 至 {most} 点，待代理下次报账确定",
            f"{points} to {most} points, the agent's next word will tell",
        )
    return "store_lost", Text(
        f"存储缺少 {batches} 批（{zh}）代理已得到回执的数据{which}；存储可能从旧备份恢复，或有行被删除",
        f"the store lacks {batches} batches ({en}) for which the agent has a receipt{which}; it was restored from an older copy, or rows were deleted",
    )


def has_more(batches: int, points: int) -> Sentence:
    """The store holds what the agent does not know that it made."""
    return "more_than_made", Text(
        f"存储比代理所报的多 {batches} 批（{points} 点）；代理的缓存可能从旧副本恢复，或有两个代理同名",
        f"the store holds {batches} batches ({points} points) more than the agent made; its spool was restored from an older copy, or two agents share a name",
    )


def begun_anew(word: Word, missing: tuple[int, int] | None) -> Sentence:
    """The agent works on a new spool file. missing: of the old account; None: nobody knows."""
    if missing is None:
        return "spool_begun_anew", Text(
            "代理的缓存文件是新建的；此前的缓存里还有没有未送达的数据，已无从得知",
            "the agent's spool file was begun anew; whether anything still waited in the one before cannot be known",
        )
    if not any(missing):
        return "spool_begun_anew", Text(
            "代理的缓存文件是新建的；按它此前最后一次报告，没有数据因此丢失",
            "the agent's spool file was begun anew; by its last word before that, nothing was lost",
        )
    return "spool_lost", Text(
        f"代理的缓存文件丢失或被新建：旧缓存中至少 {missing[0]} 批（{missing[1]} 点）未送达，已丢失",
        f"the agent's spool file was lost or begun anew: at least {missing[0]} batches ({missing[1]} points) in the old one were never delivered and are lost",
    )


def quiet(word: Word, later_batches: int) -> Sentence:
    """The agent has not given its word for a while."""
    return "quiet", Text(
        f"代理最近一次报账已过时：此后的 {later_batches} 批已入库，它手里还有多少在等待无从得知",
        f"the agent's last word is old: {later_batches} batches came since, how much still waits with it cannot be known",
    )


def no_word() -> Sentence:
    """No word at all."""
    return "no_word", Text(
        "代理还没有报账：刚刚启动(每分钟报一次)、版本较旧，或已停止超过 7 天；只知道存储收到了什么",
        "no word from the agent yet: just started (it tells once a minute), an older version, or stopped for more than 7 days; only what the store received is known",
    )


def no_numbers() -> Sentence:
    """A sender that numbers nothing."""
    return "no_numbers", Text(
        "这个发送方不给批次编号（不是本项目的采集代理），没有账可对",
        "this sender does not number its batches (it is no agent of ours); there is nothing to hold against",
    )


def too_old() -> Sentence:
    """The account is older than what the store remembers."""
    return "account_too_old", Text(
        "代理的本期账早于存储所保留的批次记录，无法核对；缓存清空一次后会自动开始新的一期",
        "the agent's account is older than the batches that the store remembers; it begins a new one once its spool was empty",
    )


def _spell(ranges: Sequence[tuple[int, int]]) -> str:
    """Numbers for a sentence; the same in both languages."""
    if not ranges:
        return ""
    words = [f"#{first}" if first == last else f"#{first}–{last}" for first, last in ranges[:RANGES_SHOWN]]
    return f" ({', '.join(words)}{', …' if len(ranges) > RANGES_SHOWN else ''})"
