"""Commands beside a running server: asked over its socket, or answered from the file when nobody holds it. Both ways the same output."""

import os
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from agent import catalogue
from agent.errors import InfravitalsError, StoreError
from agent.language import Language, current, say, speaking
from collector.answers import ANSWERS, Answer
from collector.config import CollectorConfig, read_config
from collector.control import Reply, ask
from collector.evaluate import Rules
from collector.inquiry import Site
from collector.quarantine import Quarantine
from collector.ruleset import DEFAULT_ZONE, load_rules
from collector.server import StoreThreads, score_at
from collector.stores import Store, load_store

ANSWER_SECONDS = 300.0
"""How long a running server may take for one command: a cold scorecard of a large site takes its time."""

HELLO_SECONDS = 5.0

REMEMBERED = "site.json"


class Place(NamedTuple):
    """Where a collector keeps its things, and whose they are. words: what names it on a command line."""

    site: Site
    data_directory: Path
    rules_directory: Path | None
    store_kind: str
    store_config: object
    words: str

    @property
    def socket(self) -> Path:
        """Where a running server listens for commands."""
        return self.data_directory / "control.sock"

    @property
    def quarantine(self) -> Path:
        """Where set aside input is kept."""
        return self.data_directory / "quarantine.sqlite"

    def store(self) -> Store:
        """The store, not opened yet."""
        store: Store = load_store(self.store_kind).Store(self.store_config, catalogue.load())
        return store


class NoCollector(InfravitalsError):
    """There is no data where the command looked for it."""


class _Remembered(msgspec.Struct):
    site: str


def embedded_place(data_directory: Path, site: str | None, rules_directory: Path | None = None) -> Place:
    """The place of the all-in-one command; it remembers the site's name. Raises NoCollector when told another one."""
    known = _remembered_site(data_directory)
    if site and known and site != known:
        raise NoCollector(
            say(
                f"{data_directory} 中的数据属于 '{known}'，不是 '{site}'；请换一个数据目录（--data-dir 或 data_directory）",
                f"the data in {data_directory} belongs to '{known}', not to '{site}'; choose another --data-dir",
            )
        )
    module = load_store("duckdb")
    config = module.Config(path=str(data_directory / "store.duckdb"))
    named = Site(site or known or "local", ZoneInfo(DEFAULT_ZONE))
    words = f"--data-dir {shlex.quote(str(data_directory.absolute()))}"
    return Place(named, data_directory, rules_directory, "duckdb", config, words)


def _remembered_site(data_directory: Path) -> str | None:
    try:
        return msgspec.json.decode((data_directory / REMEMBERED).read_bytes(), type=_Remembered).site
    except (OSError, msgspec.DecodeError):
        return None


def remember_site(place: Place) -> None:
    """Write down whose data this is. Raises StoreError when the directory cannot be written."""
    try:
        place.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (place.data_directory / REMEMBERED).write_bytes(msgspec.json.encode(_Remembered(place.site.id)))
    except OSError as error:
        text = say(
            f"无法写入数据目录 {place.data_directory}:{error.strerror}；请检查权限与空间，或换一个数据目录（--data-dir 或 data_directory）",
            f"cannot write the data directory {place.data_directory}: {error.strerror}; mend its rights or room, or choose another (--data-dir or data_directory)",
        )
        raise StoreError(text) from error


def find_place(config: Path | None, data_directory: Path) -> Place:
    """The place that a command's arguments name. Raises NoCollector when there is no data, FileMistakes for the file."""
    if config is not None:
        return place_of(read_config(config))
    if _remembered_site(data_directory) is None:
        raise NoCollector(
            say(
                f"{data_directory} 中没有数据；请先运行 infravitals up，或用 --data-dir / -c 指明位置",
                f"there is no data in {data_directory}; run infravitals up first, or name the place by --data-dir or -c",
            )
        )
    return embedded_place(data_directory, None)


def place_of(config: CollectorConfig) -> Place:
    """The place that a collector's configuration names."""
    site = Site(config.site, ZoneInfo(config.time_zone))
    store, words = config.store, f"-c {shlex.quote(str(config.file.absolute()))}"
    return Place(site, config.data_directory, config.rules_directory, store.kind, store.config, words)


