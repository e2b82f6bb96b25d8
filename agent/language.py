"""Which of the two languages a person reads: Chinese first, English when the locale asks for it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

Language = Literal["zh", "en"]

_chosen: Language | None = None
_speaking: ContextVar[Language | None] = ContextVar("speaking", default=None)


def choose(language: Language | None) -> None:
    """Fix the language for this process; None goes back to the environment's."""
    global _chosen
    _chosen = language


def current() -> Language:
    """The language in force: the page's reader's, else `--lang`, else INFRAVITALS_LANG, else the locale, else Chinese.

    A terminal that cannot print Chinese (LANG=C on an old console) gets English.
    """
    if (speaking_now := _speaking.get()) is not None:
        return speaking_now
    if _chosen is not None:
        return _chosen
    wish = os.environ.get("INFRAVITALS_LANG", "")
    if wish[:2] in ("zh", "en"):
        return "en" if wish.startswith("en") else "zh"
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    if locale.startswith("en"):
        return "en"
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return "zh" if encoding.lower().replace("-", "") in ("utf8", "gb18030", "gbk") else "en"


@contextlib.contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Within this block everything is said in `language`: one page for one reader."""
    token = _speaking.set(language)
    try:
        yield
    finally:
        _speaking.reset(token)


def say(zh: str, en: str) -> str:
    """The one of two texts that the reader wants; both are written where the thing is said."""
    return zh if current() == "zh" else en
