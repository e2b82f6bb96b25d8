"""What a program tells the systemd that started it: ready, alive, ending; sd_notify(3) over its socket, without a library."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping


def tell(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send e.g. `READY=1`; False where nobody listens. A systemd that does not take it is no trouble of ours."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(state.encode(), address)
    except OSError:
        return False
    return True


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """How long systemd waits for a word of this process before it starts it anew; None where it does not wait."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) else None


async def feed_watchdog(is_alive: Callable[[], Awaitable[object]], environment: Mapping[str, str] = os.environ) -> None:
    """Tell that we live, until cancelled, each time after `is_alive` came back: what hangs there starves the watchdog."""
    seconds = watchdog_seconds(environment)
    while seconds is not None:
        await is_alive()
        tell("WATCHDOG=1", environment)
        await asyncio.sleep(seconds / 3)
