"""What takes deliveries: the store, the quarantine and ingest, opened and closed together."""

from contextlib import ExitStack
from typing import Self

from collector.beside import Place
from collector.evaluate import Rules
from collector.ingest import Ingest
from collector.measured import measured
from collector.metrics import Meters
from collector.quarantine import Quarantine
from collector.register import Registered
from collector.server import StoreThreads


class Intake:
    """Store, quarantine, register and ingest: what takes deliveries. A context manager.

    Opening raises one sentence when the store is held, damaged, or its directory cannot be written.
    """

    def __init__(self, place: Place, rules: Rules) -> None:
        self.place, self.rules = place, rules
        self.register = Registered(place.site.id, place.site.folder)
        self.meters = Meters()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            store = stack.enter_context(self.place.store())
            self.quarantine = stack.enter_context(Quarantine(self.place.quarantine))
            store = measured(store, self.meters)
            self.threads = StoreThreads(store)
            stack.callback(self.threads.close)
            self.ingest = Ingest(store, self.threads.write, self.rules.catalogue, self.register, self.quarantine)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
