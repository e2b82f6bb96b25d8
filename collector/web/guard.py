"""Who may see the page: whoever knows its password, for as long as a session lasts. Prometheus has a token of its own."""

import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from collector.page_password import is_password

SESSION_SECONDS = 12 * 3600
MOST_SESSIONS = 1000
MOST_FAILURES = 5
"""So many wrong passwords from one address, and it waits."""
WAIT_SECONDS = 300.0
MOST_ADDRESSES = 4096


@dataclass(frozen=True)
class Keys:
    """What opens the page. password_scrypt: the password's hash. metrics_token: what Prometheus shows, None for nothing."""

    password_scrypt: str
    metrics_token: str | None = None

    def __repr__(self) -> str:
        """Without what is secret, wherever it is shown."""
        return "Keys(…)"


class Guard:
    """Sessions of those who knew the password, and the wrong tries of each address. is_secure: whether the page has TLS."""

    def __init__(self, keys: Keys, *, is_secure: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._keys, self.is_secure, self._monotonic = keys, is_secure, monotonic
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    @property
    def cookie(self) -> str:
        """The session's cookie. With TLS its name keeps every other site of this domain from setting it (RFC 6265bis)."""
        return "__Host-session" if self.is_secure else "session"

    def knows(self, session: str | None) -> bool:
        """Whether this session was begun here and lasts."""
        ends = self._sessions.get(session or "")
        return ends is not None and self._monotonic() < ends

    def may_try(self, address: str) -> bool:
        """Whether a password from there is looked at; not after too many wrong ones."""
        kept = [at for at in self._failures.get(_whose(address), []) if self._monotonic() - at < WAIT_SECONDS]
        return len(kept) < MOST_FAILURES

    def is_right(self, password: str) -> bool:
        """Whether this is the password; slow on purpose."""
        return is_password(self._keys.password_scrypt, password)

    def begin(self, address: str) -> str:
        """A new session."""
        self._failures.pop(_whose(address), None)
        session = secrets.token_urlsafe(32)
        self._sessions[session] = self._monotonic() + SESSION_SECONDS
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def note_failure(self, address: str) -> None:
        """One more wrong password from there."""
        tries = self._failures.setdefault(_whose(address), [])
        tries.append(self._monotonic())
        del tries[:-MOST_FAILURES]
        self._failures.move_to_end(_whose(address))
        while len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)

    def end(self, session: str | None) -> None:
        """Forget a session."""
        self._sessions.pop(session or "", None)

    def may_scrape(self, authorization: str | None) -> bool:
        """Whether a request's `Authorization` shows the token of Prometheus."""
        token = self._keys.metrics_token
        shown = (authorization or "").removeprefix("Bearer ").encode()
        return token is not None and secrets.compare_digest(shown, token.encode())


def _whose(address: str) -> str:
    """Tries are counted by address, and by network of 64 bits where one person has so many."""
    try:
        read = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if read.version == 4 else str(ipaddress.ip_network(f"{read}/64", strict=False))
