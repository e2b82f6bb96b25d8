"""`infravitals demo`: where the made-up hospital is kept, the year that is played once, the page that goes on with it."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agent.errors import WrongCall
from agent.language import say
from collector.beside import Place, embedded_place, place_of, read_site, refuse_second, remember_site
from collector.config import read_config
from collector.demo.folder import write_folder
from collector.demo.play import Play
from collector.demo.play import Progress as Told
from collector.demo.story import Story
from collector.intake import Intake
from collector.ruleset import load_rules
from collector.service import Service, stop_on_signals
from collector.simulated import PREFIX, SITE, is_simulated, notice

MADE = "demo.json"
"""Stands in the data directory once the year is whole."""
SITE_FOLDER = "site"


class _Made(msgspec.Struct):
    end: int
    seconds: float
    days: int = 365


def make(data_directory: Path, config: Path | None, port: int, *, days: int, is_once: bool) -> str:
    """Make the year unless it is made, then show it until Ctrl-C; gives a sentence on it.

    Raises WrongCall for a place that is not the demo's own, or where one was begun and not finished.
    """
    named = _place(data_directory, config)
    refuse_second(named)
    made = _read_made(named)
    rules = load_rules(named.rules_directory).rules
    story = Story(made.end if made else int(time.time() * 1000))
    if made is None:
        _refuse_used(named)
        remember_site(named)
        write_folder(named.site_folder or named.data_directory / SITE_FOLDER, story, rules.book)
    place, _ = read_site(named, rules)
    with Intake(place, rules) as intake:
        if made is None:
            began = time.monotonic()
            with _progress(days) as told:
                asyncio.run(Play(intake, story, days).past(told))
            made = _Made(story.end, round(time.monotonic() - began, 1), days)
            (place.data_directory / MADE).write_bytes(msgspec.json.encode(made))
        if not is_once:
            asyncio.run(_show(intake, named, Play(intake, story, days), port))
    return say(
        f"模拟医院的 {made.days} 天已做好，用时 {made.seconds} 秒；{notice()}",
        f"{made.days} days of the simulated hospital were made in {made.seconds} s. {notice()}",
    )


def _place(data_directory: Path, config: Path | None) -> Place:
    if config is None:
        return embedded_place(data_directory, SITE, site_folder=data_directory / SITE_FOLDER)
    place = place_of(read_config(config))
    if not is_simulated(place.site.id):
        raise WrongCall(
            say(
                f"{config} 的 site 是 '{place.site.id}'；模拟数据只写入名称以 {PREFIX} 开头的站点，如 {SITE}，以免与真实数据相混",
                f"the site of {config} is '{place.site.id}'; simulated data goes only where the name begins with {PREFIX}, such as {SITE}, so that it never mixes with real data",
            )
        )
    return place._replace(site_folder=place.site_folder or place.data_directory / SITE_FOLDER)


def _read_made(place: Place) -> _Made | None:
    try:
        return msgspec.json.decode((place.data_directory / MADE).read_bytes(), type=_Made)
    except FileNotFoundError:
        return None


def _refuse_used(place: Place) -> None:
    """A directory with anything in it is not ours to fill; a demo that was cut short is begun anew from nothing."""
    folder = place.data_directory
    if folder.is_dir() and any(folder.iterdir()):
        raise WrongCall(
            say(
                f"{folder} 不是空目录，可能是中断的演示；请删除它或另选 --data-dir，然后重新运行",
                f"{folder} is not empty, perhaps a demo that was cut short; remove it or choose another --data-dir, then run again",
            )
        )


@contextmanager
def _progress(days: int) -> Iterator[Told]:
    """A bar on stderr; without a terminal, one line at the start."""
    console = Console(stderr=True)
    text = say(f"正在虚构 {days} 天并送过真实链路", f"making up {days} days and sending them through the real line")
    if not console.is_terminal:
        console.print(text)
        yield lambda share: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(text, total=1.0)
        yield lambda share: bars.update(task, completed=share)


async def _show(intake: Intake, named: Place, play: Play, port: int) -> None:
    """The page, and the hospital living on, until Ctrl-C."""
    stop = stop_on_signals()
    service = Service(intake, named, port)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(service.run(play.deliveries())), group.create_task(play.live())]
        await service.page.started.wait()
        Console().print(
            f"{notice()}\n{say('网页：', 'page: ')}{service.page.url}   {say('Ctrl-C 结束', 'Ctrl-C ends')}",
            soft_wrap=True,
        )
        await stop.wait()
        for task in tasks:
            task.cancel()
