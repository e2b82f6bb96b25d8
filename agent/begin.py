"""How both programs begin: an interruption while they are still being imported is an exit code and one line too."""

import sys
from collections.abc import Callable

INTERRUPTED = 130
"""128 and the number of SIGINT, as a shell counts it."""


def begin(load: Callable[[], Callable[[], int]]) -> int:
    """Import a program and run it; gives its exit code."""
    try:
        return load()()
    except KeyboardInterrupt:
        return tell_interrupted()


def tell_interrupted() -> int:
    """Say that the reader ended it; gives the exit code."""
    from agent.language import say

    print(say("已中断", "interrupted"), file=sys.stderr)
    return INTERRUPTED
