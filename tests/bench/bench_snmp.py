"""What polling by SNMP costs: `python tests/bench/bench_snmp.py`. Prints tables, asserts nothing.

One switch: 48 ports, the same columns, our source with points and spool against Debian's prometheus-snmp-exporter, both asking one
snmpd. Many: 2,000 simulated devices of 48 ports every 60 s, one in twenty dead, in one agent process. Traps: what a thousand
cost, what a shed one costs. Storm: 200 of the simulated devices every 5 s in one process that also hears 10,000 traps a second of one sender,
beside the same without.
"""

import asyncio
import ctypes
import logging
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from servers import free_port, program, until
from snmpd import COMMUNITY

from agent.catalogue import load
from agent.documents import build, parse_document
from agent.errors import SourceError
from agent.points import Point
from agent.readings import Settler
from agent.rounds import Watch, in_thread
from agent.run import Runner
from agent.snmp import ber
from agent.snmp.ber import Binding
from agent.snmp.profile import load_profiles
from agent.snmp.replay import Device
from agent.sources import Surroundings, snmp_device, snmp_trap
from agent.spool import Spool

TICK = os.sysconf("SC_CLK_TCK")
PORTS, POLLS, REPEATS = 48, 200, 3
DEVICES, DEAD_EVERY, MINUTES = 2000, 20, float(os.environ.get("INFRAVITALS_SOAK_MINUTES", "3"))
PORT = 16161


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def columns() -> list[str]:
    """The object ids that our interface profile walks in every round where there are 64-bit counters."""
    [table] = load_profiles()["interfaces"].file.tables.values()
    return [one.oid for one in table.columns.values() if one.every_seconds is None and not one.unless]


