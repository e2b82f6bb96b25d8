"""The whole line into InfluxDB: `python tests/bench/bench_line.py [STEADY_SECONDS]`. Prints a table, asserts nothing.

Real mosquitto, real `infravitals serve`, real influxd, agents that send ready batches and wait for their receipts. Beside it a
bare writer posts the same points as ready line protocol. The limit is the lesser of 0.8 x that and 60,000 points/s; the
collector should use less CPU than influxd. Then 20,000 points/s for a while (120 s, 1800 for the whole proof): memory under
300 MB, and flat, minute by minute. CPU seconds tell on a machine that others use too; rates then do not.
"""

import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import urllib3
from bench_ingest import server_points
from influxstore import KeptInInfluxDB, rows_of
from servers import Daemon, Influx, Mosquitto, answers, free_port

from agent.mqtt import Broker, MqttLink
from agent.wire import Address, Batch, encode_batch

SITE = "hospital"
AGENTS = 20
BATCH_POINTS = 480
BATCHES = 60
"""Of each agent in one round."""
ROUNDS = 5
ROUND_POINTS = AGENTS * BATCHES * BATCH_POINTS
WINDOW = 20
LIMIT = 60_000
STEADY_RATE = 20_000
MINUTE_SECONDS = 60.0
WRITE_POINTS = 5_000
STEP_MS = 48
"""Of a series: at the steady rate its points then bear the times at which they are sent."""
HEADSTART_MS = (ROUNDS + 1) * BATCHES * BATCH_POINTS * STEP_MS // 48

COLLECTOR = """
site: {site}
broker: {{host: 127.0.0.1, port: {port}}}
data_directory: {folder}
store: {store}
page: {{port: {page}}}
"""


class _Agent:
    """Ready batches, sent with a window, over one connection."""

    def __init__(self, name: str, port: int) -> None:
        self.address = Address(SITE, name)
        self._link = MqttLink(Broker("127.0.0.1", port=port), self.address)
        self._source = server_points(name, int(time.time() * 1000) - HEADSTART_MS, STEP_MS)
        self._seq = 0
        self._boot = f"boot-{name}-{time.time_ns()}"
        self._ready: list[tuple[int, bytes]] = []

    def prepare(self, batches: int) -> None:
        for _ in range(batches):
            points = [next(self._source) for _ in range(BATCH_POINTS)]
            now = int(time.time() * 1000)
            batch = Batch(points, self._boot, self._seq, now + self._seq, now, BATCH_POINTS)
            self._ready.append((self._seq, encode_batch(batch)))
            self._seq += 1

    async def send(self, pause_seconds: float = 0.0) -> None:
        """Until everything that is ready is receipted. pause_seconds: between one batch and the next."""
        room, waiting = asyncio.Semaphore(WINDOW), {seq for seq, _ in self._ready}
        async with self._link.session() as session:

            async def take() -> None:
                async for receipt in session.receipts():
                    for first, last in receipt.applied:
                        for seq in range(first, last + 1):
                            waiting.discard(seq)
                            room.release()
                    if not waiting:
                        return

            taking = asyncio.create_task(take())
            due = time.monotonic()
            for seq, payload in self._ready:
                await room.acquire()
                await session.send(payload, self._boot, seq, BATCH_POINTS)
                due += pause_seconds
                await asyncio.sleep(max(0.0, due - time.monotonic()) if pause_seconds else 0)
            await taking
        self._ready = []


def send_rounds(port: int, results: "multiprocessing.Queue[float]") -> None:
    """In a process of its own: some rounds at full speed; gives the seconds of each."""
    agents = [_Agent(f"srv-{number}", port) for number in range(AGENTS)]

    async def one() -> float:
        began = time.monotonic()
        await asyncio.gather(*(agent.send() for agent in agents))
        return time.monotonic() - began

    for _ in range(ROUNDS + 1):  # the first makes the series
        for agent in agents:
            agent.prepare(BATCHES)
        results.put(-1.0)
        results.put(asyncio.run(one()))


