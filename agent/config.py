"""agent.yaml: who this agent is, where its points go, what it gathers. Reading it opens nothing.

Sources may also stand in `conf.d/*.yaml` beside the file, each with a `sources:` section.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec

from agent.broker import Broker
from agent.catalogue import explain_id, is_id
from agent.documents import Document, FileMistakes, Mistake, find_mistakes, nearest, read_document
from agent.errors import InfravitalsError
from agent.language import say
from agent.logs import LogConfig
from agent.relative_paths import resolve_paths
from agent.rounds import Watch
from agent.sources import Source, SourceConfig, Surroundings, load_source
from agent.sources import names as source_names

LEAST_INTERVAL_SECONDS = 1.0
"""For every source; one that starts a process asks for more in its own `Config`."""

SPREAD_SECONDS = 1.0
"""So far apart, on average, begin the rounds of a source's targets, until the interval is full."""

STATE_DIRECTORIES = {
    "darwin": "/usr/local/var/infravitals-agent",
    "win32": "C:/ProgramData/infravitals-agent",
}

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class UnusableSource(InfravitalsError):
    """A source that does not exist, not on this system, or not without a package that is missing."""


class SpoolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where points wait for the collector. path: None means `spool.sqlite` in the state directory."""

    path: str | None = None
    max_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 512 * 1024 * 1024
    max_age_seconds: Seconds = 7 * 86400.0


class AgentFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file as a person writes it; the sections of the sources are checked by their own `Config`."""

    site: str
    agent: str
    broker: Broker
    sources: dict[str, Any] | None = None
    asset: str | None = None
    state_directory: str | None = None
    spool: SpoolConfig = SpoolConfig()
    log: LogConfig = LogConfig()


@dataclass(frozen=True, slots=True)
class SourceSection:
    """One configured source: its class and what its section says."""

    name: str
    kind: type[Source]
    config: SourceConfig

    def watches(self, surroundings: Surroundings) -> list[Watch]:
        """This source for each of its targets; many of them are spread over the interval."""
        parts = self.config.split()
        spread = None if len(parts) < 2 else min(self.config.interval_seconds, SPREAD_SECONDS * len(parts))
        return [
            Watch(self.name, part, partial(self.kind, part, surroundings), target, spread)
            for target, part in parts.items()
        ]


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """A configuration without mistakes."""

    site: str
    agent: str
    asset: str
    broker: Broker
    state_directory: Path
    spool_path: Path
    spool: SpoolConfig
    log: LogConfig
    sources: tuple[SourceSection, ...]

    def surroundings(self) -> Surroundings:
        """What its sources are given of the world."""
        return Surroundings(asset=self.asset, state_directory=self.state_directory)

    def watches(self) -> list[Watch]:
        """What the runner gathers."""
        surroundings = self.surroundings()
        return [watch for section in self.sources for watch in section.watches(surroundings)]


def read_config(path: Path, system: str = sys.platform) -> AgentConfig:
    """The configuration in `path` and the `conf.d` beside it. Raises FileMistakes with all mistakes of all files."""
    files = _Files(system)
    main = files.read(path, _check_file)
    for part in sorted((path.parent / "conf.d").glob("*.yaml")):
        files.read(part, _check_part)
    if main and not files.mistakes and not files.sections:
        text = say("没有配置任何采集源(sources)", "no source is configured under 'sources'")
        files.mistakes.append(main.mistake(("sources",), text))
    if files.mistakes or main is None:
        raise FileMistakes(files.mistakes)
    folder = path.parent
    sections = tuple(
        replace(section, config=resolve_paths(section.config, folder)) for section in files.sections.values()
    )
    return _settle(resolve_paths(msgspec.convert(main.value, AgentFile), folder), sections, folder, system)


def read_sources(path: Path, system: str = sys.platform) -> tuple[SourceSection, ...]:
    """The sources of a file that holds `sources:` and nothing else, as those of conf.d do. Raises FileMistakes."""
    files = _Files(system)
    files.read(path, _check_part)
    if files.mistakes:
        raise FileMistakes(files.mistakes)
    return tuple(
        replace(section, config=resolve_paths(section.config, path.parent)) for section in files.sections.values()
    )


def default_sources(system: str = sys.platform) -> tuple[SourceSection, ...]:
    """Every source that serves `system` and needs nothing said, with its defaults: what the all-in-one command gathers."""
    sections = []
    for name in source_names():
        with contextlib.suppress(UnusableSource):
            sections.append(default_section(name, system))
    return tuple(sections)


def default_section(name: str, system: str = sys.platform) -> SourceSection:
    """One source with its defaults. Raises UnusableSource, also for one that must be told something."""
    module = load_kind(name, system)
    if needed := [field.name for field in msgspec.structs.fields(module.Config) if field.required]:
        keys = ", ".join(needed)
        text = say(
            f"采集源 '{name}' 须配置 {keys}；样例：infravitals-agent sample {name}",
            f"source '{name}' must be told {keys}; see infravitals-agent sample {name}",
        )
        raise UnusableSource(text)
    try:
        return SourceSection(name, module.Source, module.Config())
    except ValueError as error:  # of some keys one must be there
        text = say(
            f"采集源 '{name}'：{error}；样例：infravitals-agent sample {name}",
            f"source '{name}': {error}; see infravitals-agent sample {name}",
        )
        raise UnusableSource(text) from error


