"""What collectors set aside of this agent's data, as their receipts say it: told once for each reason, and when it ended."""

import logging
import re
from collections.abc import Callable, Mapping

from agent.language import say
from agent.reasons import MEANINGS, Reason

logger = logging.getLogger(__name__)

QUIET_SECONDS = 3600.0
"""A reason that no receipt named for so long has ended; sources gather every few seconds to minutes."""
MOST_REASONS = 100
_CODE = re.compile(r"[a-z_]{1,40}")


class Refusals:
    """Takes down the reasons of every receipt. name: of the agent, before each line of the log."""

    def __init__(self, name: str, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._monotonic = monotonic
        self._named_at: dict[str, float] = {}

    def note(self, reasons: Mapping[str, int]) -> None:
        """One receipt's reasons, how many things each; empty when everything was taken."""
        now = self._monotonic()
        for code, count in reasons.items():
            if code not in self._named_at:
                if len(self._named_at) >= MOST_REASONS or not _CODE.fullmatch(code):
                    continue
                logger.warning("%s: %s", self._name, _explain(code, count))
            self._named_at[code] = now
        for code, at in list(self._named_at.items()):
            if now - at > QUIET_SECONDS:
                del self._named_at[code]
                text = say(
                    f"一小时以来采集中心没有再以 {code} 为由搁置数据",
                    f"for an hour the collector has set nothing aside as {code}",
                )
                logger.warning("%s: %s", self._name, text)


def _explain(code: str, count: int) -> str:
    """A collector may be newer than we are and know reasons that we do not."""
    if code not in set(Reason):
        return say(
            f"采集中心搁置了 {count} 项数据，原因 {code}；内容见采集中心的 infravitals quarantine",
            f"the collector set {count} things aside, reason {code}; `infravitals quarantine` there shows what",
        )
    meaning = MEANINGS[Reason(code)]
    return say(
        f"采集中心搁置了 {count} 项数据：{meaning.text}（{code}）；{meaning.remedy}；同样的不再提示",
        f"the collector set {count} things aside: {meaning.text} ({code}); {meaning.remedy}; not said again",
    )
