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
from agent.documents import FileMistakes, Mistake
from agent.errors import InfravitalsError, StoreError, WrongCall
from agent.foreign_words import explain_system
from agent.language import Language, current, say, speaking
from collector.answers import ANSWERS, Answer
from collector.config import CollectorConfig, read_config
from collector.control import Reply, ask
from collector.evaluate import Rules
from collector.inquiry import Site
from collector.quarantine import Quarantine
from collector.reasons import Reason
from collector.ruleset import DEFAULT_ZONE, load_rules
from collector.server import StoreThreads, score_at
from collector.site_check import check_against_rules, find_near_misses
from collector.site_files import read_site_folder
from collector.site_seen import find_set_aside, read_seen
from collector.site_written import REGISTER
from collector.stores import Store, load_store

ANSWER_SECONDS = 300.0
"""How long a running server may take for one command: a cold scorecard of a large site takes its time."""

HELLO_SECONDS = 5.0

MOST_REFUSED = 1000
"""Entries of the quarantine that are looked at for who reports in another's name."""

REMEMBERED = "site.json"
SITE_FOLDER = "site"


class Place(NamedTuple):
    """Where a collector keeps its things, and whose they are. words: what names it on a command line.

    site_folder: where the hospital's own files are, None for nowhere; what they say is in `site` once `read_site` has read them.
    """

    site: Site
    data_directory: Path
    rules_directory: Path | None
    store_kind: str
    store_config: object
    words: str
    site_folder: Path | None = None

    @property
    def socket(self) -> Path:
        """Where a running server listens for commands."""
        return self.data_directory / "control.sock"

    @property
    def quarantine(self) -> Path:
        """Where set aside input is kept."""
        return self.data_directory / "quarantine.sqlite"

    @property
    def register(self) -> Path:
        """Where the asset register belongs, absolute."""
        return (self.site_folder or self.data_directory / SITE_FOLDER).absolute() / REGISTER

    def store(self) -> Store:
        """The store, not opened yet."""
        store: Store = load_store(self.store_kind).Store(self.store_config, catalogue.load())
        return store


class NoCollector(InfravitalsError):
    """There is no data where the command looked for it."""


class NoData(NoCollector, WrongCall):
    """Nothing was ever kept at the place that the command names."""


class _Remembered(msgspec.Struct):
    site: str
    site_folder: str | None = None


def embedded_place(
    data_directory: Path, site: str | None, rules_directory: Path | None = None, site_folder: Path | None = None
) -> Place:
    """The place of the all-in-one command; it remembers the site's name.

    Raises NoCollector when told another one, or when the directory may not be read.

    site_folder: None means `site` in the data directory when that is there.
    """
    remembered = _remembered(data_directory)
    known = remembered.site if remembered else None
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
    usual = data_directory / SITE_FOLDER
    folder = site_folder or (usual if usual.is_dir() else None)
    return Place(named, data_directory, rules_directory, "duckdb", config, words, folder)


def _remembered(data_directory: Path) -> _Remembered | None:
    """Raises NoCollector when it may not be read: that is not the same as no data."""
    try:
        return msgspec.json.decode((data_directory / REMEMBERED).read_bytes(), type=_Remembered)
    except PermissionError as error:
        raise NoCollector(
            say(
                f"没有权限读取数据目录 {data_directory}；请检查属主与权限，或换一个用户运行",
                f"no permission to read the data directory {data_directory}; look at its owner and mode, or run as another user",
            )
        ) from error
    except (OSError, msgspec.DecodeError):
        return None


def remember_site(place: Place) -> None:
    """Write down whose data this is and where its site folder lies. Raises StoreError when the directory cannot be written."""
    folder = str(place.site_folder.absolute()) if place.site_folder else None
    try:
        place.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (place.data_directory / REMEMBERED).write_bytes(msgspec.json.encode(_Remembered(place.site.id, folder)))
    except OSError as error:
        text = say(
            f"无法写入数据目录 {place.data_directory}：{explain_system(error)}；请检查权限与空间，或换一个数据目录（--data-dir 或 data_directory）",
            f"cannot write the data directory {place.data_directory}: {explain_system(error)}; mend its rights or room, or choose another (--data-dir or data_directory)",
        )
        raise StoreError(text) from error


