"""What the agent costs the server that it watches: `python tests/bench/bench_agent.py`. Prints a table, asserts nothing.

CPU: one gather of the sources that start no process, points made and rounded, against one scrape of Debian's
prometheus-node-exporter limited to the same facts, on this machine in this run. Memory: the real agent with every source
and a real broker; INFRAVITALS_SOAK_SECONDS says how long (half an hour is the claim; the default is shorter).
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from servers import Mosquitto, free_port, program, until

from agent import catalogue
from agent.config import default_sources
from agent.readings import Settler
from agent.rounds import Clocks, Gatherer, Watch
from agent.sources import Surroundings
from agent.workers import Workers

ROUNDS = 100
REPEATS = 5
CPU_LIMIT = 0.25
RESIDENT_LIMIT_BYTES = 36e6
SOAK_SECONDS = float(os.environ.get("INFRAVITALS_SOAK_SECONDS", "300"))

GATHERED = ("host_cpu", "host_memory", "host_disk", "host_network", "host_uptime", "host_raid")
SAME_FACTS = (
    "cpu",
    "loadavg",
    "meminfo",
    "filesystem",
    "diskstats",
    "netdev",
    "netclass",
    "bonding",
    "stat",
    "mdadm",
    "btrfs",
)
"""node_exporter's collectors for the same facts."""

TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_of(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def gather_cpu(watches: list[Watch]) -> float:
    """CPU seconds of one gather of all `watches` with its points, mean over many rounds."""
    settler, workers = Settler(catalogue.load(), "bench"), Workers()
    gatherers = [Gatherer(watch, Clocks(), workers) for watch in watches]
    await asyncio.gather(*(gatherer.gather() for gatherer in gatherers))
    began = time.process_time()
    for _ in range(ROUNDS):
        for outcome in await asyncio.gather(*(gatherer.gather() for gatherer in gatherers)):
            settler.settle(outcome.readings, round(time.time() * 1000), "bench")
    spent = time.process_time() - began
    for gatherer in gatherers:
        await gatherer.close()
    workers.close()
    return spent / ROUNDS


@contextmanager
def node_exporter(collectors: tuple[str, ...] | None) -> Iterator[tuple[int, str]]:
    """A running node_exporter on loopback: its pid and the address to scrape."""
    port = free_port()
    only = (
        [] if collectors is None else ["--collector.disable-defaults", *(f"--collector.{name}" for name in collectors)]
    )
    command = [
        program("prometheus-node-exporter", "prometheus-node-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
        *only,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/metrics"
    try:
        until(lambda: _answers(address))
        yield process.pid, address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return bool(scrape(address))
    except OSError:
        return False


def scrape(address: str) -> bytes:
    """One scrape."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        return bytes(answer.read())


def scrape_cpu(pid: int, address: str) -> float:
    """CPU seconds of one scrape, mean over many."""
    began = cpu_of(pid)
    for _ in range(ROUNDS):
        scrape(address)
    return (cpu_of(pid) - began) / ROUNDS


def bench_cpu(folder: Path) -> None:
    """The table of CPU per gather and scrape, in pairs."""
    watches = [section.watch(Surroundings("bench", state_directory=folder)) for section in default_sources()]
    plain = [watch for watch in watches if watch.source in GATHERED]
    starting = [watch for watch in watches if watch not in plain]
    with node_exporter(SAME_FACTS) as same, node_exporter(None) as usual:
        rows = []
        for _ in range(REPEATS):
            rows.append((asyncio.run(gather_cpu(plain)), scrape_cpu(*same), scrape_cpu(*usual)))
        memory = resident_of(same[0])
    ours, peer, peer_usual = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(row[0] / row[1] for row in rows)
    print(f"one gather of {', '.join(watch.source for watch in plain)}")
    print(f"  agent                               {ours * 1000:8.2f} ms CPU")
    print(
        f"  node_exporter, the same facts       {peer * 1000:8.2f} ms CPU   agent/peer {ratio:.2f} (limit {CPU_LIMIT})"
    )
    print(f"  node_exporter, its default facts    {peer_usual * 1000:8.2f} ms CPU   agent/peer {ours / peer_usual:.2f}")
    print(f"  node_exporter resident              {memory / 1e6:8.1f} MB")
    print(
        f"stated apart, every 60 or 300 s: {', '.join(watch.source for watch in starting)} (what of them this machine has)"
    )
    print(f"  agent's own part                    {asyncio.run(gather_cpu(starting)) * 1000:8.2f} ms CPU")


CONFIG = """
site: bench
agent: bench-1
broker: {{host: 127.0.0.1, port: {port}}}
state_directory: {folder}/state
sources:
{sources}
"""


def bench_memory(folder: Path) -> None:
    """Resident memory of the real agent, every source, real broker, nobody receipting: the spool fills too."""
    sources = "\n".join(f"  {section.name}: {{}}" for section in default_sources())
    with Mosquitto(folder) as broker:
        config = folder / "agent.yaml"
        config.write_text(CONFIG.format(port=broker.port, folder=folder, sources=sources))
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "run", "-c", str(config)], stderr=subprocess.DEVNULL
        )
        try:
            peak, end = 0, time.monotonic() + SOAK_SECONDS
            while time.monotonic() < end:
                time.sleep(5)
                peak = max(peak, resident_of(process.pid))
            now, cpu = resident_of(process.pid), cpu_of(process.pid)
        finally:
            process.terminate()
            process.wait()
    print(f"the agent with {len(default_sources())} sources after {SOAK_SECONDS:.0f} s")
    print(
        f"  resident                            {now / 1e6:8.1f} MB   peak {peak / 1e6:.1f} MB   of limit {now / RESIDENT_LIMIT_BYTES:.2f}x"
    )
    print(f"  CPU                                 {cpu / SOAK_SECONDS * 60:8.2f} s a minute")


def main() -> None:
    """Both tables."""
    with tempfile.TemporaryDirectory() as folder:
        bench_cpu(Path(folder))
        bench_memory(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
