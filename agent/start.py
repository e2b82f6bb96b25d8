"""Where `infravitals-agent` begins, before anything of it is imported."""

import sys
from collections.abc import Callable

from agent.begin import begin


def main() -> int:
    """`infravitals-agent`."""

    def load() -> Callable[[], int]:
        from agent.cli import main

        return main

    return begin(load)


if __name__ == "__main__":
    sys.exit(main())