def has_data(data_directory: Path) -> bool:
    """Whether the all-in-one command keeps its data there."""
    return _remembered(data_directory) is not None


def find_place(config: Path | None, data_directory: Path) -> Place:
    """The place that a command's arguments name. Raises NoData when there is none, FileMistakes for the file."""
    if config is not None:
        return place_of(read_config(config))
    remembered = _remembered(data_directory)
    if remembered is None:
        raise NoData(
            say(
                f"{data_directory} 中没有数据；请先运行 infravitals up，或用 --data-dir / -c 指明位置",
                f"there is no data in {data_directory}; run infravitals up first, or name the place by --data-dir or -c",
            )
        )
    folder = Path(remembered.site_folder) if remembered.site_folder else None
    return embedded_place(data_directory, None, site_folder=folder)


def place_of(config: CollectorConfig) -> Place:
    """The place that a collector's configuration names."""
    site = Site(config.site, ZoneInfo(config.time_zone))
    store, words = config.store, f"-c {shlex.quote(str(config.file.absolute()))}"
    return Place(
        site, config.data_directory, config.rules_directory, store.kind, store.config, words, config.site_folder
    )


def read_site(place: Place, rules: Rules) -> tuple[Place, list[Mistake]]:
    """The place with what its site folder says, and what is worth a warning in that.

    Raises FileMistakes with all mistakes of the folder, also those against the rules.
    """
    if place.site_folder is None:
        return place, []
    folder, warnings = read_site_folder(place.site_folder, place.site.zone)
    mistakes = check_against_rules(folder, rules.book)
    if mistakes:
        raise FileMistakes(mistakes)
    warnings += find_near_misses(folder, rules.book, rules.catalogue)
    return place._replace(site=Site(place.site.id, folder.zone, folder)), warnings


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


class _SeenQuestion(msgspec.Struct):
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
    place, _ = read_site(place, rules)
    with place.store() as store:
        return ANSWERS[name](store, rules, place.site, arguments)


def ask_seen(place: Place) -> bytes:
    """The JSON of what the store has seen: assets with their reporters, names in tags, what was set aside as another's."""
    return _ask_or_do(place, "seen", _SeenQuestion(current()), lambda: _seen_from_file(place))


class _Plain(msgspec.Struct):
    language: Language


def ask_probe(place: Place) -> None:
    """Have the store written and read once. Raises NoCollector or StoreError with the reason when it fails."""
    _ask_or_do(place, "probe", _Plain(current()), lambda: _probe_file(place))


class _SaveQuestion(msgspec.Struct):
    path: str
    language: Language


def ask_save(place: Place, path: Path) -> bool:
    """Have the store saved into a new file as of now; False where a server has the data. Raises NoCollector or StoreError."""
    question = _SaveQuestion(str(path.absolute()), current())
    return bool(_ask_or_do(place, "save", question, lambda: _save_file(place, question.path)))


def _save_file(place: Place, path: str) -> bytes:
    with place.store() as store:
        return _saved(store, path)


def _saved(store: Store, path: str) -> bytes:
    return b"saved" if store.save_copy(path) else b""


def _probe_file(place: Place) -> bytes:
    with place.store() as store:
        store.probe()
    return b""


def ask_clocks(place: Place) -> Mapping[str, int]:
    """Agents whose clocks are off, as the running server sees it, in ms behind (minus: ahead); none where no server runs."""
    answer = _ask(place, "clocks", _Plain(current()))
    return {} if answer is None else msgspec.json.decode(answer, type=dict[str, int])


