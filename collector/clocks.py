"""Agents whose clocks are off: the words for it, and what the log says when it begins and when it is over."""

import logging

from agent.language import say
from agent.wire import Address

logger = logging.getLogger(__name__)

MEND = "chronyc makestep"
"""What sets a clock, on the machine where it is wrong."""

MOST_TOLD = 10_000
LONG_SECONDS = 3600.0


def spell_skew(skew_ms: int) -> str:
    """How far a clock is behind (minus: ahead), in seconds, and in hours where that is easier to read."""
    seconds = abs(skew_ms) / 1000
    zh, en = f"{seconds:.0f} 秒", f"{seconds:.0f} s"
    if seconds >= LONG_SECONDS:
        zh, en = f"{zh}（{seconds / 3600:.1f} 小时）", f"{en} ({seconds / 3600:.1f} h)"
    return say(f"快 {zh}", f"{en} ahead") if skew_ms < 0 else say(f"慢 {zh}", f"{en} behind")


def describe_skew(agent: str, skew_ms: int) -> str:
    """What a wrong clock does to the agent's points."""
    skew = spell_skew(skew_ms)
    return say(
        f"采集代理 {agent} 的时钟{skew}，它的数据点改记在收到的时刻",
        f"the clock of agent {agent} is {skew}, its points are moved to the time received",
    )


class ClockNews:
    """Says once that an agent's clock is off, and once that it is right again."""

    def __init__(self) -> None:
        self._told: set[Address] = set()

    def note(self, address: Address, skew_ms: int) -> None:
        """One more batch; skew_ms: as `measure_skew` gives it."""
        is_off, is_told = skew_ms != 0, address in self._told
        if is_off and not is_told and len(self._told) < MOST_TOLD:
            self._told.add(address)
            mend = say(f"；请在那台机器上校准时钟：{MEND}", f"; set the clock on that machine: {MEND}")
            logger.warning("%s%s", describe_skew("/".join(address), skew_ms), mend)
        elif is_told and not is_off:
            self._told.discard(address)
            text = say("采集代理 %s 的时钟已恢复正常", "the clock of agent %s is right again")
            logger.warning(text, "/".join(address))
