"""The memory: what part is in use, how much is available to programs, what part of the swap is in use.

Needs: nothing; no privilege. On Linux /proc/meminfo (kernel 3.14 or later).
Reference: proc(5); "available" is the kernel's own estimate (MemAvailable), so caches that can be dropped are not used.
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import psutil

from agent.errors import SourceError
from agent.language import say
from agent.sources import Reading, SourceConfig, Surroundings
from agent.sources._kernel_files import read_kernel_file, translated_refusals

WANTED = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
BYTES_PER_KB = 1024
"""What /proc/meminfo means by kB."""


class Config(SourceConfig, frozen=True, kw_only=True):
    """Nothing to set beyond interval and deadline."""


class Memory(NamedTuple):
    """All in bytes; swap is 0 where there is none."""

    total: int
    available: int
    swap_total: int
    swap_free: int


class Source:
    """One reading a round; a machine without swap has no swap_used_ratio."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._root = surroundings.root
        self._system = surroundings.system

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def collect(self) -> Iterable[Reading]:
        if self._system == "linux":
            memory = parse_meminfo(read_kernel_file(f"{self._root}/proc/meminfo"))
        else:
            memory = _read_elsewhere()
        fields = {
            "used_ratio": 1 - memory.available / memory.total,
            "available_bytes": float(memory.available),
        }
        if memory.swap_total:
            fields["swap_used_ratio"] = 1 - memory.swap_free / memory.swap_total
        return [Reading("host_memory", fields)]


def parse_meminfo(text: str) -> Memory:
    """The memory in /proc/meminfo. Raises SourceError when the kernel gives no estimate of what is available."""
    kilobytes = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key in WANTED:
            kilobytes[key] = int(rest.split()[0])
    wanted = [kilobytes.get(key) for key in WANTED[:2]]
    if None in wanted:
        text = say(
            "/proc/meminfo 没有 MemAvailable，需要 3.14 或更新的内核",
            "/proc/meminfo has no MemAvailable; it needs kernel 3.14 or later",
        )
        raise SourceError(text)
    counts = (kilobytes.get(key, 0) for key in WANTED)
    return Memory(*(count * BYTES_PER_KB for count in counts))


def _read_elsewhere() -> Memory:
    with translated_refusals():
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return Memory(memory.total, memory.available, swap.total, swap.free)
