"""Where `infravitals` begins, before anything of it is imported."""

import sys
from collections.abc import Callable

from agent.begin import begin


def main() -> int:
    """`infravitals`."""

    def load() -> Callable[[], int]:
        from collector.cli import main

        return main

    return begin(load)


if __name__ == "__main__":
    sys.exit(main())
