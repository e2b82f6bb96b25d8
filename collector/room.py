"""Whether the disk under the data still has room; what a library calls an I/O error is often that it has not."""

import os
from pathlib import Path

from agent.errors import StoreError
from agent.language import say

LEAST_FREE_BYTES = 128 * 1024
"""With less the store cannot write its log down and the quarantine not be opened: the disk is as good as full."""


def is_full(directory: Path) -> bool:
    """Whether so little room is left there for this user; False where the file system does not say."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    return found.f_blocks > 0 and free * found.f_frsize < LEAST_FREE_BYTES


def full_disk(directory: Path) -> StoreError:
    """The one sentence about it."""
    return StoreError(
        say(
            f"数据目录 {directory} 所在磁盘已满，新数据无法保存；请腾出空间后重新运行，或换一个数据目录（--data-dir 或 data_directory）",
            f"the disk of the data directory {directory} is full, new data cannot be kept; make room and run again,"
            " or choose another (--data-dir or data_directory)",
        )
    )
