"""What the far end of an isolation probe knows: which nonces came, by which ways it can hear at all."""

from collections.abc import Callable

from agent.sources._proof import Keys, Message, join, new_nonce, seal, split
from agent.sources._ways import Way
from agent.sources._ways_out import no_such_name, read_question

MEMORY_SECONDS = 600.0
MOST_REMEMBERED = 20000


class Witness:
    """Answers lines that carry our key, remembers the nonces that came, counts what was no such line.

    ways: what is heard right now, kept by who holds the sockets.
    """

    def __init__(self, keys: Keys, name: str, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._name = name
        self._clock = clock
        self._boot = new_nonce()
        self._seen: dict[tuple[str, str], float] = {}
        self.ways: set[Way] = set()
        self.seen_count = 0
        self.strangers_count = 0

    def hear(self, line: bytes) -> bytes | None:
        """The answer to a line, or to a DNS question that carries our digest; None to what is not sealed with our key, and to what asks nothing."""
        unsealed = self._keys.unseal(line)
        if unsealed is None:
            for prober, own in self._keys.each():
                if nonce := read_question(own, line):
                    self._remember(prober, nonce)
                    return no_such_name(line)
            self.strangers_count += 1
            return None
        key, message = unsealed
        if message.kind == "probe" and len(message.words) == 3:
            self._remember(message.words[0], message.words[2])
            return seal(key, "answer", message.words[2])
        return self._testify(message, key)

    def _testify(self, message: Message, key: bytes) -> bytes | None:
        if message.kind == "hello" and len(message.words) == 2:
            ways = join(sorted(map(str, self.ways)))
            return seal(key, "here", self._name, self._boot, message.words[1], ways)
        if message.kind == "ask" and len(message.words) == 3:
            prober, challenge, asked = message.words
            seen = join(sorted(nonce for nonce in split(asked) if self._has_seen(prober, nonce)))
            return seal(key, "saw", self._name, self._boot, challenge, seen)
        return None

    def _has_seen(self, prober: str, nonce: str) -> bool:
        """Whether a nonce came from this very prober: what others send in its name or after it does not count."""
        is_sharing = prober not in self._keys.of_names
        return (prober, nonce) in self._seen or (is_sharing and ("", nonce) in self._seen)

    def _remember(self, prober: str, nonce: str) -> None:
        now, came = self._clock(), (prober, nonce)
        if came not in self._seen:
            self.seen_count += 1
        self._seen[came] = now
        while self._seen:  # insertion is by time: what is old or too much stands in front
            oldest = next(iter(self._seen))
            if len(self._seen) <= MOST_REMEMBERED and now - self._seen[oldest] < MEMORY_SECONDS:
                return
            del self._seen[oldest]