def send_steadily(port: int, seconds: float) -> None:
    """In a process of its own: STEADY_RATE points a second from all agents together."""
    agents = [_Agent(f"srv-{number}", port) for number in range(AGENTS)]
    pause = BATCH_POINTS * AGENTS / STEADY_RATE

    async def one() -> None:
        await asyncio.gather(*(agent.send(pause) for agent in agents))

    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for agent in agents:
            agent.prepare(max(1, int(10 / pause)))
        asyncio.run(one())


def write_barely(influx: Influx) -> float:
    """Points a second of a writer that has its lines ready."""
    influx.ask("CREATE DATABASE bare")
    source = server_points("srv-0", int(time.time() * 1000) - HEADSTART_MS, STEP_MS)
    rates = []
    for _ in range(ROUNDS):
        bodies = [_lines(source, number % AGENTS) for number in range(AGENTS * BATCHES * BATCH_POINTS // WRITE_POINTS)]
        pool = urllib3.PoolManager(headers=urllib3.make_headers(basic_auth=":".join(influx.ADMIN)))
        began = time.monotonic()
        for body in bodies:
            answer = pool.request("POST", f"{influx.url}/write?db=bare&precision=ms", body=body, retries=False)
            assert answer.status == 204, answer.data
        rates.append(len(bodies) * WRITE_POINTS / (time.monotonic() - began))
    influx.ask("DROP DATABASE bare")
    return statistics.median(rates)


def _lines(source: Iterator[object], agent: int) -> bytes:
    lines = []
    for _ in range(WRITE_POINTS):
        point: object = next(source)
        tags = "".join(f",{key}={value}" for key, value in sorted(point.tags.items()))  # type: ignore[attr-defined]
        fields = ",".join(f"{key}={value}" for key, value in point.fields.items())  # type: ignore[attr-defined]
        lines.append(f"{point.name},site={SITE},agent=srv-{agent}{tags} {fields} {point.timestamp}")  # type: ignore[attr-defined]
    return "\n".join(lines).encode()


class _Use:
    """CPU seconds of processes between two moments."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._began = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self._processes.items()}

    def since(self) -> dict[str, float]:
        return {name: spent - self._began[name] for name, spent in self._now().items()}


def bench_speed(port: int, processes: dict[str, int], bare: float) -> None:
    """MQTT to InfluxDB as fast as it goes."""
    results: multiprocessing.Queue[float] = multiprocessing.Queue()
    sender = multiprocessing.get_context("fork").Process(target=send_rounds, args=(port, results))
    sender.start()
    rates, spent = [], []
    assert sender.pid
    for _ in range(ROUNDS + 1):
        results.get()
        use = _Use({**processes, "agents": sender.pid})
        rates.append(ROUND_POINTS / results.get())
        spent.append(use.since())
    sender.join()
    rate, limit = statistics.median(rates[1:]), min(0.8 * bare, LIMIT)
    print(f"medians of {ROUNDS} rounds of {ROUND_POINTS:,} points, {_load()}")
    print(f"bare line-protocol writer          {bare:10,.0f} points/s")
    print(f"MQTT -> InfluxDB                   {rate:10,.0f} points/s   {rate / limit:5.2f} x {limit:,.0f}")
    _show_use(spent[1:], ROUND_POINTS / rate)


def _show_use(spent: Sequence[Mapping[str, float]], seconds: float) -> None:
    """What each process used in rounds of so many seconds; most first."""
    cpu = {name: statistics.median(one[name] for one in spent) for name in spent[0]}
    for name, used in sorted(cpu.items(), key=lambda item: -item[1]):
        print(f"  {name:12} {used:6.2f} s CPU of {seconds:5.2f} s, {used / seconds:4.0%} of a core", end="")
        print(f", {used / ROUND_POINTS * 1e6:5.2f} us a point")
    print(f"  bottleneck: {max(cpu, key=cpu.__getitem__)}")
    ratios = sorted(one["collector"] / one["influxd"] for one in spent)
    print(f"  collector / influxd CPU          {statistics.median(ratios):10.2f}   (limit 1)", end="")
    print(f"   {ratios[0]:.2f} to {ratios[-1]:.2f}")


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores"


class _Minute(NamedTuple):
    """least, most, last: the collector's memory in MB. shares: of a core, by process."""

    least: float
    most: float
    last: float
    shares: Mapping[str, float]


def bench_steady(port: int, processes: dict[str, int], seconds: float) -> None:
    """A steady load: what the collector's memory does, minute by minute, and what everybody uses."""
    sender = multiprocessing.get_context("fork").Process(target=send_steadily, args=(port, seconds))
    collector = psutil.Process(processes["collector"])
    begin = collector.memory_info().rss / 1e6
    sender.start()
    print(f"{STEADY_RATE:,} points/s, {_load()}; collector at the start {begin:.0f} MB")
    minutes: list[_Minute] = []
    while sender.is_alive():
        use, began, sizes = _Use(processes), time.monotonic(), []
        while sender.is_alive() and time.monotonic() - began < MINUTE_SECONDS:
            sender.join(1.0)
            sizes.append(collector.memory_info().rss / 1e6)
        lasted = time.monotonic() - began
        shares = {name: used / lasted for name, used in use.since().items()}
        minutes.append(_Minute(min(sizes), max(sizes), sizes[-1], shares))
        print(
            f"  minute {len(minutes):3}: {min(sizes):4.0f} to {max(sizes):4.0f} MB, {sizes[-1]:4.0f} at its end;",
            end=" ",
        )
        print(", ".join(f"{name} {share:.0%}" for name, share in shares.items()), _load(), sep="; ", flush=True)
    _show_steady(begin, minutes)


def _show_steady(begin: float, minutes: Sequence[_Minute]) -> None:
    """The whole of the steady load; flat is what ends where its second quarter was."""
    quarter = max(1, len(minutes) // 4)
    early = statistics.median(minute.most for minute in minutes[quarter : 2 * quarter] or minutes)
    late = statistics.median(minute.most for minute in minutes[-quarter:])
    least, most = min(minute.least for minute in minutes), max(minute.most for minute in minutes)
    print(
        f"  memory: start {begin:.0f}, least {least:.0f}, most {most:.0f} (limit 300), end {minutes[-1].last:.0f} MB;",
        end=" ",
    )
    print(f"second quarter {early:.0f}, last quarter {late:.0f} MB, {late - early:+.1f}")
    whole = minutes[:-1] or minutes  # the last is a piece of one, and nobody sends at its end
    for word, of in (("median minute", statistics.median), ("whole", statistics.fmean)):  # influxd compacts in bursts
        shares = {name: of([minute.shares[name] for minute in whole]) for name in whole[0].shares}
        print(f"  {word}, of a core:", ", ".join(f"{name} {share:.1%}" for name, share in shares.items()), end=";")
        print(f" collector / influxd {shares['collector'] / shares['influxd']:.2f}")


def main(steady_seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        kept = stack.enter_context(KeptInInfluxDB(folder))
        with kept.open():  # makes the file with the password
            pass
        broker = stack.enter_context(Mosquitto(folder / "broker", "allow_anonymous true\nmax_queued_messages 5000"))
        collector = stack.enter_context(_collector(folder, broker.port, kept))
        processes = {"mosquitto": broker.pid, "collector": collector.pid, "influxd": kept.server.pid}
        bench_speed(broker.port, processes, write_barely(kept.server))
        bench_steady(broker.port, processes, steady_seconds)
        counts = ('SELECT count(seq) AS n FROM "batch"', 'SELECT count(used_ratio) AS n FROM "host_memory"')
        batches, points = (next(rows_of(kept.server, "kept", count))["n"] for count in counts)
        print(f"{batches:,} batches in the store, {points:,} points of host_memory")


def _collector(folder: Path, port: int, kept: KeptInInfluxDB) -> Daemon:
    page = free_port()
    file = folder / "collector.yaml"
    file.write_text(COLLECTOR.format(site=SITE, port=port, folder=folder / "data", store=kept.section, page=page))
    words: Sequence[str | Path] = [sys.executable, "-m", "collector.cli", "serve", "-c", file]
    return Daemon(words, folder, lambda: answers(page))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0)
