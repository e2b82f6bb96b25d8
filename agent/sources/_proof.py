"""What a probe and its responder say to each other: one line of ASCII that ends in a keyed digest.

    infravitals/1 probe his-db-1 tcp/22 3f0c…(the nonce) 9b1e…(the digest)

The line is plain so that whoever watches the wire recognises it; the digest makes it worthless to forge. Kinds:
`probe` agent, way, nonce · `answer` nonce · `hello` agent, challenge · `here` responder, boot, challenge,
ways · `ask` agent, challenge, nonces · `saw` responder, boot, challenge, nonces. Lists are joined by commas, `-` is none.
"""

import hmac
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from agent.broker import Secret
from agent.errors import LinkError, SourceError
from agent.language import say

PREFIX = "infravitals/1"
LINE_BYTES = 1024
"""More than any probe or answer; a control line may be longer."""

CONTROL_BYTES = 65536
LEAST_KEY_CHARACTERS = 16
DIGEST_CHARACTERS = 32
NONE = "-"


class Message(NamedTuple):
    """A line that was sealed with our key."""

    kind: str
    words: tuple[str, ...]


def new_nonce() -> str:
    """A number that nobody can guess and nobody used before."""
    return secrets.token_hex(16)


def seal(key: bytes, kind: str, *words: str) -> bytes:
    """The line, with its end. No word may be empty or hold a space."""
    text = " ".join((PREFIX, kind, *words))
    return f"{text} {_digest(key, text)}\n".encode("ascii")


def unseal(key: bytes, line: bytes) -> Message | None:
    """What the line says; None when it is none of ours, forged or damaged."""
    try:
        text, _, digest = line.rstrip(b"\r\n").decode("ascii").rpartition(" ")
    except UnicodeDecodeError:
        return None
    words = text.split(" ")
    if words[0] != PREFIX or len(words) < 2 or not hmac.compare_digest(_digest(key, text), digest):
        return None
    return Message(words[1], tuple(words[2:]))


class Keys(NamedTuple):
    """What a far end knows its probers by: a key for each name, else the one that they share."""

    shared: bytes | None = None
    of_names: Mapping[str, bytes] = {}

    def _of(self, name: str) -> bytes | None:
        """The key of a prober; a name with a key of its own is known by no other."""
        return self.of_names.get(name, self.shared)

    def each(self) -> Iterator[tuple[str, bytes]]:
        """All of them with their names; '' is whoever has the shared one."""
        yield from self.of_names.items()
        if self.shared is not None:
            yield "", self.shared

    def unseal(self, line: bytes) -> tuple[bytes, Message] | None:
        """A prober's key and what it says, its name first: None unless it is sealed with the key of that very name."""
        words = line.split(b" ", 3)
        try:
            key = self._of(words[2].decode("ascii")) if len(words) == 4 else None
        except UnicodeDecodeError:
            return None
        message = None if key is None else unseal(key, line)
        return None if key is None or message is None else (key, message)


def read_keys(shared: Secret | None, of_names: Mapping[str, Secret]) -> Keys:
    """The keys of a far end. Raises SourceError as `read_key`."""
    own = {name: read_key(secret) for name, secret in of_names.items()}
    return Keys(read_key(shared) if shared else None, own)


def check_keys(shared: Secret | None, of_names: Mapping[str, Secret]) -> None:
    """Raises ValueError when nobody could be known."""
    if shared is None and not of_names:
        raise ValueError(say("须写 key，或在 keys 里为每个探测端各写一个", "give key, or in keys one for each prober"))


def join(items: Iterable[str]) -> str:
    """A list as one word."""
    return ",".join(items) or NONE


def split(word: str) -> frozenset[str]:
    """The items of `join`."""
    return frozenset() if word == NONE else frozenset(word.split(","))


def read_key(secret: Secret) -> bytes:
    """The shared key. Raises SourceError when it cannot be read or is short enough to be guessed."""
    try:
        text = secret.read()
    except LinkError as error:
        where = secret.file or secret.env or secret.credential
        raise SourceError(
            say(
                f"读不到探测密钥 {where}；请检查采集源的 key 一节",
                f"the key of the probes cannot be read from {where}; see 'key' in the source's section",
            )
        ) from error
    if len(text) < LEAST_KEY_CHARACTERS:
        raise SourceError(
            say(
                f"探测密钥太短：至少 {LEAST_KEY_CHARACTERS} 个字符，可用 openssl rand -hex 32 生成",
                f"the key of the probes is too short: at least {LEAST_KEY_CHARACTERS} characters, say openssl rand -hex 32",
            )
        )
    return text.encode()


def _digest(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()[:DIGEST_CHARACTERS]
