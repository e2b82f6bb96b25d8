"""One probe as it runs: its tokens, its outages, and what each outage cost, kept across restarts."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.continuity.losses import Loss, measure_loss
from agent.continuity.outages import Outage, OutageWatch, Rule, State
from agent.continuity.prober import Pace, Prober, Steady
from agent.continuity.reach import Reach
from agent.continuity.tokens import Token
from agent.errors import SourceError
from agent.foreign_words import explain, explain_system
from agent.language import say

MAX_REMEMBERED = 4000
"""Acknowledged tokens that a loss is looked for among: more than an hour at one a second."""

RETRIES = 20
"""Rounds in which the survivor is asked what it has; then the outage is told without its loss."""

_log = logging.getLogger(__name__)


class Finding(msgspec.Struct, frozen=True):
    """An outage, and its loss where tokens are kept and the survivor could be asked."""

    outage: Outage
    loss: Loss | None


class Tally(msgspec.Struct):
    """Tokens that settled since the last round. latency_seconds: the sum over the good ones."""

    sent: int = 0
    good: int = 0
    latency_seconds: float = 0.0


class _Waiting(msgspec.Struct):
    outage: Outage
    tries: int = 0


class Away(msgspec.Struct, frozen=True):
    """home: who served before the service moved; event: the id of that move."""

    home: str
    event: str


class _Memory(msgspec.Struct):
    """What a restart must not forget: where the machine stands, the outages that were not handed over yet, who served at first."""

    state: State = msgspec.field(default_factory=State)
    waiting: list[_Waiting] = msgspec.field(default_factory=list)
    away: Away | None = None


class Stream:
    """Starts its prober in `start`, hands over in `take_tally` and `take_findings`. file: where it remembers, None: nowhere.

    reason: why the bad token that settled last was bad, "" before the first. mistake: what is wrong with our own asking, "" while
    nothing is.
    """

    def __init__(
        self,
        name: str,
        make_reach: Callable[[], Reach],
        pace: Pace,
        rule: Rule,
        clock: Steady,
        file: Path | None = None,
    ) -> None:
        self.name = name
        self.away: Away | None = None
        self.observe: Callable[[Token], None] | None = None
        self._file = file
        self._make_reach = make_reach
        self._pace, self._rule, self._clock = pace, rule, clock
        self._watch = OutageWatch(rule)
        self._tally = Tally()
        self._remembered: deque[Token] = deque(maxlen=MAX_REMEMBERED)
        self._waiting: list[_Waiting] = []
        self._reach: Reach | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._is_forgetful = False
        self.reason = self.mistake = ""

    @property
    def is_out(self) -> bool:
        """Whether an outage is on."""
        return self._watch.is_out

    @property
    def out_since(self) -> float | None:
        """When the outage that is on began; None while there is none."""
        return self._watch.state.began_at if self._watch.is_out else None

    @property
    def is_up(self) -> bool | None:
        """Whether the newest token in order is good; None before the first, and where nobody knows."""
        return self._watch.state.is_good

    @property
    def is_timing(self) -> bool:
        """Whether something failed and has not recovered: its clock must not be set now."""
        return self._watch.state.began_at is not None

    def start(self) -> None:
        """Send tokens from now on. Raises SourceError when the path cannot be used at all.

        Numbers begin at the tenths of a second since the epoch, so that no two runs send the same one.
        """
        memory = _read_memory(self._file)
        self._watch = OutageWatch(self._rule, memory.state)
        self._waiting, self.away = memory.waiting, memory.away
        self._reach = self._make_reach()
        first = max(memory.state.expected, int(self._clock.now() * 10))
        self._watch.skip_to(first)
        prober = Prober(self._reach, self._pace, self.settle, self._clock, first)
        self._task = asyncio.create_task(prober.run(), name=f"tokens of {self.name}")

    def settle(self, token: Token) -> None:
        """Take one settled token into account; `observe`, where it is set, sees each."""
        if self.observe is not None:
            self.observe(token)
        self.mistake = token.reason if token.is_unknown else ""
        if not token.is_unknown:
            self._tally.sent += 1
            self.reason = self.reason if token.is_good else token.reason
        if token.is_good:
            self._tally.good += 1
            self._tally.latency_seconds += token.settled_at - token.sent_at
            self._remembered.append(token)
        before = self._watch.is_out
        ended = self._watch.take(token)
        self._waiting += [_Waiting(outage) for outage in ended]
        if self._watch.is_out != before:
            self._tell()
        if ended or self._watch.is_out != before:
            self.keep()
        self._settled.set()

    async def wait_for_token(self, timeout_seconds: float) -> None:
        """Until the first token has settled, or the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._settled.wait()

    def take_tally(self) -> Tally:
        """What settled since the last call; nothing while nobody knows how it stands, which is told later. What broke the prober flies from here."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()
        if self.is_up is None:
            return Tally()
        tally, self._tally = self._tally, Tally()
        return tally

    async def take_findings(self) -> list[Finding]:
        """The outages that ended, each with its loss; one whose survivor does not answer yet comes in a later round."""
        waiting, self._waiting = self._waiting, []
        findings = []
        for entry in waiting:
            try:
                findings.append(Finding(entry.outage, await self._find_loss(entry.outage)))
            except (SourceError, OSError) as error:
                entry.tries += 1
                if entry.tries < RETRIES:
                    self._waiting.append(entry)
                    continue
                _log.warning(
                    say(
                        f"{self.name}：无法读回令牌：{explain(error)}",
                        f"{self.name}: tokens cannot be read back: {explain(error)}",
                    )
                )
                findings.append(Finding(entry.outage, None))
        return findings

    async def _find_loss(self, outage: Outage) -> Loss | None:
        tokens = [token for token in self._remembered if token.number < outage.first_good]
        if self._reach is None or not self._reach.keeps_tokens or not tokens:
            return None
        numbers = [token.number for token in tokens]
        loss = measure_loss(tokens, await self._reach.read_back(min(numbers), max(numbers)))
        # a token that was not sent in earnest cannot go missing: that none is says nothing then
        return loss if loss.lost or not outage.is_blurred else None

    def keep(self) -> None:
        """Remember where it stands; a disk that refuses costs the memory, not the measurement, and is told."""
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_suffix(".part")
            part.write_bytes(msgspec.json.encode(_Memory(self._watch.state, self._waiting, self.away)))
            part.replace(self._file)
        except OSError as error:
            if not self._is_forgetful:
                file, why = self._file, explain_system(error)
                _log.warning(say(f"无法写入 {file}：{why}", f"cannot write {file}: {why}"))
            self._is_forgetful = True

    async def stop(self) -> None:
        """End the prober and give its connections back."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        reach, self._reach = self._reach, None
        if reach is not None:
            await reach.close()

    def _tell(self) -> None:
        if self._watch.is_out:  # the token that settles it may be a good one that was late
            _log.warning(say(f"{self.name} 中断：{self.reason}", f"{self.name} is out: {self.reason}"))
        else:
            _log.warning(say(f"{self.name} 已恢复", f"{self.name} is back"))


def _read_memory(file: Path | None) -> _Memory:
    if file is None or not file.exists():
        return _Memory()
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Memory)
    except (OSError, msgspec.DecodeError) as error:
        _log.warning(
            say(f"{file} 读不出，重新开始：{explain(error)}", f"{file} cannot be read, starting anew: {explain(error)}")
        )
        return _Memory()
