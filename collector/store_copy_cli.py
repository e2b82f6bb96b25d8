"""`infravitals store copy`: one site from one store to another, told on stderr, to be started again after whatever ended it."""

import argparse
import datetime
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.commandline import OK, Parser
from agent.errors import WrongCall
from agent.language import say

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from collector.beside import Place
    from collector.store_copy import Progress

TELL_SECONDS = 2.0


class Commands(Protocol):
    """Where `store` has its commands."""

    def add_parser(self, name: str, *, help: str, description: str) -> Parser:  # argparse's word
        """The parser of one of them."""


def add_copy(commands: Commands) -> None:
    """`store copy`."""
    about = say(
        "把一个站点的全部数据复制到另一个存储(DuckDB 与 InfluxDB 之间)；中断后再次运行即继续",
        "copy all data of a site to another store, between DuckDB and InfluxDB; run it again to go on after a break",
    )
    copy = commands.add_parser("copy", help=about, description=about)
    copy.set_defaults(handler=_copy)
    file = say("文件", "FILE")
    for key, zh, en in (
        ("from", "来源的配置文件；写入它的采集中心须已停止", "the source's collector.yaml; its collectors are stopped"),
        ("to", "目标的配置文件；其中没有这个站点的数据", "the target's collector.yaml; it holds nothing of the site"),
    ):
        copy.add_argument(f"--{key}", dest=f"{key}_config", type=Path, required=True, metavar=file, help=say(zh, en))
    copy.add_argument(
        "--dry-run", action="store_true", help=say("只清点来源，什么都不写", "only count the source, write nothing")
    )


def _copy(options: argparse.Namespace) -> int:
    from collector.beside import place_of, read_site, refuse_second
    from collector.config import read_config
    from collector.ruleset import load_rules

    source, target = (place_of(read_config(path)) for path in (options.from_config, options.to_config))
    _check(source, target)
    rules = load_rules(source.rules_directory).rules
    source, _ = read_site(source, rules)
    refuse_second(source)
    if options.dry_run:
        return _count(source)
    from collector.store_copy import Task, asked_questions, copy_site

    refuse_second(target)
    target.data_directory.mkdir(parents=True, exist_ok=True)
    teller = Teller(time.monotonic)
    with source.store() as theirs, target.store() as ours:
        questions = asked_questions(theirs, rules, source.site)
        task = Task(source.site.id, name_of(source), rules.catalogue, questions)
        left = copy_site(theirs, ours, task, teller.tell)
    teller.end()
    print(say(f"完成：{name_of(source)} → {name_of(target)}", f"done: {name_of(source)} -> {name_of(target)}"))
    if left:
        print(
            say(
                f"未复制：{left} 个只有旧规则才问的问题的已存桶值；按现行规则的评分不受影响",
                f"not copied: kept buckets of {left} questions that only earlier rules asked; scores by today's rules do not need them",
            )
        )
    return OK


def _check(source: "Place", target: "Place") -> None:
    """Raises WrongCall for what cannot be meant."""
    if source.site.id != target.site.id:
        ids = source.site.id, target.site.id
        raise WrongCall(
            say(
                f"两个配置的 site 不同：'{ids[0]}' 与 '{ids[1]}'",
                f"the two files name different sites: '{ids[0]}' and '{ids[1]}'",
            )
        )
    if name_of(source) == name_of(target):
        raise WrongCall(say("来源与目标是同一个存储", "source and target are the same store"))
    if source.store_kind == "duckdb" and not Path(name_of(source)).exists():
        raise WrongCall(
            say(f"没有这个数据库文件：{name_of(source)}", f"there is no such database file: {name_of(source)}")
        )


def name_of(place: "Place") -> str:
    """What a store is called, without its secrets: the file, or server and database."""
    config = place.store_config
    if place.store_kind == "duckdb":
        return str(Path(str(getattr(config, "path", ""))).resolve())
    return (
        f"{getattr(config, 'url', None) or ''}/{getattr(config, 'database', None) or getattr(config, 'bucket', None)}"
    )


def _count(source: "Place") -> int:
    from agent import catalogue
    from collector.store_copy import count_site

    with source.store() as store:
        counted = count_site(store, catalogue.load(), source.site.id)
    for name, rows in counted.items():
        print(f"{name} {rows}")
    return OK


class Teller:
    """Says on stderr how far the copy is: each measurement and day once, and in between every TELL_SECONDS."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = self._told = clock()
        self._day: tuple[str, str] = ("", "")
        self._rows = 0

    def tell(self, progress: "Progress") -> None:
        """Something was copied."""
        self._rows += progress.rows
        moment = datetime.datetime.fromtimestamp(progress.until / 1000 - 0.001, datetime.UTC)
        day = (progress.name, moment.date().isoformat())
        now = self._clock()
        if day != self._day or now - self._told >= TELL_SECONDS:
            self._day, self._told = day, now
            print(f"{progress.name} {day[1]} {self._so_far(now)}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """The copy is complete."""
        print(self._so_far(self._clock()), file=sys.stderr)

    def _so_far(self, now: float) -> str:
        rate = self._rows / max(now - self._began, 0.001)
        return say(f"共 {self._rows} 行，每秒 {rate:.0f}", f"{self._rows} rows so far, {rate:.0f} a second")
