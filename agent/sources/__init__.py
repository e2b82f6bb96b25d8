"""Sources: one file per kind of thing that is measured; this folder is the list.

A source file holds, in this order: a docstring (what it measures; needs; reference), `Config`, `Source`.
It imports its outside library itself and is loaded only when a configuration names it.
The runner, not the source, keeps the interval, the deadline, the back-off, and measures duration and success.
"""

import asyncio
import importlib
import pkgutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, ClassVar, Protocol

import msgspec

from agent.errors import NoData, SourceError
from agent.foreign_words import explain_system
from agent.language import say
from agent.points import Value

__all__ = [
    "LOCAL",
    "Command",
    "Incomplete",
    "NoData",
    "Output",
    "Reading",
    "Source",
    "SourceConfig",
    "SourceError",
    "Surroundings",
    "load_source",
    "names",
    "run_command",
]

LOCAL = "local"
"""The target of a source that looks at its own machine."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every source's section may say; a source's `Config` extends it.

    deadline_seconds bounds one round. A source that starts a process has an interval of 60 s or more.
    """

    interval_seconds: Seconds = 15.0
    deadline_seconds: Seconds = 10.0

    def split(self) -> "Mapping[str, SourceConfig]":
        """A section for each target that is gathered on its own schedule and deadline, by its name."""
        return {LOCAL: self}


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What a source saw: a point before the runner gives it time, asset and rounding.

    asset: only where the reading is about another thing than the agent's own asset (a gateway's target).
    timestamp: milliseconds since the epoch, only where the thing itself knows better than the runner's clock.
    remark: why it is bad, for whoever tries the source by hand; it goes no further.
    """

    name: str
    fields: Mapping[str, Value]
    tags: Mapping[str, str] = {}
    asset: str | None = None
    timestamp: int | None = None
    remark: str = ""


class Incomplete(SourceError):
    """A round that failed after it had seen something: the runner keeps `readings` and counts the failure.

    is_partly: that the readings are of others, which are well and wait for the next round no longer than ever.
    """

    def __init__(self, text: str, readings: Iterable[Reading], *, is_partly: bool = False) -> None:
        super().__init__(text)
        self.readings = tuple(readings)
        self.is_partly = is_partly and bool(self.readings)


@dataclass(frozen=True, slots=True)
class Output:
    """What a command printed and how it ended."""

    stdout: str
    stderr: str
    status: int


Command = Callable[[Sequence[str], float], Awaitable[Output]]
"""Runs `argv` for at most so many seconds. Raises NoData when there is no such program, SourceError when it hangs."""


async def run_command(argv: Sequence[str], timeout_seconds: float) -> Output:
    """Run a program in the C locale without a shell or standard input, and kill it at its deadline.

    It has a session of its own: a Ctrl-C at the terminal is for us, who know what to do about it.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"},
        )
    except FileNotFoundError as error:
        raise NoData(say(f"本机没有 {argv[0]}", f"{argv[0]} is not on this machine")) from error
    except OSError as error:
        raise SourceError(
            say(f"无法运行 {argv[0]}：{explain_system(error)}", f"cannot run {argv[0]}: {explain_system(error)}")
        ) from error
    try:
        async with asyncio.timeout(timeout_seconds):
            stdout, stderr = await process.communicate()
    except TimeoutError as error:
        text = say(
            f"{argv[0]} 在 {timeout_seconds:g} 秒内没有回答", f"{argv[0]} gave no answer within {timeout_seconds:g} s"
        )
        raise SourceError(text) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Output(stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"), process.returncode or 0)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a source may touch of the world, given to it so that tests can replace it.

    root: `/proc`, `/sys`, `/etc` and `/run` are read below it. state_directory: where a source may remember something
    across restarts (None: nowhere, as in `try`). system: as sys.platform says.
    """

    asset: str
    root: Path = Path("/")
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    state_directory: Path | None = None
    command: Command = run_command
    system: str = sys.platform


class Source(Protocol):
    """One source of one target.

    The constructor does no I/O. `collect` is a plain function (run in a worker thread, for what does not block long)
    or a coroutine (for what waits on processes or the network); either gives readings under the runner's deadline.
    Nothing to measure here: raise NoData. Known trouble: raise SourceError. Anything else is a bug and may fly.
    """

    systems: ClassVar[tuple[str, ...]]
    """The values of sys.platform that it serves: linux, darwin, win32."""
    has_rates: ClassVar[bool]
    """Whether it needs two rounds before it can give everything; `try` and `--once` gather twice then."""

    def __init__(self, config: SourceConfig, surroundings: Surroundings) -> None: ...

    async def open(self) -> None:
        """May dial; called once before the first collect and again after a failed round."""

    def collect(self) -> Iterable[Reading] | Awaitable[Iterable[Reading]]:
        """One round of readings."""

    async def close(self) -> None:
        """Gives back what `open` took; called once."""


def names() -> list[str]:
    """All sources that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load_source(name: str) -> ModuleType:
    """The module of source `name`, with its `Config` and `Source`; only the folder's own names are imported."""
    if name not in names():
        raise KeyError(name)
    return importlib.import_module(f"{__name__}.{name}")
