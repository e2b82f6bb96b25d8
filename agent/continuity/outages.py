"""The outage state machine: from settled tokens, in whatever order they settle, to outages with a start and an end.

    up --a token fails--> failing --`failures` of them--> out --`sustained` good ones in a row--> up

A token of which nobody knows anything begins no outage and ends none; it only interrupts what was in a row, and blurs what it
lies in. In a drill it counts as failed.
Tokens settle out of order (one that waits for its deadline settles after a later one that was answered), so they are
kept until all before them are known. Each settles by its deadline, so nothing waits long. What was in flight when the
prober ended never settles: `skip_to` says where the numbers go on.
"""

from collections.abc import Iterator

import msgspec

from agent.continuity.tokens import Token


class Rule(msgspec.Struct, frozen=True):
    """failures: so many failed tokens make an outage. sustained: so many good ones in a row end it.

    is_unknown_failed: that a token of which nobody knows anything is a failed one.
    """

    failures: int = 2
    sustained: int = 3
    is_unknown_failed: bool = False


class Outage(msgspec.Struct, frozen=True):
    """An outage that has ended. began_at: when the first failed token was sent; ended_at: when the first of the good ones was answered.

    failed: tokens that failed. served_before, served_after: who answered, "" where nobody says.
    last_good: the number of the last good token before it, None when none was seen; first_good: that of the first after it.
    is_blurred: of some tokens between those two nobody knows anything: it may have begun before, and lost more than was seen.
    """

    began_at: float
    ended_at: float
    failed: int
    served_before: str
    served_after: str
    last_good: int | None
    first_good: int
    is_blurred: bool = False

    @property
    def duration_seconds(self) -> float:
        """From the first failure to lasting recovery; never negative, also when the clock was set back meanwhile."""
        return max(0.0, self.ended_at - self.began_at)

    @property
    def is_moved(self) -> bool:
        """Whether another server answers than before."""
        return bool(self.served_before and self.served_after and self.served_before != self.served_after)


class State(msgspec.Struct):
    """Where the machine stands; what a restart must not forget. is_blurred: since the last good token, or in the outage that is on."""

    expected: int = 0
    began_at: float | None = None
    failed: int = 0
    served_by: str = ""
    last_good: int | None = None
    is_good: bool | None = None
    is_blurred: bool = False


class OutageWatch:
    """Takes tokens in any order, each once; gives outages as they end.

    A change of server without one failed token is given as an outage without failures, of the time between the two answers.
    """

    def __init__(self, rule: Rule, state: State | None = None) -> None:
        self.state = state or State()
        self._rule = rule
        self._waiting: dict[int, Token] = {}
        self._good: list[Token] = []
        self._moving: list[Token] = []
        self._last: Token | None = None

    @property
    def is_out(self) -> bool:
        """Whether an outage is on."""
        return self.state.began_at is not None and self.state.failed >= self._rule.failures

    def take(self, token: Token) -> list[Outage]:
        """One settled token; the outages that end by it. What came before is ignored: it is known already."""
        if token.number >= self.state.expected:
            self._waiting.setdefault(token.number, token)
        return list(self._advance())

    def skip_to(self, number: int) -> list[Outage]:
        """Nothing below `number` will settle any more."""
        ended: list[Outage] = []
        for waiting in sorted(key for key in self._waiting if key < number):
            self.state.expected = waiting
            ended += self._advance()
        self.state.expected = max(self.state.expected, number)
        return ended + list(self._advance())

    def _advance(self) -> Iterator[Outage]:
        while token := self._waiting.pop(self.state.expected, None):
            self.state.expected += 1
            is_unknown = token.is_unknown and not self._rule.is_unknown_failed
            self.state.is_good = None if is_unknown else token.is_good
            self.state.is_blurred = self.state.is_blurred or token.is_unknown
            if is_unknown:
                self._good.clear()
                self._moving.clear()
            elif not token.is_good:
                self._note_failure(token)
            elif outage := self._judge_good(token):
                yield outage

    def _note_failure(self, token: Token) -> None:
        self._good.clear()
        self._moving.clear()
        if self.state.began_at is None:
            self.state.began_at = token.sent_at
        self.state.failed += 1

    def _judge_good(self, token: Token) -> Outage | None:
        state = self.state
        if state.began_at is None:
            return self._judge_move(token)
        self._good.append(token)
        if len(self._good) < self._rule.sustained:
            return None
        outage = self._end_outage(state.began_at)
        state.began_at, state.failed = None, 0
        self._remember(token)
        self._good.clear()
        return outage

    def _judge_move(self, token: Token) -> Outage | None:
        """A good token outside an outage; another server must answer `sustained` times in a row to have taken over."""
        before, last = self.state.served_by, self._last
        if not (before and token.served_by and before != token.served_by) or last is None:
            self._moving.clear()
            self._remember(token)
            return None
        if self._moving and self._moving[0].served_by != token.served_by:
            self._moving.clear()
        self._moving.append(token)
        if len(self._moving) < self._rule.sustained:
            return None
        first, state = self._moving[0], self.state
        move = Outage(
            last.settled_at,
            first.settled_at,
            0,
            before,
            token.served_by,
            state.last_good,
            first.number,
            state.is_blurred,
        )
        self._moving.clear()
        self._remember(token)
        return move

    def _end_outage(self, began_at: float) -> Outage | None:
        first = self._good[0]
        after = next((token.served_by for token in reversed(self._good) if token.served_by), "")
        is_moved = bool(self.state.served_by and after and self.state.served_by != after)
        if self.state.failed < self._rule.failures and not is_moved:
            return None
        if is_moved and self.state.is_blurred and self._last is not None:
            began_at = min(began_at, self._last.settled_at)  # when it left is not known: at the worst right then
        ended_at, state = min(token.settled_at for token in self._good), self.state
        return Outage(
            began_at, ended_at, state.failed, state.served_by, after, state.last_good, first.number, state.is_blurred
        )

    def _remember(self, token: Token) -> None:
        self._last = token
        self.state.is_blurred = False
        self.state.last_good = token.number
        self.state.served_by = token.served_by or self.state.served_by
