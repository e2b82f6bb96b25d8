"""What runs on the hosts of the hospital: a clinical server that notes when it served, clinicians, and a gathering agent.

python -m hospital.people serve NAME PORT NOTES
python -m hospital.people use HOST PORT
python -m hospital.people gather SOURCE CONFIG.json STATE_DIRECTORY
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path

import msgspec

from agent.continuity.reach import Tcp
from agent.errors import SourceError
from agent.sources import Surroundings, keepalived, load_source


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


async def say_ok(*_: object) -> str:
    """The mutant: whatever happens, the token is fine."""
    return ""


async def gather(name: str, config: str, state: str) -> None:
    """Gather a source four times a second and print each reading as a line of JSON."""
    module = load_source(name)
    if "HOSPITAL_MUTANT" in os.environ:
        Tcp.send = say_ok  # type: ignore[method-assign]
        keepalived.count_owners = lambda *_: 1  # type: ignore[assignment]
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


if __name__ == "__main__":
    asyncio.run({"serve": serve, "use": use, "gather": gather}[sys.argv[1]](*sys.argv[2:]))
