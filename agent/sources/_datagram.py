"""One datagram, one answer."""

import asyncio
import contextlib
import socket

TRIES = 2


async def ask(address: str, port: int, packet: bytes, timeout_seconds: float) -> bytes | None:
    """What comes back from the very address; None when nothing does. Sent again once: datagrams get lost."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as opened:
        opened.setblocking(False)
        with contextlib.suppress(OSError):
            opened.connect((address, port))
            for _ in range(TRIES):
                opened.send(packet)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_seconds / TRIES):
                        return await loop.sock_recv(opened, 4096)
    return None
