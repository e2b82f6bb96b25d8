"""Conducts a drill: tokens at a fine pace, the hook's actions if there are any, an abort rule, and the figures at the end."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from agent.continuity.losses import measure_loss
from agent.continuity.outages import Outage, Rule
from agent.continuity.prober import Pace, Steady
from agent.continuity.reach import Reach
from agent.continuity.settings import Probe
from agent.continuity.sql import DRILL, SqlTokens
from agent.continuity.stream import Finding, Stream
from agent.continuity.tokens import Token
from agent.drills.plan import Argv, Plan
from agent.drills.records import Record, TokenLog, replay
from agent.errors import SourceError
from agent.foreign_words import explain, explain_system
from agent.language import say
from agent.sources import Surroundings
from agent.table import NEVER_SECONDS, show_seconds

RULE = Rule(failures=1, sustained=3, is_unknown_failed=True)
"""At a token every 100 ms a single failed one counts: the first failed token begins the recovery time. What our own mistake kept
us from seeing is no proof of anything: it counts as failed too."""

LOOK_SECONDS = 0.1
AUTOMATIC_WITHIN_SECONDS = 20.0
DRAIN_SECONDS = 1.0

Tell = Callable[[str], None]


class Conductor:
    """One drill from its first token to its record. `stop` ends it early: `back` is run, and the record is written all the same."""

    def __init__(self, plan: Plan, probe: Probe, folder: Path, surroundings: Surroundings, tell: Tell) -> None:
        self._plan, self._probe, self._folder = plan, probe, folder
        self._command = surroundings.command
        self._tell = tell
        self._clock = Steady(surroundings.clock, surroundings.monotonic)
        self._reach: Reach | None = None
        self._tokens: list[Token] = []
        self._findings: list[Finding] = []
        self._stop = asyncio.Event()
        self._is_begun = False
        self._unkept: OSError | None = None
        self._is_aborted = False
        self._back_at: float | None = None

    def stop(self) -> None:
        """End at the next look. Said again while it watches the return after `back`: end that too."""
        self._stop.set()

    async def run(self, people: Sequence[str]) -> Record:
        """The record, also written to the folder. Raises SourceError when the service is not in order at the start."""
        began_at = self._clock.now()
        log = TokenLog(self._folder, self._plan.drill, self._probe.service, began_at)
        pace = Pace(self._plan.period_seconds, 0.9)
        stream = Stream(self._plan.drill, self._make_reach, pace, RULE, self._clock)
        stream.observe = partial(self._note, log)
        try:
            stream.start()
            await self._wait_for_calm(stream)
            self._is_begun = True
            await self._go_through(stream)
            lost = await self._read_back()
            await self._forget()
            self._refuse_unkept()
        except BaseException:
            (log.give_up if self._is_begun else log.discard)()
            raise
        finally:
            await stream.stop()
        record = self._record(began_at, people, log.close(), lost)
        log.finish(record)
        return record

    def _refuse_unkept(self) -> None:
        """A drill without its whole log is no evidence. Raises SourceError."""
        if self._unkept is not None:
            why = explain_system(self._unkept)
            raise SourceError(
                say(
                    f"令牌日志写不下去({self._folder}：{why})，演练已中止，没有结果；请腾出空间，另取编号重做",
                    f"the token log cannot be written ({self._folder}: {why}); the drill was broken off and has no result; make room, give it another id and repeat it",
                )
            ) from self._unkept

    def _make_reach(self) -> Reach:
        self._reach = self._probe.make_reach(f"{DRILL}{self._plan.drill}"[:60], self._plan.probe)
        return self._reach

    def _note(self, log: TokenLog, token: Token) -> None:
        self._tokens.append(token)
        if self._unkept is None:
            try:
                log.add(token)
            except OSError as error:  # what the drill has switched must be switched back all the same
                self._unkept = error

    def _is_calm(self, since: float = 0.0) -> bool:
        """Whether enough tokens in a row were good, all of them sent after `since`."""
        wanted = max(3, round(self._plan.calm_seconds / self._plan.period_seconds))
        newest = self._tokens[-wanted:]
        return len(newest) == wanted and all(token.is_good and token.sent_at > since for token in newest)

    async def _wait_for_calm(self, stream: Stream) -> None:
        """So many tokens in a row must be good before anything is touched."""
        deadline = self._clock.now() + self._plan.calm_seconds * 3 + 2
        while not self._is_calm():
            if self._stop.is_set():
                raise SourceError(
                    say("演练在开始之前被中止，什么也没有动", "stopped before the drill began; nothing was touched")
                )
            if self._clock.now() > deadline:
                reason = next((token.reason for token in reversed(self._tokens) if token.reason), "")
                where = f"{self._plan.probe} ({', '.join(self._probe.addresses)})"
                raise SourceError(
                    say(
                        f"业务当前并不正常，演练不开始：{where}：{reason}",
                        f"the service is not in order, the drill does not begin: {where}: {reason}",
                    )
                )
            await asyncio.sleep(LOOK_SECONDS)
        stream.take_tally()
        self._tell(say("业务正常，演练开始", "the service is in order; the drill begins"))

    async def _go_through(self, stream: Stream) -> None:
        home = next((token.served_by for token in reversed(self._tokens) if token.served_by), "")
        try:
            if self._plan.hook.switch:
                await self._act(self._plan.hook.switch, until=self._stop)
            else:
                self._tell(say("请动手切换；Ctrl-C 结束", "make the switch now; Ctrl-C ends the drill"))
            await self._watch(stream, home)
        finally:
            # whatever ended the watching, a bug among it: no service stays switched
            is_owed = bool(self._plan.hook.back) and self._back_at is None
            if is_owed:
                self._is_aborted = self._is_aborted or self._stop.is_set()
                self._tell(say("现在切回", "switching back now"))
                await self._go_back()
        if is_owed:
            await self._watch_return(stream)

    async def _watch(self, stream: Stream, home: str) -> None:
        deadline = self._clock.now() + self._plan.observe_seconds
        while not self._is_over(stream, home) and not self._stop.is_set() and self._clock.now() < deadline:
            await self._look(stream)
            await self._look_for_abort(stream)
            if self._findings and not stream.is_timing and self._back_at is None and self._plan.hook.back:
                await self._go_back()

    async def _watch_return(self, stream: Stream) -> None:
        """Until the service is in order after `back`, so that no outage stays open; `abort_seconds` at most."""
        self._stop.clear()
        since, deadline = self._clock.now(), self._clock.now() + self._plan.abort_seconds
        while not self._is_calm(since) and not self._stop.is_set() and self._clock.now() < deadline:
            await self._look(stream)

    async def _look(self, stream: Stream) -> None:
        await asyncio.sleep(LOOK_SECONDS)
        stream.take_tally()
        for finding in await stream.take_findings():
            self._findings.append(finding)
            self._tell(describe_outage(finding))

    def _is_over(self, stream: Stream, home: str) -> bool:
        """It recovered, and where it can be seen where it is served, it is served at home again."""
        if not self._findings or stream.is_timing:
            return False
        if self._plan.hook.back and self._back_at is None:
            return False
        if not any(finding.outage.is_moved for finding in self._findings):
            # where people make the switch, a slow token before it is not the end of it: they say when
            return bool(self._plan.hook.switch) and (
                not self._plan.hook.back or self._clock.now() > (self._back_at or 0) + self._plan.calm_seconds
            )
        return self._tokens[-1].served_by == home and self._findings[-1].outage.served_after == home

    async def _look_for_abort(self, stream: Stream) -> None:
        since, seconds = stream.out_since, self._plan.abort_seconds
        is_long = since is not None and self._clock.now() - since >= seconds
        if self._is_aborted or not (is_long or self._unkept):
            return
        self._is_aborted = True
        if self._unkept:
            self._tell(say("令牌日志写不下去，中止演练", "the token log cannot be written: broken off"))
            self.stop()
        else:
            self._tell(
                say(f"中断已超过 {seconds:g} 秒，中止演练", f"the outage lasts longer than {seconds:g} s: broken off")
            )
        if self._back_at is None:
            await self._go_back()

    async def _go_back(self) -> None:
        self._back_at = self._clock.now()
        await self._act(self._plan.hook.back)

    async def _act(self, actions: Sequence[Argv], until: asyncio.Event | None = None) -> None:
        """Run actions one after the other, none after `until`; one that fails stops the rest and is told, the watching goes on."""
        for argv in actions:
            if until is not None and until.is_set():
                return
            self._tell(say(f"运行 {' '.join(argv)}", f"running {' '.join(argv)}"))
            try:
                output = await self._command(argv, self._plan.hook.action_seconds)
            except SourceError as error:
                self._tell(str(error))
                return
            if output.status:
                why = (output.stderr.strip().splitlines() or [""])[0][:200]
                self._tell(say(f"退出码 {output.status}：{why}", f"exit code {output.status}: {why}"))
                return

    async def _read_back(self) -> tuple[tuple[int, ...], float] | None:
        """What is missing at the end, and the longest span that went missing in one switch; None where no tokens are kept."""
        if self._reach is None or not self._reach.keeps_tokens:
            return None
        await asyncio.sleep(DRAIN_SECONDS)
        good = [token for token in self._tokens if token.is_good]
        numbers = [token.number for token in good]
        if not numbers:
            return (), 0.0
        try:
            present = await self._reach.read_back(min(numbers), max(numbers))
        except (SourceError, OSError, TimeoutError) as error:
            self._tell(
                say(
                    f"无法读回令牌，丢失未知：{explain(error)}",
                    f"tokens cannot be read back, the loss is unknown: {explain(error)}",
                )
            )
            return None
        whole = measure_loss(good, present)
        if not whole.lost and any(token.is_unknown for token in self._tokens):
            return None  # a token that was not sent in earnest cannot go missing
        # one switch's loss, not the time from the first switch's to the second's
        spans = [finding.loss.span_seconds for finding in self._findings if finding.loss]
        return whole.lost, (max(spans, default=0.0) or whole.span_seconds) if whole.lost else 0.0

    async def _forget(self) -> None:
        if isinstance(self._reach, SqlTokens):
            try:
                await self._reach.forget()
            except (SourceError, OSError, TimeoutError) as error:
                self._tell(
                    say(
                        f"演练的令牌没有删去：{explain(error)}",
                        f"the drill's tokens were not deleted: {explain(error)}",
                    )
                )

    def _record(
        self, began_at: float, people: Sequence[str], digest: str, lost: tuple[tuple[int, ...], float] | None
    ) -> Record:
        outages = replay(self._tokens, RULE)
        is_recovered = bool(self._tokens) and all(token.is_good for token in self._tokens[-RULE.sustained :])
        is_seen = not any(token.is_unknown for token in self._tokens)
        rto = max((outage.duration_seconds for outage in outages), default=None) if is_recovered else NEVER_SECONDS
        moves = [outage for outage in outages if outage.is_moved]
        is_home = len(moves) > 1 and moves[0].served_before == moves[-1].served_after
        return Record(
            drill=self._plan.drill,
            service=self._probe.service,
            probe=self._plan.probe,
            began_at=began_at,
            ended_at=self._clock.now(),
            people=tuple(people),
            plan_digest=self._plan.digest,
            token_log_digest=digest,
            rule=RULE,
            outages=outages,
            sent=len(self._tokens),
            acknowledged=sum(token.is_good for token in self._tokens),
            rto_seconds=rto,
            rpo_seconds=None if lost is None else lost[1],
            lost=None if lost is None else lost[0],
            is_passed=is_recovered and is_home and is_seen and not self._is_aborted,
            is_aborted=self._is_aborted,
            is_automatic=judge_hands(outages, self._back_at, is_hands_off=self._plan.hook.hands_off),
            remark=self._plan.reason,
        )


def judge_hands(outages: Sequence[Outage], back_at: float | None, *, is_hands_off: bool) -> bool | None:
    """Whether the switch's outage ended without a person; None where nobody knows.

    It is the longest of those that began before `back`: a single slow token before it is not the switch.
    """
    own = [one for one in outages if back_at is None or one.began_at < back_at]
    if not own:
        return None
    longest = max(own, key=lambda one: one.duration_seconds)
    if back_at is not None and longest.ended_at > back_at:
        return False
    return True if is_hands_off or longest.duration_seconds <= AUTOMATIC_WITHIN_SECONDS else None


def describe_outage(finding: Finding) -> str:
    """One line about an outage that has ended."""
    outage, loss = finding.outage, finding.loss
    seconds, before, after = (
        show_seconds(outage.duration_seconds),
        outage.served_before or "?",
        outage.served_after or "?",
    )
    text = say(
        f"中断 {seconds} 秒，失败 {outage.failed} 个令牌，{before} → {after}",
        f"out for {seconds} s, {outage.failed} tokens failed, {before} -> {after}",
    )
    if loss is not None:
        count, span = len(loss.lost), show_seconds(loss.span_seconds)
        text += say(f"；丢失 {count} 个已确认的令牌，{span} 秒", f"; {count} acknowledged tokens lost, {span} s")
    return text