@contextmanager
def switch(folder: Path) -> Iterator[str]:
    """A namespace with 48 veth pairs and an snmpd; gives its name. Needs root."""
    name, ip = f"infb{os.getpid()}", program("ip", "iproute2")
    subprocess.run([ip, "netns", "add", name], check=True)
    try:
        run = [ip, "-n", name]
        subprocess.run([*run, "link", "set", "lo", "up"], check=True)
        for port in range(1, PORTS + 1):
            subprocess.run([*run, "link", "add", f"ge{port}", "type", "veth", "peer", "name", f"x{port}"], check=True)
            subprocess.run([*run, "link", "set", f"ge{port}", "up"], check=True)
        (folder / "snmpd.conf").write_text(f"agentaddress udp:127.0.0.1:{PORT}\nrocommunity {COMMUNITY}\n")
        inside = [ip, "netns", "exec", name]
        environment = {"MIBS": "", "SNMP_PERSISTENT_DIR": str(folder / "p"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        argv = [*inside, program("snmpd", "snmpd"), "-C", "-c", str(folder / "snmpd.conf"), "-f", "-LE", "0"]
        with subprocess.Popen(argv, env=environment) as process:
            try:
                yield name
            finally:
                process.kill()
    finally:
        subprocess.run([ip, "netns", "del", name], check=True)


def enter(name: str) -> None:
    """This thread's sockets are made in that namespace from now on."""
    number = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(number, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(number)


def our_poll_seconds(folder: Path) -> tuple[float, int]:
    """CPU seconds of one poll with points and spool, and the rows it read."""

    async def measure() -> tuple[float, int]:
        (folder / "community").write_text(COMMUNITY)
        text = f"credentials: {{c: {{community: {{file: {folder}/community}}}}}}\ntargets: [{{asset: sw, host: 127.0.0.1, port: {PORT}, profiles: [interfaces]}}]"
        source = snmp_device.Source(build(parse_document(text, "b"), snmp_device.Config), Surroundings("g"))
        settler, spool = Settler(load(), "g"), make_spool(folder / f"spool-{time.monotonic_ns()}.sqlite")
        await source.open()
        await source.collect()
        began, rows = time.process_time(), 0.0
        for _ in range(POLLS):
            points = settler.settle(tuple(await source.collect()), round(time.time() * 1000), "snmp_device").points
            rows += sum(float(one.fields.get("rows_count", 0)) for one in points if one.name == "poll")
            spool.put(points)
        used = (time.process_time() - began) / POLLS
        await source.close()
        spool.close()
        return used, round(rows / POLLS)

    return asyncio.run(measure())


def make_spool(path: Path) -> Spool:
    """A spool as the agent has it."""
    return Spool(
        path,
        max_bytes=256 * 1024 * 1024,
        max_age_seconds=86400.0,
        clock=time.time,
        new_boot=lambda: os.urandom(16).hex(),
    )


def exporter_poll_seconds(folder: Path) -> float:
    """CPU seconds of one scrape of the exporter over the same columns."""
    metrics = "".join(
        f"  - name: c{number}\n    oid: {oid}\n    type: gauge\n    indexes: [{{labelname: ifIndex, type: gauge}}]\n"
        for number, oid in enumerate(columns())
    )
    walks = "".join(f"  - {oid}\n" for oid in columns())
    path, port = folder / "snmp.yml", free_port()
    path.write_text(f"bench:\n  walk:\n{walks}  metrics:\n{metrics}  version: 2\n  auth: {{community: {COMMUNITY}}}\n")
    argv = [
        program("prometheus-snmp-exporter", "prometheus-snmp-exporter"),
        f"--config.file={path}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}/snmp?target=127.0.0.1:{PORT}&module=bench"
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _is_open(port))
            for _ in range(5):
                body = urllib.request.urlopen(url).read().decode()
            assert body.count("\nc0{") >= PORTS, body[:500]
            began = cpu_of(process.pid)
            for _ in range(POLLS):
                urllib.request.urlopen(url).read()
            return (cpu_of(process.pid) - began) / POLLS
        finally:
            process.kill()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def bench_switch() -> None:
    """One 48-port switch, both pollers in turn."""
    ours, theirs, rows = [], [], 0
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with switch(folder) as name:
            enter(name)
            until(lambda: _answers())
            for _ in range(REPEATS):
                used, rows = our_poll_seconds(folder)
                ours.append(used)
                theirs.append(exporter_poll_seconds(folder))
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"one switch of {PORTS} ports, {len(columns())} columns, {rows} rows a poll, CPU a poll (median of {REPEATS} x {POLLS})"
    )
    print(
        f"  snmp_device with points and spool {1000 * mine:7.2f} ms   (runs: {', '.join(f'{1000 * x:.2f}' for x in ours)})"
    )
    print(
        f"  prometheus-snmp-exporter          {1000 * other:7.2f} ms   (runs: {', '.join(f'{1000 * x:.2f}' for x in theirs)})"
    )
    print(f"  ratio {mine / other:.2f}; no more than 1 is due, 0.5 is the aim")


def _answers() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.2)
        wanted = ber.bindings([Binding("1.3.6.1.2.1.1.3.0", ber.NULL, None)])
        try:
            probe.connect(("127.0.0.1", PORT))
            probe.send(ber.message(1, COMMUNITY.encode(), ber.pdu(ber.GET, 1, 0, 0, wanted)))
            return bool(probe.recv(1500))
        except OSError:
            return False


def simulate() -> None:
    """All live devices from one socket: the answer comes from the address that was asked. Runs as a process of its own."""
    own = Device(_switch_variables())
    memory: dict[bytes, bytes | None] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        serving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        serving.bind(("0.0.0.0", PORT))
        while True:
            data, extra, _, peer = serving.recvmsg(2048, 64)
            asked = extra[0][2][8:12]
            if _is_dead(asked[2] * 250 + asked[3] - 1):
                continue
            message = ber.read_message(data)
            pdu = ber.read_pdu(data, message.pdu)
            body = bytes([message.pdu.tag]) + data[message.pdu.start + 2 + 4 :]
            key = body if len(ber.number(pdu.request_id)) == 6 else data
            answer = memory.get(key)
            if answer is None or key is data:
                answer = memory[key] = own.answer(data, COMMUNITY.encode())
            else:
                answer = _with_id(answer, pdu.request_id)
            serving.sendmsg([answer or b""], [(socket.IPPROTO_IP, 8, bytes(4) + asked + bytes(4))], 0, peer)


def _with_id(answer: bytes, request_id: int) -> bytes:
    message = ber.read_message(answer)
    head = message.pdu.start
    number = ber.read_element(answer, head, message.pdu.end)
    wanted = ber.number(request_id)
    return answer[:head] + wanted + answer[number.end :] if number.end - head == len(wanted) else answer


def _is_dead(number: int) -> bool:
    return number % DEAD_EVERY == DEAD_EVERY - 1


def _switch_variables() -> list[Binding]:
    found = [
        Binding("1.3.6.1.2.1.1.2.0", ber.OID, "1.3.6.1.4.1.99999.1"),
        Binding("1.3.6.1.2.1.1.3.0", ber.TIME_TICKS, 5000),
        Binding("1.3.6.1.2.1.1.5.0", ber.OCTETS, b"switch"),
        Binding("1.3.6.1.6.3.10.2.1.2.0", ber.INTEGER, 1),
    ]
    [table] = load_profiles()["interfaces"].file.tables.values()
    tags = {"counter64": ber.COUNTER64, "counter32": ber.COUNTER32}
    for name, column in table.columns.items():
        for port in range(1, 1 + PORTS if not column.unless else 1):
            text = f"GE1/0/{port}".encode()
            value: ber.Value = text if column.kind == "text" else 6 if name == "type" else 1
            found.append(
                Binding(
                    f"{column.oid}.{port}",
                    ber.OCTETS if column.kind == "text" else tags.get(column.kind, ber.INTEGER),
                    value,
                )
            )
    return found


def poll_many() -> None:
    """The agent's half of the many: a process of its own, so that its CPU and memory are the agent's."""
    logging.disable(logging.WARNING)  # a hundred dead devices say so once each
    lateness: list[float] = []
    rounds: dict[str, int] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "community").write_text(COMMUNITY)
        targets = "".join(
            f"  - {{asset: sw-{number}, host: 127.60.{number // 250}.{number % 250 + 1}, port: {PORT}}}\n"
            for number in range(DEVICES)
        )
        written = f"credentials: {{c: {{community: {{file: {folder}/community}}}}}}\ntargets:\n{targets}"
        config = build(parse_document(written, "b"), snmp_device.Config)
        spool = make_spool(folder / "spool.sqlite")
        around = Surroundings("gateway", state_directory=folder)
        watches = [
            Watch("snmp_device", part, lambda part=part: snmp_device.Source(part, around), target, 60.0)  # type: ignore[misc]
            for target, part in config.split().items()
        ]

        async def keep(points: list[Point]) -> None:
            for one in points:
                if one.name == "source_round":
                    lateness.append(float(one.fields["lateness_seconds"]))
                    target, is_success = one.tags["target"], bool(one.fields["is_success"])
                    rounds[target] = rounds.get(target, 0) + is_success
                    failed.extend([] if is_success else [target])
            await in_thread(partial(spool.put, points), "spool")  # as the agent does it

        asyncio.run(_run_for(Runner(watches, asset="gateway", sink=keep), MINUTES * 60))
        spool.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    live = [f"sw-{number}" for number in range(DEVICES) if not _is_dead(number)]
    polled = [rounds.get(target, 0) for target in live]
    due = int(MINUTES - 1)
    cores = (used.ru_utime + used.ru_stime) / (MINUTES * 60)
    late = sorted(lateness)
    print(f"{DEVICES} devices of {PORTS} ports every 60 s, one in {DEAD_EVERY} dead, {MINUTES:g} minutes")
    missed = len(set(failed) & set(live))
    print(
        f"  live ones polled in every round: {len(live) - missed} of {len(live)}; each {min(polled)} times or more, {due} are due"
    )
    print(f"  lateness p99 {late[int(len(late) * 0.99)]:.3f} s, greatest {late[-1]:.3f} s (p99 below 1 s is due)")
    print(f"  {cores:.2f} of a core (below 1 is due), {used.ru_maxrss / 1024:.0f} MB resident at most (300 is due)")