def default_state_directory(system: str = sys.platform) -> Path:
    """Where an agent of this system keeps its spool when the file does not say."""
    return Path(STATE_DIRECTORIES.get(system, "/var/lib/infravitals-agent"))


def _settle(file: AgentFile, sources: tuple[SourceSection, ...], folder: Path, system: str) -> AgentConfig:
    state = folder / file.state_directory if file.state_directory else default_state_directory(system)
    return AgentConfig(
        site=file.site,
        agent=file.agent,
        asset=file.asset or file.agent,
        broker=file.broker,
        state_directory=state,
        spool_path=folder / file.spool.path if file.spool.path else state / "spool.sqlite",
        spool=file.spool,
        log=file.log,
        sources=sources,
    )


class _Files:
    """The files of one configuration, as they are read one after the other."""

    def __init__(self, system: str) -> None:
        self.mistakes: list[Mistake] = []
        self.sections: dict[str, SourceSection] = {}
        self._system = system
        self._places: dict[str, str] = {}

    def read(self, path: Path, check: Callable[[Document], Iterator[Mistake]]) -> Document | None:
        """Read one more file; its mistakes are added in the order of its lines."""
        try:
            document = read_document(path)
        except FileMistakes as error:
            self.mistakes += error.mistakes
            return None
        found = [*check(document), *self._read_sources(document)]
        self.mistakes += sorted(found, key=lambda mistake: mistake.line)
        return document

    def _read_sources(self, document: Document) -> Iterator[Mistake]:
        written = document.value.get("sources") if isinstance(document.value, dict) else None
        for name, value in (written if isinstance(written, dict) else {}).items():
            path = ("sources", name)
            if name in self._places:
                place = self._places[name]
                text = say(f"采集源 '{name}' 已在 {place} 配置", f"source '{name}' is configured at {place} too")
                yield document.mistake(path, text)
                continue
            self._places[name] = f"{document.file}:{document.line(path)}"
            try:
                self.sections[name] = _read_section(document, name, value, self._system)
            except FileMistakes as error:
                yield from error.mistakes


def _check_file(document: Document) -> Iterator[Mistake]:
    """What is wrong in agent.yaml itself, its sources aside."""
    yield from find_mistakes(document, document.value, AgentFile)
    if isinstance(document.value, dict):
        for key in ("site", "agent", "asset"):
            name = document.value.get(key)
            if isinstance(name, str) and not is_id(name):
                yield document.mistake((key,), explain_id(key, name))


def _check_part(document: Document) -> Iterator[Mistake]:
    """What is wrong in a file of conf.d, its sources aside."""
    if document.value is None:
        return
    if not isinstance(document.value, dict):
        yield document.mistake((), say("此处应为 'sources:' 一节", "expected a section 'sources:'"))
        return
    for key in document.value.keys() - {"sources"}:
        text = say(
            f"此文件只能有 sources 一节，不能写 '{key}'；采集源写在 sources: 之下",
            f"this file holds the section 'sources' only, not '{key}'; sources stand below 'sources:'",
        )
        yield document.mistake((key,), text)
    section = document.value.get("sources")
    if section is not None and not isinstance(section, dict):
        text = say("'sources'：此处应为键值对", "'sources': expected keys and values here")
        yield document.mistake(("sources",), text)


def load_kind(name: str, system: str = sys.platform) -> ModuleType:
    """The module of a source that can run here. Raises UnusableSource."""
    known = source_names()
    if name not in known:
        raise UnusableSource(say(f"未知的采集源 '{name}'", f"unknown source '{name}'") + nearest(name, known))
    try:
        module = load_source(name)
    except ModuleNotFoundError as error:
        text = say(
            f"采集源 '{name}' 需要 Python 包 '{error.name}'，请先安装",
            f"source '{name}' needs the Python package '{error.name}'; install it",
        )
        raise UnusableSource(text) from error
    if system not in module.Source.systems:
        serves = ", ".join(module.Source.systems)
        text = say(
            f"采集源 '{name}' 不支持本系统({system})，只支持 {serves}",
            f"source '{name}' does not serve this system ({system}), only {serves}",
        )
        raise UnusableSource(text)
    return module


def _read_section(document: Document, name: str, value: Any, system: str) -> SourceSection:
    path = ("sources", name)
    try:
        module = load_kind(name, system)
    except UnusableSource as error:
        raise FileMistakes([document.mistake(path, str(error))]) from error
    value = {} if value is None else value
    mistakes = list(find_mistakes(document, value, module.Config, path))
    if mistakes:
        raise FileMistakes(mistakes)
    config: SourceConfig = msgspec.convert(value, module.Config)
    if config.interval_seconds < LEAST_INTERVAL_SECONDS:
        text = say(
            f"'interval_seconds'：最短为 {LEAST_INTERVAL_SECONDS:g} 秒，实际是 {config.interval_seconds:g}",
            f"'interval_seconds': at least {LEAST_INTERVAL_SECONDS:g} s, found {config.interval_seconds:g}",
        )
        raise FileMistakes([document.mistake((*path, "interval_seconds"), text)])
    return SourceSection(name, module.Source, config)
