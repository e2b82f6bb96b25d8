"""Measures a mounted file system, in this process or in a child where the call may hang in the kernel.

A child that did not answer in time is killed. In uninterruptible sleep it does not even die then: nobody waits for it,
its mount is left alone until it is gone, and there are never more than MAX_CHILDREN of them.
"""

import contextlib
import errno
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

MAX_CHILDREN = 4
REST_SECONDS = 60.0
"""How long a mount that did not answer is left alone: a new try costs a process start and the time-out."""

PROGRAM = """
import os, sys
for line in sys.stdin.buffer:
    try:
        s = os.statvfs(bytes.fromhex(line.decode()))
        answer = f"{s.f_frsize} {s.f_blocks} {s.f_bfree} {s.f_bavail} {s.f_files} {s.f_ffree}"
    except OSError as error:
        answer = f"! {error.errno}"
    os.write(1, answer.encode() + b"\\n")
"""
"""What the child runs: a path in hexadecimal on each line, the numbers of Space or `! errno` back."""


class Space(NamedTuple):
    """What statvfs(3) says of a file system; the counts of blocks are in units of block_bytes."""

    block_bytes: int
    blocks: int
    free_blocks: int
    available_blocks: int
    inodes: int
    free_inodes: int


def measure_space(path: bytes) -> Space:
    """The space of the file system at `path`, asked in this process. Raises OSError."""
    if sys.platform == "win32":
        usage = shutil.disk_usage(os.fsdecode(path))
        return Space(1, usage.total, usage.free, usage.free, 0, 0)
    found = os.statvfs(path)
    return Space(found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)


class _Silent(NamedTuple):
    """A mount that did not answer: the child that asked, and when (monotonic seconds)."""

    child: subprocess.Popen[bytes]
    since: float


class MountProbe:
    """Asks a child, which is started for the first question and kept for the next ones (about 8 MB resident)."""

    def __init__(self, timeout_seconds: float, monotonic: Callable[[], float], program: str = PROGRAM) -> None:
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._program = program
        self._child: subprocess.Popen[bytes] | None = None
        self._silent: dict[bytes, _Silent] = {}

    def measure(self, path: bytes) -> Space:
        """The space of the file system at `path`.

        Raises OSError as statvfs does, TimeoutError when the mount does not answer, BlockingIOError when it could
        not be asked (no child to be had), which says nothing about the mount.
        """
        self._forget_rested()
        if path in self._silent:
            raise TimeoutError(errno.ETIMEDOUT, "left alone since it did not answer")
        child = self._living_child()
        answer = self._ask(child, path)
        if answer is None:
            self._drop_child()
            self._silent[path] = _Silent(child, self._monotonic())
            raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
        if not answer:
            self._drop_child()
            _wait_a_little(child)
            raise BlockingIOError(errno.EAGAIN, "the child that asks ended")
        first, *rest = answer.split()
        if first == b"!":
            raise OSError(int(rest[0]), os.strerror(int(rest[0])))
        return Space(int(first), *map(int, rest))

    def close(self) -> None:
        """End the child; those that cannot be killed end by themselves when the kernel lets them go."""
        killed = [silent.child for silent in self._silent.values()]
        if self._child is not None:
            killed.append(self._child)
            self._drop_child()
        for child in killed:
            _wait_a_little(child)

    def _forget_rested(self) -> None:
        """Mounts whose child is gone may be asked again, after a rest."""
        now = self._monotonic()
        for path, (child, since) in list(self._silent.items()):
            if child.poll() is not None and now - since >= REST_SECONDS:
                del self._silent[path]

    def _living_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._drop_child()
        if self._child is None:
            stuck = sum(silent.child.poll() is None for silent in self._silent.values())
            if stuck >= MAX_CHILDREN:
                raise BlockingIOError(errno.EAGAIN, "too many children hang already")
            self._child = self._start_child()
        return self._child

    def _start_child(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 - our own program, no word of it from outside
                [sys.executable, "-I", "-S", "-c", self._program],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
            )
        except OSError as error:
            raise BlockingIOError(errno.EAGAIN, f"cannot start a child: {error.strerror}") from error

    def _ask(self, child: subprocess.Popen[bytes], path: bytes) -> bytes | None:
        """The child's line; b"" when it ended, None when the time is up."""
        assert child.stdin is not None and child.stdout is not None  # noqa: S101 - both are pipes
        try:
            child.stdin.write(path.hex().encode() + b"\n")
        except BrokenPipeError:
            return b""
        poll = select.poll()
        poll.register(child.stdout, select.POLLIN)
        return child.stdout.readline() if poll.poll(self._timeout_seconds * 1000) else None

    def _drop_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def _wait_a_little(child: subprocess.Popen[bytes]) -> None:
    """Reap a killed child when it is gone, which takes no time unless it cannot be killed."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(0.25)
