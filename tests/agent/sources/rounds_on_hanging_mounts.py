"""Rounds of host_disk beside real mounts, one of them hanging; run in a mount namespace of its own, prints JSON.

usage: rounds_on_hanging_mounts.py <folder> untaken|taken|many
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import psutil
from hanging_mount import HangingMount
from servers import until

from agent.sources import Surroundings
from agent.sources._mount_probe import REST_SECONDS
from agent.sources.host_disk import Config, Source

now = 0.0


def children() -> list[int]:
    """The processes of ours that are not gone."""
    return [child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def look(source: Source) -> dict[str, object]:
    """One round: fields per mount, and the children after it."""
    mounts = {Path(one.tags["mount"]).name: dict(one.fields) for one in source.collect() if one.name == "filesystem"}
    return {"mounts": mounts, "children": len(children())}


def answer_questions(mount: HangingMount, count: int) -> threading.Thread:
    """Answer so many questions for the space of `mount`, in a thread."""

    def answer() -> None:
        for _ in range(count):
            mount.answer(mount.take())

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return thread


def make_memory(path: Path) -> None:
    """A file system in memory of 16 MiB, a quarter of it in use."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=100", "tmpfs", path], check=True)
    (path / "quarter").write_bytes(bytes(4 * 1024 * 1024))


def one_dead(folder: Path, source: Source, how: str) -> list[dict[str, object]]:
    """Two rounds beside a dead mount, one after the rest, and one after it came back to life."""
    global now
    make_memory(folder / "memory")
    with HangingMount(folder / "alive") as alive, HangingMount(folder / "dead") as dead:
        answering = answer_questions(alive, 4)
        taken: list[int] = []
        taking = threading.Thread(target=lambda: taken.append(dead.take()), daemon=True)
        if how == "taken":
            taking.start()
        rounds = [look(source)]
        if how == "untaken":
            until(lambda: not children())  # killed, and the kernel withdrew its question
            taking.start()  # takes the next one
        rounds.append(look(source))
        now += REST_SECONDS
        rounds.append(look(source))  # the first child still hangs, or the next one does now
        taking.join()
        hanging = len(children())
        dead.answer(taken[0])
        until(lambda: len(children()) == hanging - 1)
        now += REST_SECONDS
        answering_again = answer_questions(dead, 1)
        rounds.append(look(source))
        answering_again.join()
        answering.join()
    return rounds


def many_dead(folder: Path, source: Source) -> list[dict[str, object]]:
    """Two rounds, a rest apart, beside six mounts of which none lets its asker be killed."""
    global now
    with contextlib.ExitStack() as mounts:
        for number in range(6):
            mount = mounts.enter_context(HangingMount(folder / f"dead{number}"))
            threading.Thread(target=mount.take, daemon=True).start()
        rounds = [look(source)]
        now += REST_SECONDS
        rounds.append(look(source))
    return rounds


def main(folder: Path, how: str) -> None:
    config = Config(include_mounts=(f"{folder}/*",), tmpfs=True, network_filesystems=True, deadline_seconds=10)
    source = Source(config, Surroundings("here", monotonic=lambda: now))
    rounds = many_dead(folder, source) if how == "many" else one_dead(folder, source, how)
    asyncio.run(source.close())
    json.dump(rounds, sys.stdout)


main(Path(sys.argv[1]), sys.argv[2])
