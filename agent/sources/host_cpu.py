"""The processors: shares of busy, input/output wait and stolen time between two rounds, and load per core.

Needs: nothing; no privilege. On Linux /proc/stat and /proc/loadavg.
Reference: proc(5); Documentation/filesystems/proc.rst of the kernel, which warns that iowait alone may fall.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import psutil

from agent.sources import Reading, SourceConfig, Surroundings
from agent.sources._kernel_files import read_kernel_file, translated_refusals

STATES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The columns of /proc/stat; the two of guests after them are counted in user and nice already."""


class Config(SourceConfig, frozen=True, kw_only=True):
    """Nothing to set beyond interval and deadline."""


class Source:
    """One reading a round; the first has only the load, because a share needs two rounds."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = True

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._root = surroundings.root
        self._system = surroundings.system
        self._before: Mapping[str, float] | None = None

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def collect(self) -> Iterable[Reading]:
        now, load = self._read_linux() if self._system == "linux" else self._read_elsewhere()
        fields = {} if self._before is None else shares(self._before, now)
        self._before = now
        if load is not None:
            fields["load_per_core_ratio"] = load
        return [Reading("host_cpu", fields)] if fields else []

    def _read_linux(self) -> tuple[Mapping[str, float], float | None]:
        """Ticks in each state since the start, and the 1-minute load divided by the cores that are online."""
        times, cores = parse_stat(read_kernel_file(f"{self._root}/proc/stat"))
        load = float(read_kernel_file(f"{self._root}/proc/loadavg").split()[0])
        return times, load / cores

    def _read_elsewhere(self) -> tuple[Mapping[str, float], float | None]:
        """The same in seconds; no load on Windows, which keeps none."""
        with translated_refusals():
            times = psutil.cpu_times()._asdict()
            if self._system == "win32":
                return times, None
            return times, psutil.getloadavg()[0] / (psutil.cpu_count() or 1)


def parse_stat(text: str) -> tuple[Mapping[str, float], int]:
    """The ticks of all processors together in each state, and how many processors are online."""
    total = text[: text.index("\n")].split()[1:]
    return dict(zip(STATES, map(float, total), strict=False)), text.count("\ncpu")


def shares(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What part of the time between two readings went where; empty when the counters started anew in between.

    Busy is all but idle and waiting, with the time that the hypervisor took (steal). A system that has no iowait or
    no steal has no such share.
    """
    growth = {state: after[state] - before[state] for state in after}
    if growth.get("iowait", 0.0) < 0:  # it alone may fall while nothing was restarted
        del growth["iowait"]
    total = sum(growth.values())
    if total <= 0 or min(growth.values()) < 0:
        return {}
    busy = sum(ticks for state, ticks in growth.items() if state not in ("idle", "iowait"))
    found = {"busy_ratio": busy / total}
    for state in ("iowait", "steal"):
        if state in growth:
            found[f"{state}_ratio"] = growth[state] / total
    return found
