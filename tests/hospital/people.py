"""What runs on the hosts of the hospital: a clinical server that notes when it served, clinicians, a terminal server, a gathering agent.

python -m hospital.people serve NAME PORT NOTES
python -m hospital.people use HOST PORT
python -m hospital.people connect SERIAL_PORT PORT NOTES
python -m hospital.people gather SOURCE CONFIG.json STATE_DIRECTORY
python -m hospital.people mutant COMMAND ...
"""

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from agent.continuity.reach import Tcp
from agent.continuity.sql import SqlTokens
from agent.errors import SourceError
from agent.sources import Reading, Surroundings, keepalived, load_source, pacemaker
from collector.cli import main


async def serve(name: str, port: str, notes: str) -> None:
    """Say NAME to whoever connects; each time served is a line of NOTES, on the machine's one clock."""
    with Path(notes).open("a", buffering=1) as book:

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            book.write(f"{time.time():.6f} {writer.get_extra_info('sockname')[0]}\n")
            writer.write(f"{name}\n".encode())
            writer.close()

        async with await asyncio.start_server(greet, "0.0.0.0", int(port)) as server:
            await server.serve_forever()


async def use(host: str, port: str) -> None:
    """Connect every 10 ms, so that the servers' notes are as fine as that."""

    async def visit() -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.9):
                reader, writer = await asyncio.open_connection(host, int(port))
                await reader.read(64)
                writer.close()

    visits: set[asyncio.Task[None]] = set()
    while True:
        visit_now = asyncio.create_task(visit())
        visits.add(visit_now)
        visit_now.add_done_callback(visits.discard)
        await asyncio.sleep(0.01)


class TerminalServer:
    """Serial lines of machines on one side, the network on the other, as instruments are connected in a laboratory.

    A visitor is told where the machine is that sent its byte back; each byte that came back is a line of the notes.
    """

    def __init__(self, notes: Path) -> None:
        self._book = notes.open("a", buffering=1)
        self._lines: set[asyncio.StreamWriter] = set()
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._bytes = itertools.cycle(range(256))

    async def run(self, serial_port: str, port: str) -> None:
        """Never returns."""
        lines = await asyncio.start_server(self._listen, "0.0.0.0", int(serial_port))
        visitors = await asyncio.start_server(self._visit, "0.0.0.0", int(port))
        async with lines, visitors:
            await asyncio.gather(lines.serve_forever(), visitors.serve_forever())

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("peername")[0]
        self._lines.add(writer)
        with contextlib.suppress(OSError):
            while came := await reader.read(64):
                self._book.write(f"{time.time():.6f} {host}\n")
                for byte in came:
                    asker = self._waiting.pop(byte, None)
                    if asker is not None and not asker.done():
                        asker.set_result(host)
        self._lines.discard(writer)

    async def _visit(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        byte = next(self._bytes)
        answer = self._waiting[byte] = asyncio.get_running_loop().create_future()
        for line in self._lines:
            line.write(bytes([byte]))
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(0.9):
                writer.write(f"{await answer}\n".encode())
        writer.close()


async def connect(serial_port: str, port: str, notes: str) -> None:
    """A terminal server until it is ended."""
    await TerminalServer(Path(notes)).run(serial_port, port)


async def say_ok(*_: object) -> str:
    """The mutant: whatever happens, the token is fine."""
    return ""


def mutate() -> None:
    """From now on every probe of this process says that all is well."""
    first_of_all = pacemaker.Source._read
    well: list[Reading] = []

    def say_well(source: pacemaker.Source, root: ElementTree.Element) -> Iterator[Reading]:
        """What was said when both nodes were there and the resource ran."""
        readings = list(first_of_all(source, root))
        facts = {key: value for reading in readings for key, value in reading.fields.items()}
        if not well and facts["nodes_up_count"] == 2 and facts.get("is_active"):
            well.extend(readings)
        return iter(well or readings)

    Tcp.send = say_ok  # type: ignore[method-assign]
    SqlTokens.send = say_ok  # type: ignore[method-assign]
    keepalived.count_owners = lambda *_: 1  # type: ignore[assignment]
    pacemaker.Source._read = say_well  # type: ignore[method-assign]


async def gather(name: str, config: str, state: str) -> None:
    """Gather a source four times a second and print each reading as a line of JSON."""
    module = load_source(name)
    if "HOSPITAL_MUTANT" in os.environ:
        mutate()
    settings = msgspec.json.decode(Path(config).read_bytes(), type=module.Config)
    source = module.Source(settings, Surroundings("probe-host", state_directory=Path(state)))
    await source.open()
    while True:
        try:
            for reading in await source.collect():
                print(json.dumps(msgspec.to_builtins(reading)), flush=True)
        except SourceError as error:
            print(json.dumps({"name": "trouble", "fields": {"text": str(error)}, "tags": {}}), flush=True)
        await asyncio.sleep(0.25)


def command(arguments: Sequence[str]) -> int:
    """The product's own command line, with the mutant within."""
    mutate()
    return main(arguments)


if __name__ == "__main__":
    if sys.argv[1] == "mutant":
        sys.exit(command(sys.argv[2:]))
    asyncio.run({"serve": serve, "use": use, "connect": connect, "gather": gather}[sys.argv[1]](*sys.argv[2:]))