def ask_hello(place: Place) -> str | None:
    """Who runs on this data; None when nobody does."""
    reply = ask(place.socket, "hello", {}, HELLO_SECONDS)
    return None if reply is None else reply.output.decode()


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
    place, _ = read_site(place, rules)
    with place.store() as store:
        return score_bytes(store, rules, place.site, as_of)


def _seen_from_file(place: Place) -> bytes:
    with place.store() as store:
        return seen_bytes(store, place)


def seen_bytes(store: Store, place: Place) -> bytes:
    """What the store has seen, as the JSON that every way of asking gives."""
    seen = read_seen(store, catalogue.load(), place.site.id, int(time.time() * 1000))
    with Quarantine(place.quarantine) as quarantine:
        refused = find_set_aside(quarantine.read(MOST_REFUSED, Reason.NOT_YOURS), place.site.id)
    return msgspec.json.encode(msgspec.structs.replace(seen, set_aside=refused))


def score_bytes(store: Store, rules: Rules, site: Site, as_of: int | None) -> bytes:
    """The scorecard as the JSON that every way of asking gives."""
    return msgspec.json.encode(score_at(store, rules, site, int(time.time() * 1000) if as_of is None else as_of))


def read_quarantine(place: Place, form: str) -> bytes:
    """The newest entries of the quarantine, readable while a server writes it."""
    with Quarantine(place.quarantine) as quarantine:
        return quarantine.render(form).encode()


Handlers = Mapping[str, Callable[[Mapping[str, object]], Awaitable[Reply]]]


def make_handlers(
    place_now: Callable[[], Place],
    threads: StoreThreads,
    rules: Rules,
    url: str,
    clocks_off: Callable[[], Mapping[str, int]],
) -> Handlers:
    """What a running server answers over its socket. place_now: the place with the site folder as it is by then.

    clocks_off: agents whose clocks are off, as ingest sees it.
    """

    async def score(arguments: Mapping[str, object]) -> Reply:
        question = msgspec.convert(arguments, _ScoreQuestion)
        with speaking(question.language):
            return Reply(await threads.read(score_bytes, threads.store, rules, place_now().site, question.as_of), 0)

    async def quarantine(arguments: Mapping[str, object]) -> Reply:
        question = msgspec.convert(arguments, _QuarantineQuestion)
        with speaking(question.language):
            return Reply(await threads.read(read_quarantine, place_now(), question.form), 0)

    async def seen(arguments: Mapping[str, object]) -> Reply:
        with speaking(msgspec.convert(arguments, _SeenQuestion).language):
            return Reply(await threads.read(seen_bytes, threads.store, place_now()), 0)

    async def probe(arguments: Mapping[str, object]) -> Reply:
        with speaking(msgspec.convert(arguments, _Plain).language):
            await threads.write(threads.store.probe)
        return Reply(b"", 0)

    async def save(arguments: Mapping[str, object]) -> Reply:
        question = msgspec.convert(arguments, _SaveQuestion)
        with speaking(question.language):
            return Reply(await threads.read(_saved, threads.store, question.path), 0)

    async def clocks(arguments: Mapping[str, object]) -> Reply:
        return Reply(msgspec.json.encode(clocks_off()), 0)

    async def hello(arguments: Mapping[str, object]) -> Reply:
        return Reply(f"pid {os.getpid()}, {url}".encode(), 0)

    def answering(answer: Answer) -> Callable[[Mapping[str, object]], Awaitable[Reply]]:
        async def reply(arguments: Mapping[str, object]) -> Reply:
            question = msgspec.convert(arguments, _StoreQuestion)
            with speaking(question.language):
                return Reply(await threads.read(answer, threads.store, rules, place_now().site, question.arguments), 0)

        return reply

    of_the_store = {name: answering(answer) for name, answer in ANSWERS.items()}
    own = {"score": score, "quarantine": quarantine, "seen": seen, "probe": probe, "save": save}
    return {**own, "clocks": clocks, "hello": hello, **of_the_store}
