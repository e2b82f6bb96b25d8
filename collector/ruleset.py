"""Rules and catalogue loaded together and checked against each other, ready to be evaluated."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agent import catalogue
from agent.catalogue import Catalogue
from agent.documents import Document, FileMistakes, Mistake
from collector import plan_check, rules_folder
from collector.evaluate import Rules, prepare
from collector.stores import Store, load_store

DEFAULT_ZONE = "Asia/Shanghai"


class Loaded(NamedTuple):
    """The rules, and what is worth a second look in them. unsourced: signals that no source emits yet."""

    rules: Rules
    documents: Mapping[str, Document]
    warnings: list[Mistake]
    unsourced: list[Mistake]


class Checked(NamedTuple):
    """What a look at all rules found; criteria: how many were read."""

    mistakes: list[Mistake]
    warnings: list[Mistake]
    unsourced: list[Mistake]
    criteria: int


def load_rules(folder: Path | None = None) -> Loaded:
    """The rules of `folder` (None: the shipped ones). Raises FileMistakes with all mistakes of all files."""
    known = catalogue.load()
    book, documents = rules_folder.load(folder)
    mistakes, unsourced = plan_check.check(book, documents, known)
    if mistakes:
        raise FileMistakes(mistakes)
    return Loaded(prepare(book, known), documents, rules_folder.find_uncounted(book, documents), unsourced)


def unsourced_criteria(rules: Rules) -> list[str]:
    """The criteria that ask for a signal that no source emits yet, each once however many it asks for."""

    def has_source(signal: str) -> bool:
        measurement, _, field = signal.partition(".")
        return bool(rules.catalogue.measurements[measurement].emitters(field))

    return [name for name, one in sorted(rules.book.criteria.items()) if not all(map(has_source, one.signals()))]


def check_rules(folder: Path | None = None) -> Checked:
    """Everything that is wrong or worth a second look."""
    try:
        loaded = load_rules(folder)
    except FileMistakes as error:
        return Checked(list(error.mistakes), [], [], 0)
    return Checked([], loaded.warnings, loaded.unsourced, len(loaded.rules.book.criteria))


def memory_store(known: Catalogue) -> Store:
    """An empty store in memory, for cases and for compiling queries."""
    module = load_store("duckdb")
    store: Store = module.Store(module.Config(path=":memory:"), known)
    return store


def compiled_now(rules: Rules, name: str) -> str | None:
    """The query that criterion `name` would ask now, as the embedded store speaks it."""
    found = rules.plans.get(name)
    if found is None:
        return None
    now = int(time.time() * 1000)
    with memory_store(rules.catalogue) as store:
        questions = [one.question(now, ZoneInfo(DEFAULT_ZONE), "SITE") for one in found.questions.values()]
        return "\n\n".join(store.compiled(question) for question in questions)