def refuse_second(place: Place) -> None:
    """Raises NoCollector when a server runs on this data already."""
    reply = ask(place.socket, "hello", {}, HELLO_SECONDS)
    if reply is not None:
        found = reply.output.decode()
        raise NoCollector(
            say(
                f"{place.data_directory} 上已有一个在运行（{found}）；请用它，或先停止它",
                f"one runs on {place.data_directory} already ({found}); use it, or stop it first",
            )
        )


class _ScoreQuestion(msgspec.Struct):
    as_of: int | None
    language: Language


class _QuarantineQuestion(msgspec.Struct):
    form: str
    language: Language


def ask_score(place: Place, as_of: int | None) -> bytes:
    """The JSON of the scorecard at `as_of` (ms; None: now)."""
    return _ask_or_do(place, "score", _ScoreQuestion(as_of, current()), lambda: _score_from_file(place, as_of))


def ask_running_score(place: Place, as_of: int | None) -> bytes | None:
    """The same from a running server alone; None when none runs."""
    return _ask(place, "score", _ScoreQuestion(as_of, current()))


def ask_quarantine(place: Place, form: str) -> bytes:
    """What was set aside, as a table or as JSON."""
    return _ask_or_do(place, "quarantine", _QuarantineQuestion(form, current()), lambda: read_quarantine(place, form))


class _StoreQuestion(msgspec.Struct):
    arguments: dict[str, object]
    language: Language


def ask_store(place: Place, name: str, arguments: Mapping[str, object]) -> bytes:
    """What `answers` gives to a question, from a running server or from the file."""
    question = _StoreQuestion(dict(arguments), current())
    return _ask_or_do(place, name, question, lambda: _answer_from_file(place, name, arguments))


def _answer_from_file(place: Place, name: str, arguments: Mapping[str, object]) -> bytes:
    rules = load_rules(place.rules_directory).rules
    with place.store() as store:
        return ANSWERS[name](store, rules, place.site, arguments)


def _ask_or_do(place: Place, command: str, question: msgspec.Struct, otherwise: Callable[[], bytes]) -> bytes:
    answer = _ask(place, command, question)
    return otherwise() if answer is None else answer


def _ask(place: Place, command: str, question: msgspec.Struct) -> bytes | None:
    reply = ask(place.socket, command, msgspec.to_builtins(question), ANSWER_SECONDS)
    if reply is None:
        return None
    if reply.status:
        raise NoCollector(reply.output.decode())
    return reply.output


def _score_from_file(place: Place, as_of: int | None) -> bytes:
    rules = load_rules(place.rules_directory).rules
    with place.store() as store:
        return score_bytes(store, rules, place.site, as_of)


def score_bytes(store: Store, rules: Rules, site: Site, as_of: int | None) -> bytes:
    """The scorecard as the JSON that every way of asking gives."""
    return msgspec.json.encode(score_at(store, rules, site, int(time.time() * 1000) if as_of is None else as_of))


def read_quarantine(place: Place, form: str) -> bytes:
    """The newest entries of the quarantine, readable while a server writes it."""
    with Quarantine(place.quarantine) as quarantine:
        return quarantine.render(form).encode()


Handlers = Mapping[str, Callable[[Mapping[str, object]], Awaitable[Reply]]]


def make_handlers(place: Place, threads: StoreThreads, rules: Rules, url: str) -> Handlers:
    """What a running server answers over its socket."""

    async def score(arguments: Mapping[str, object]) -> Reply:
        question = msgspec.convert(arguments, _ScoreQuestion)
        with speaking(question.language):
            return Reply(await threads.read(score_bytes, threads.store, rules, place.site, question.as_of), 0)

    async def quarantine(arguments: Mapping[str, object]) -> Reply:
        question = msgspec.convert(arguments, _QuarantineQuestion)
        with speaking(question.language):
            return Reply(await threads.read(read_quarantine, place, question.form), 0)

    async def hello(arguments: Mapping[str, object]) -> Reply:
        return Reply(f"pid {os.getpid()}, {url}".encode(), 0)

    def answering(answer: Answer) -> Callable[[Mapping[str, object]], Awaitable[Reply]]:
        async def reply(arguments: Mapping[str, object]) -> Reply:
            question = msgspec.convert(arguments, _StoreQuestion)
            with speaking(question.language):
                return Reply(await threads.read(answer, threads.store, rules, place.site, question.arguments), 0)

        return reply

    of_the_store = {name: answering(answer) for name, answer in ANSWERS.items()}
    return {"score": score, "quarantine": quarantine, "hello": hello, **of_the_store}
