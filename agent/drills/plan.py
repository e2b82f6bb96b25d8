"""The plan of a drill, a YAML file: what is watched, who starts it, when, what is done, and when it is broken off.

`drill plan` prints every action and the plan's digest and touches nothing; `drill run` wants that digest and two of the people.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from agent.continuity.settings import Id
from agent.errors import WrongCall
from agent.language import say

Argv = Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=1)]
Moment = Annotated[
    datetime,
    msgspec.Meta(
        tz=True,
        description=(
            "带时区的时刻，如 2026-11-26T22:00:00+08:00 / a time with its offset such as 2026-11-26T22:00:00+08:00"
        ),
    ),
]
People = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], ...],
    msgspec.Meta(
        min_length=2, description="至少两个人，如 [zhang-san, li-si] / at least two, such as [zhang-san, li-si]"
    ),
]


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"begins": "from", "ends": "until"}):
    """When it may begin; times with their offset."""

    begins: Moment
    ends: Moment

    def __post_init__(self) -> None:
        if self.ends <= self.begins:
            raise ValueError(say("until 须晚于 from", "'until' must be later than 'from'"))


class Hook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is run, as lists of words without a shell. switch: makes the fault or the switch. back: undoes it, also when broken off.

    hands_off: that nobody acts between the switch and the recovery; only then a slow recovery counts as automatic.
    """

    switch: tuple[Argv, ...] = ()
    back: tuple[Argv, ...] = ()
    hands_off: bool = False
    action_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """drill: its id. probe: a name under continuity_probe.probes. people: who may start it; two of them do.

    abort_seconds: an outage that lasts longer breaks the drill off: `back` is run. observe_seconds: the longest it may last.
    """

    drill: Id
    probe: Id
    people: People
    window: Window
    reason: str = ""
    hook: Hook = Hook()
    abort_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    observe_seconds: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 900.0
    calm_seconds: Annotated[float, msgspec.Meta(ge=0.3, le=600)] = 3.0
    period_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=1)] = 0.1

    def __post_init__(self) -> None:
        if len(set(self.people)) < 2:
            raise ValueError(say("people 须有两个不同的人", "'people' must name two different people"))

    @property
    def digest(self) -> str:
        """SHA-256 of what the plan says; its layout does not count."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


def check_start(plan: Plan, by: Sequence[str], code: str, now: datetime) -> None:
    """Whether the drill may begin now. Raises WrongCall: who is missing, that the plan changed, that it is not the time."""
    if len(set(by) & set(plan.people)) < 2 or set(by) - set(plan.people):
        names = "、".join(plan.people)
        raise WrongCall(
            say(
                f"须由计划中的两个人一起开始：--by 写两次，可写 {names}",
                f"two of the plan's people start it together: --by twice, of {', '.join(plan.people)}",
            )
        )
    if len(code) < 8 or not plan.digest.startswith(code):
        raise WrongCall(
            say(
                "计划与 --code 不符：先看 drill plan 打印的全部动作与代号，再照抄代号",
                "the plan is not the one of --code: read what `drill plan` prints, and give the code that it shows",
            )
        )
    if not plan.window.begins <= now < plan.window.ends:
        begins, ends = plan.window.begins.isoformat(), plan.window.ends.isoformat()
        moment = now.astimezone(plan.window.begins.tzinfo).isoformat(timespec="seconds")
        raise WrongCall(
            say(
                f"现在是 {moment}，不在窗口内：{begins} 至 {ends}",
                f"it is {moment}, outside of the plan's window, {begins} to {ends}",
            )
        )


def describe(plan: Plan) -> list[str]:
    """Everything that `run` will do, a line each."""
    lines = [
        say(f"演练 {plan.drill}：{plan.reason}", f"drill {plan.drill}: {plan.reason}"),
        say(
            f"窗口 {plan.window.begins.isoformat()} 至 {plan.window.ends.isoformat()}",
            f"window {plan.window.begins.isoformat()} to {plan.window.ends.isoformat()}",
        ),
        say(
            f"1. 向 {plan.probe} 每 {plan.period_seconds:g} 秒发一个令牌；先要连续 {plan.calm_seconds:g} 秒正常，否则不开始",
            f"1. a token to {plan.probe} every {plan.period_seconds:g} s; {plan.calm_seconds:g} s must be in order first, else it does not begin",
        ),
    ]
    if plan.hook.switch:
        lines += [say(f"2. 运行：{_words(argv)}", f"2. run: {_words(argv)}") for argv in plan.hook.switch]
    else:
        lines.append(say("2. 由操作人动手；本程序只观察", "2. the operator acts; this program only watches"))
    lines.append(
        say(
            f"3. 量到恢复为止；中断超过 {plan.abort_seconds:g} 秒即中止，最长观察 {plan.observe_seconds:g} 秒",
            f"3. time it until it has recovered; broken off after an outage of {plan.abort_seconds:g} s, watched for {plan.observe_seconds:g} s at most",
        )
    )
    if plan.hook.back:
        lines += [
            say(f"4. 恢复之后或中止时运行：{_words(argv)}", f"4. after it, or when broken off, run: {_words(argv)}")
            for argv in plan.hook.back
        ]
    lines.append(
        say(
            "5. 读回令牌，记下丢失；删去演练的令牌",
            "5. read the tokens back, note what is lost; delete the drill's tokens",
        )
    )
    lines.append(say(f"代号 {plan.digest[:12]}", f"code {plan.digest[:12]}"))
    return lines


def _words(argv: Argv) -> str:
    return msgspec.json.encode(argv).decode()
