"""Parts that a device listed once: one that vanishes while the device answers is lost, not gone.

Kept in a file of the state directory, so that a part that fails while the agent restarts is not forgotten. A part that is
away for `FORGET_SECONDS` is taken for removed on purpose.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from agent.errors import SourceError
from agent.foreign_words import explain_system
from agent.language import say

FORGET_SECONDS = 30 * 86400.0


class Part(msgspec.Struct):
    """A part's tags, and since when a device that answers has not listed it (seconds since the epoch); None while it does."""

    tags: dict[str, str]
    gone_at: float | None = None


class Parts:
    """What one device's tables listed, by a key for each use of a table."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._known = _read(path)
        self._is_changed = False

    def lost(self, key: str, present: Mapping[str, Mapping[str, str]], is_whole: bool) -> list[dict[str, str]]:
        """The tags of parts known before and not in `present`; none where the table may not have been read whole."""
        now = self._clock()
        known = self._known.setdefault(key, {})
        for instance, tags in present.items():
            if (part := known.get(instance)) is None or part.tags != tags:
                self._is_changed = True
                known[instance] = Part(tags if isinstance(tags, dict) else dict(tags))
            elif part.gone_at is not None:
                self._is_changed, part.gone_at = True, None
        if not is_whole:
            return []
        self._forget(known, present, now)
        gone = [part.tags for name, part in known.items() if name not in present]
        return [tags for tags in gone if tags not in present.values()]

    def _forget(self, known: dict[str, Part], present: Mapping[str, object], now: float) -> None:
        """Those that have been away for long. The time counts from when they were missed: an agent that was off missed nothing."""
        for instance in [name for name in known if name not in present]:
            gone_at = known[instance].gone_at
            if gone_at is None:
                self._is_changed, known[instance].gone_at = True, now
            elif now - gone_at > FORGET_SECONDS:
                self._is_changed = True
                del known[instance]

    def tags_of(self, key: str, instance: str) -> dict[str, str] | None:
        """The tags of a known part, to be used again instead of equal ones."""
        part = self._known.get(key, {}).get(instance)
        return part.tags if part else None

    def save(self) -> None:
        """Write the file when what is known has changed. Raises SourceError when it cannot be written."""
        if self._path is None or not self._is_changed:
            return
        replace_file(self._path, msgspec.json.encode(self._known))
        self._is_changed = False


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that the old or the new one is there, never half of one. Raises SourceError."""
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_bytes(data)
        fresh.replace(path)
    except OSError as error:
        raise SourceError(
            say(f"无法写入 {path}：{explain_system(error)}", f"cannot write {path}: {explain_system(error)}")
        ) from error


def _read(path: Path | None) -> dict[str, dict[str, Part]]:
    """What an earlier process knew; nothing when there is none, or when its file is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Part]]) if path else {}
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return {}