async def _run_for(runner: Runner, seconds: float) -> None:
    task = asyncio.create_task(runner.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait({task})


def bench_many() -> None:
    """Simulator and agent, each in a process of its own."""
    with subprocess.Popen([sys.executable, __file__, "simulate"]) as simulator:
        try:
            until(_answers)
            subprocess.run([sys.executable, __file__, "poll"], check=True)
        finally:
            simulator.kill()


def bench_traps() -> None:
    """CPU of a taken and of a shed notification, and what that is at the rates that are asked for."""

    async def measure(per_second: float, sent: int) -> tuple[float, dict[str, int]]:
        text = f"listen: 127.0.0.1\nport: {PORT}\nper_sender: {per_second}\nper_second: {per_second}\ntargets: [{{asset: sw, host: 127.0.0.1}}]"
        source = snmp_trap.Source(build(parse_document(text, "b"), snmp_trap.Config), Surroundings("g"))
        await source.open()
        variables = [
            Binding("1.3.6.1.2.1.1.3.0", ber.TIME_TICKS, 1),
            Binding("1.3.6.1.6.3.1.1.4.1.0", ber.OID, "1.3.6.1.6.3.1.1.5.3"),
            *(Binding(f"1.3.6.1.2.1.2.2.1.{column}.7", ber.INTEGER, 7) for column in (1, 7, 8)),
        ]
        trap = ber.message(1, b"c", ber.pdu(ber.TRAP_V2, 1, 0, 0, ber.bindings(variables)))
        settler, used = Settler(load(), "g"), 0.0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            total: dict[str, int] = {}
            for _ in range(sent // 500):
                for _ in range(500):
                    sender.sendto(trap, ("127.0.0.1", PORT))
                began = time.process_time()
                await asyncio.sleep(0.01)
                readings = await source.collect()
                settler.settle(tuple(readings), 0, "snmp_trap")
                used += time.process_time() - began
                for name, value in readings[-1].fields.items():
                    total[name] = total.get(name, 0) + int(value)
        await source.close()
        return used / sent, total

    taken, counts = asyncio.run(measure(1e6, 20_000))
    shed, storm = asyncio.run(measure(1.0, 50_000))
    print("notifications of v2c with five variables, events settled into points")
    print(
        f"  taken {1e6 * taken:6.1f} us of CPU each: 500/s take {500 * taken:.3f} of a core (a third is due)   {counts}"
    )
    print(f"  shed  {1e6 * shed:6.1f} us of CPU each: 10,000/s take {10_000 * shed:.3f} of a core   {storm}")


STORM_DEVICES, STORM_INTERVAL, STORM_SECONDS, STORM_PER_SECOND = 200, 5.0, 40.0, 10_000
TRAP_PORT = 16162


def send_storm() -> None:
    """Ten thousand traps a second, a hundred every ten milliseconds. Runs as a process of its own; says how many it sent."""
    variables = [
        Binding("1.3.6.1.2.1.1.3.0", ber.TIME_TICKS, 1),
        Binding("1.3.6.1.6.3.1.1.4.1.0", ber.OID, "1.3.6.1.6.3.1.1.5.3"),
        *(Binding(f"1.3.6.1.2.1.2.2.1.{column}.7", ber.INTEGER, 7) for column in (1, 7, 8)),
    ]
    trap = ber.message(1, b"c", ber.pdu(ber.TRAP_V2, 1, 0, 0, ber.bindings(variables)))
    began, sent = time.monotonic(), 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while (passed := time.monotonic() - began) < STORM_SECONDS:
            while sent < passed * STORM_PER_SECOND:
                sender.sendto(trap, ("127.0.0.1", TRAP_PORT))
                sent += 1
            time.sleep(0.01)
    print(f"  {sent / STORM_SECONDS:,.0f} traps a second were sent")


def poll_beside() -> None:
    """The agent's half of the storm: targets and the listener in one process, as a gateway has them."""
    logging.disable(logging.WARNING)
    lateness: list[float] = []
    rounds: list[bool] = []
    heard: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "community").write_text(COMMUNITY)
        numbers = [number for number in range(2 * STORM_DEVICES) if not _is_dead(number)][:STORM_DEVICES]
        targets = "".join(
            f"  - {{asset: sw-{number}, host: 127.60.{number // 250}.{number % 250 + 1}, port: {PORT}}}\n"
            for number in numbers
        )
        written = f"interval_seconds: {STORM_INTERVAL}\ndeadline_seconds: {STORM_INTERVAL}\ncredentials: {{c: {{community: {{file: {folder}/community}}}}}}\ntargets:\n{targets}"
        config = build(parse_document(written, "b"), snmp_device.Config)
        listener = f"listen: 127.0.0.1\nport: {TRAP_PORT}\ntargets: [{{asset: it, host: 127.0.0.1}}]"
        traps = build(parse_document(listener, "b"), snmp_trap.Config)
        spool = make_spool(folder / "spool.sqlite")
        around = Surroundings("gateway", state_directory=folder)
        watches = [
            Watch("snmp_device", part, lambda part=part: snmp_device.Source(part, around), target, STORM_INTERVAL)  # type: ignore[misc]
            for target, part in config.split().items()
        ]
        watches.append(Watch("snmp_trap", traps, lambda: snmp_trap.Source(traps, around), "local", STORM_INTERVAL))

        async def keep(points: list[Point]) -> None:
            for one in points:
                if one.name == "source_round" and one.tags["source"] == "snmp_device":
                    lateness.append(float(one.fields["lateness_seconds"]))
                    rounds.append(bool(one.fields["is_success"]))
                elif one.name == "notification_intake":
                    for name, value in one.fields.items():
                        heard[name] = heard.get(name, 0) + float(value)
            await in_thread(partial(spool.put, points), "spool")

        asyncio.run(_run_for(Runner(watches, asset="gateway", sink=keep), STORM_SECONDS))
        spool.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    late = sorted(lateness)
    told = ", ".join(f"{name.removesuffix('_count')} {value:,.0f}" for name, value in heard.items() if value)
    print(
        f"  {len(rounds)} rounds, {rounds.count(False)} failed; lateness p50 {late[len(late) // 2]:.3f} s, p99 {late[int(len(late) * 0.99)]:.3f} s;"
        f" {(used.ru_utime + used.ru_stime) / STORM_SECONDS:.2f} of a core   {told}"
    )


def bench_storm() -> None:
    """Polling without and with ten thousand traps a second."""
    print(
        f"{STORM_DEVICES} devices of {PORTS} ports every {STORM_INTERVAL:g} s and a trap listener, one process, {STORM_SECONDS:g} s"
    )
    with subprocess.Popen([sys.executable, __file__, "simulate"]) as simulator:
        try:
            until(_answers)
            for is_stormy in (False, True):
                sender = subprocess.Popen([sys.executable, __file__, "storm"]) if is_stormy else None
                subprocess.run([sys.executable, __file__, "beside"], check=True)
                if sender:
                    sender.wait()
        finally:
            simulator.kill()


PARTS = {"simulate": simulate, "poll": poll_many, "beside": poll_beside, "storm": send_storm}
"""What runs as a process of its own."""

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        PARTS[sys.argv[1]]()
    else:
        for bench in (bench_traps, bench_storm, bench_many, bench_switch):
            try:
                bench()
            except (SourceError, AssertionError) as error:
                print(f"{bench.__name__}: {error}")
            print(flush=True)
