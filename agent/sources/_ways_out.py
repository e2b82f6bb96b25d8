"""Ways out that others hold open: the hospital's resolver, which asks the whole world, and its web proxies.

A question for `<nonce>.<digest>.<domain>` reaches the responder when the resolver forwards it and the domain is delegated to
the responder. CONNECT through a proxy reaches it when the proxy lets it. Neither needs a route of one's own.
Reference: RFC 1035 (4.1), RFC 9110 (9.3.6).
"""

import asyncio
import hmac
import secrets
import struct

from agent.sources._attempt import Attempt, Came
from agent.sources._datagram import ask
from agent.sources._proof import LINE_BYTES, Message, new_nonce, seal, unseal

HEADER = struct.Struct("!HHHHHH")
RECURSION_DESIRED, IS_ANSWER, NO_SUCH_NAME = 0x0100, 0x8400, 3
QUESTION_END = struct.pack("!HH", 1, 1)
"""An address, in the internet's class."""

HEX_CHARACTERS = 32
MOST_HEADERS = 50


async def ask_resolver(key: bytes, resolver: str, domain: str, timeout_seconds: float) -> Attempt:
    """Whether a resolver carries a question out. Whatever it answers, only the responder knows whether it came."""
    nonce = new_nonce()
    labels = [nonce, digest(key, nonce), *domain.rstrip(".").split(".")]
    name = b"".join(bytes([len(label)]) + label.encode("ascii") for label in labels) + b"\0"
    number = secrets.randbits(16)
    query = HEADER.pack(number, RECURSION_DESIRED, 1, 0, 0, 0) + name + QUESTION_END
    answer = await ask(resolver, 53, query, timeout_seconds)
    is_answer = answer is not None and answer[:2] == query[:2]
    return Attempt(nonce, Came.REFUSAL if is_answer else Came.NO_HELPER)


async def ask_proxy(
    key: bytes, name: str, proxy: tuple[str, int], target: tuple[str, int], timeout_seconds: float
) -> Attempt:
    """Whether a proxy carries a probe to the responder."""
    nonce = new_nonce()
    line = seal(key, "probe", name, "proxy", nonce)
    came = Came.NO_HELPER
    writer = None
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(*proxy, limit=LINE_BYTES)
            where = f"[{target[0]}]:{target[1]}" if ":" in target[0] else f"{target[0]}:{target[1]}"
            writer.write(
                f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\nUser-Agent: infravitals\r\n\r\n".encode("ascii")
            )
            status = (await reader.readline()).split(b" ")
            if status[0][:5] != b"HTTP/":
                return Attempt(nonce, came)
            came = Came.REFUSAL
            if status[1:2] == [b"200"]:
                came = await _speak(reader, writer, key, line, nonce)
    except (TimeoutError, OSError, ValueError):
        pass
    finally:
        if writer:
            writer.close()
    return Attempt(nonce, came)


async def _speak(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes, line: bytes, nonce: str
) -> Came:
    """The probe through an open tunnel."""
    for _ in range(MOST_HEADERS):
        if not (await reader.readline()).strip():
            break
    writer.write(line)
    is_answer = unseal(key, await reader.readline()) == Message("answer", (nonce,))
    return Came.ANSWER if is_answer else Came.REFUSAL


def digest(key: bytes, nonce: str) -> str:
    """What makes a name ours: no more than a label of DNS holds."""
    return hmac.digest(key, f"dns {nonce}".encode(), "sha256").hex()[:HEX_CHARACTERS]


def read_question(key: bytes, packet: bytes) -> str | None:
    """The nonce that a DNS question carries; None when it is no question of ours. Resolvers may change the case."""
    if len(packet) < HEADER.size + 2 * (HEX_CHARACTERS + 1) or packet[2] & 0x80:
        return None
    place, labels = HEADER.size, []
    for _ in range(2):
        length = packet[place]
        labels.append(packet[place + 1 : place + 1 + length].lower())
        place += 1 + length
        if place >= len(packet):
            return None
    nonce, said = labels
    if not nonce.isalnum():  # bytes: ASCII letters and figures alone
        return None
    written = nonce.decode("ascii")
    return written if hmac.compare_digest(digest(key, written).encode(), said) else None


def no_such_name(packet: bytes) -> bytes:
    """The answer to a question, so that the resolver need not ask again: no longer than the question."""
    number, flags, *_ = HEADER.unpack_from(packet)
    place = HEADER.size
    while place < len(packet) and packet[place]:
        place += 1 + packet[place]
    answer = HEADER.pack(number, IS_ANSWER | flags & RECURSION_DESIRED | NO_SUCH_NAME, 1, 0, 0, 0)
    return answer + packet[HEADER.size : place + 5]
