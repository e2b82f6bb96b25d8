"""What a store in trouble costs: nothing. A real InfluxDB that is killed, fills its disk, answers 5xx, hangs, or whose answers get lost."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from http_faults import HttpFaults
from influxstore import KeptInInfluxDB
from line import DEADLINE_SECONDS, Agent, assert_kept_once, make_ingest, running
from servers import program, until_async

from agent.inprocess import InProcessLink
from agent.wire import Address
from collector.ingest import Ingest
from collector.quarantine import Quarantine
from collector.server import StoreThreads

ADDRESS = Address("hospital", "srv-1")
BATCHES = 60
FULL_DISK_MEGABYTES = 96


@dataclass
class Line:
    """An agent, a collector, and a store behind a server that can be told to fail."""

    kept: KeptInInfluxDB
    faults: HttpFaults
    threads: StoreThreads
    ingest: Ingest
    agent: Agent
    link: InProcessLink

    async def suffer(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        """Make points before, during and after a trouble; every one of them is stored once in the end."""
        async with running(self.ingest.run(self.link.deliveries()), self.agent.publisher.run()):
            await self.agent.make(BATCHES)
            await until_async(lambda: self.ingest.counts().batches >= BATCHES // 2, DEADLINE_SECONDS)
            await asyncio.to_thread(begin)
            await self.agent.make(BATCHES)
            await until_async(lambda: self.ingest.is_stalled, DEADLINE_SECONDS)
            assert self.agent.spool.state().batches > 0, "what is not written is not receipted"
            await asyncio.to_thread(end)
            await self.agent.make(BATCHES)
            assert await self.agent.publisher.drain(DEADLINE_SECONDS)
        assert self.ingest.counts().set_aside == {}, "a store in trouble is no reason to set anything aside"
        await asyncio.to_thread(assert_kept_once, self.threads, self.kept, self.agent)


@contextmanager
def line_of(folder: Path, kept: KeptInInfluxDB) -> Iterator[Line]:
    with ExitStack() as stack:
        stack.enter_context(kept)
        faults = stack.enter_context(HttpFaults(kept.server.port))
        store = stack.enter_context(kept.open(faults.port, timeout_seconds=8.0))
        threads = StoreThreads(store)
        stack.callback(threads.close)
        quarantine = stack.enter_context(Quarantine(folder / "quarantine.sqlite"))
        link = InProcessLink(ADDRESS, capacity=8)
        agent = Agent(folder, link, ADDRESS)
        stack.callback(agent.spool.close)
        yield Line(kept, faults, threads, make_ingest(threads, quarantine), agent, link)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with line_of(tmp_path, KeptInInfluxDB(tmp_path)) as line:
        yield line


async def test_killed_with_9(line: Line) -> None:
    await line.suffer(line.kept.server.kill, line.kept.server.start)


@pytest.mark.parametrize("answer", [(503, b'{"error":"shutting down"}'), (500, b""), (502, b"<html>no gateway</html>")])
async def test_answers_5xx(line: Line, answer: tuple[int, bytes]) -> None:
    await line.suffer(lambda: setattr(line.faults, "answer", answer), line.faults.mend)


async def test_hangs(line: Line) -> None:
    await line.suffer(lambda: setattr(line.faults, "is_hanging", True), line.faults.mend)


async def test_writes_and_its_answers_are_lost(line: Line) -> None:
    await line.suffer(lambda: setattr(line.faults, "loses_answers", True), line.faults.mend)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; needs root, as the tests with network namespaces do."""
    folder = tmp_path / "influx"
    folder.mkdir()
    size = f"size={FULL_DISK_MEGABYTES}m"
    subprocess.run([program("mount", "mount"), "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run([program("umount", "mount"), "-l", folder], check=True)


async def test_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass

    kept = KeptInInfluxDB(tmp_path)

    def make_room() -> None:
        ballast.unlink()
        kept.server.restart()  # 1.6.7 answers "no space left" for ever, seen with a third of the disk free

    with line_of(tmp_path, kept) as line:
        await line.suffer(fill, make_room)
