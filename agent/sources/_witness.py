"""What the far end of an isolation probe knows: which nonces came, by which ways it can hear at all."""

from collections.abc import Callable

from agent.sources._proof import Message, join, new_nonce, seal, split, unseal
from agent.sources._ways import Way
from agent.sources._ways_out import no_such_name, read_question

MEMORY_SECONDS = 600.0
MOST_REMEMBERED = 20000


class Witness:
    """Answers lines that carry our key, remembers the nonces that came, counts what was no such line.

    ways: what is heard right now, kept by who holds the sockets.
    """

    def __init__(self, key: bytes, name: str, clock: Callable[[], float]) -> None:
        self._key = key
        self._name = name
        self._clock = clock
        self._boot = new_nonce()
        self._seen: dict[str, float] = {}
        self.ways: set[Way] = set()
        self.seen_count = 0
        self.strangers_count = 0

    def hear(self, line: bytes) -> bytes | None:
        """The answer to a line, or to a DNS question that carries our digest; None to what is not sealed with our key, and to what asks nothing."""
        message = unseal(self._key, line)
        if message is None and (nonce := read_question(self._key, line)):
            self._remember(nonce)
            return no_such_name(line)
        if message is None:
            self.strangers_count += 1
            return None
        if message.kind == "probe" and len(message.words) == 3:
            nonce = message.words[2]
            self._remember(nonce)
            return seal(self._key, "answer", nonce)
        return self._testify(message)

    def _testify(self, message: Message) -> bytes | None:
        if message.kind == "hello" and len(message.words) == 2:
            ways = join(sorted(map(str, self.ways)))
            return seal(self._key, "here", self._name, self._boot, message.words[1], ways)
        if message.kind == "ask" and len(message.words) == 3:
            seen = join(sorted(split(message.words[2]) & self._seen.keys()))
            return seal(self._key, "saw", self._name, self._boot, message.words[1], seen)
        return None

    def _remember(self, nonce: str) -> None:
        now = self._clock()
        if nonce not in self._seen:
            self.seen_count += 1
        self._seen[nonce] = now
        while self._seen:  # insertion is by time: what is old or too much stands in front
            oldest = next(iter(self._seen))
            if len(self._seen) <= MOST_REMEMBERED and now - self._seen[oldest] < MEMORY_SECONDS:
                return
            del self._seen[oldest]
