"""Memory that an agent need not take: modules that a library imports and never uses are not loaded until it does."""

import importlib
import sys
from types import ModuleType


def defer(name: str) -> None:
    """Let the next `import name` (a submodule) give a stand-in that loads the module at its first use. Nothing when it is loaded already.

    importlib's LazyLoader does not do it: the second import of a lazy module looks at its `__spec__`, which loads it.
    """
    if name in sys.modules:
        return
    stand_in = ModuleType(name)
    parent, _, child = name.rpartition(".")

    def load(attribute: str) -> object:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    stand_in.__dict__["__getattr__"] = load
    sys.modules[name] = stand_in
    setattr(importlib.import_module(parent), child, stand_in)
