"""One request to one target: a TCP connection, an HTTP answer, a DNS answer, each with the time it took."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, urlsplit

from agent.catalogue import is_host_name
from agent.errors import SourceError
from agent.foreign_words import explain
from agent.language import say

HEAD_BYTES = 16384


async def timed(work: Callable[[], Awaitable[bool]], timeout_seconds: float) -> float | str:
    """How long `work` took; why not, when it failed, found the wrong thing, or overran its time."""
    begin = time.perf_counter()
    try:
        async with asyncio.timeout(timeout_seconds):
            if await work():
                return time.perf_counter() - begin
        return say("有应答，但不是所要的", "answered, and not as it should")
    except TimeoutError:
        return say(f"{timeout_seconds:g} 秒内没有应答", f"no answer within {timeout_seconds:g} s")
    except ssl.SSLCertVerificationError as error:  # ssl's errors are OSErrors
        return say(f"证书不被信任：{error.verify_message}", f"the certificate does not hold: {error.verify_message}")
    except (OSError, ValueError, EOFError) as error:
        return explain(error)[:200] or type(error).__name__


async def connect(address: str, port: int) -> bool:
    """Whether somebody accepts. Raises OSError."""
    _, writer = await asyncio.open_connection(address, port)
    writer.close()
    return True


async def get(url: SplitResult, statuses: tuple[int, ...], context: ssl.SSLContext | None) -> bool:
    """Whether a GET is answered by one of `statuses`. Raises OSError, ValueError and EOFError for what is no HTTP."""
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=HEAD_BYTES)
    try:
        where = (url.path or "/") + (f"?{url.query}" if url.query else "")
        head = f"GET {where} HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: infravitals\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii"))
        version, status, *_ = (await reader.readline()).split()
        return version.startswith(b"HTTP/1.") and int(status) in statuses
    finally:
        writer.close()


def tls_of(url: SplitResult, ca: str | None) -> ssl.SSLContext | None:
    """How an https target is checked. Raises SourceError when its CA file cannot be used."""
    if url.scheme != "https":
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        text = say(
            f"无法使用证书文件 {ca}：{explain(error)}", f"the certificates in {ca} cannot be used: {explain(error)}"
        )
        raise SourceError(text) from error


def read_url(text: str) -> SplitResult:
    """An http or https URL without a user. Raises ValueError."""
    try:
        url = urlsplit(text)
        is_fine = bool(url.hostname) and is_host_name(str(url.hostname)) and url.port != 0
    except ValueError:  # a bracket that does not close, a port beyond 65535
        is_fine = False
    if not is_fine or url.scheme not in ("http", "https") or url.username or not text.isascii():
        raise ValueError(
            say(
                f"'{text}' 应为不含用户名的 http 或 https 网址", f"'{text}' must be an http or https URL without a user"
            )
        )
    return url
