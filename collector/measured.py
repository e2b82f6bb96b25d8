"""A store whose calls are timed: what it is asked, how long it takes, what it refuses."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, cast

from collector.stores import Store


class Observer(Protocol):
    """Is told of every call."""

    def note_call(self, call: str, seconds: float, is_error: bool) -> None:
        """One call of the store's method `call` ended."""


def measured(store: Store, observer: Observer) -> Store:
    """The same store, every call of which is told to `observer`. Opening and closing stay with the store itself."""
    return cast(Store, _Measured(store, observer))


class _Measured:
    """Passes every method through, those too that a later store has."""

    def __init__(self, store: Store, observer: Observer) -> None:
        self._store, self._observer = store, observer

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return _timed(name, found, self._observer) if callable(found) and not name.startswith("_") else found


def _timed(name: str, call: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    @wraps(call)
    def timed(*arguments: Any, **named: Any) -> Any:
        began, is_error = time.perf_counter(), True
        try:
            result = call(*arguments, **named)
            is_error = False
            return result
        finally:
            observer.note_call(name, time.perf_counter() - began, is_error)

    return timed
