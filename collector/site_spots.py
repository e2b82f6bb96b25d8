"""The files of a site folder while they are read: every complaint finds its line, and the reading goes on."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from agent.documents import (
    Document,
    FileMistakes,
    Mistake,
    Path_,
    find_mistakes,
    nearest,
    parse_document,
    read_document,
)
from agent.language import say
from collector.site_folder import Calendar
from collector.site_times import WEEKDAYS, parse_day, parse_hours, parse_moment, parse_weekdays
from collector.site_written import FILES, KIND_OF_FILE, REGISTER, Week


@dataclass
class Files:
    """The files of one folder, and what is wrong in them. broken: those that could not be read at all."""

    folder: Path
    texts: Mapping[str, str]
    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[Mistake] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def read(self, name: str) -> Document | None:
        """The parsed file, held against its kind; None when it is not there, says nothing or cannot be read."""
        path, text = self.folder / name, self.texts.get(name)
        if text is None and not path.exists():
            return None
        try:
            document = read_document(path) if text is None else parse_document(text, str(path))
        except FileMistakes as error:
            self.mistakes += error.mistakes
            self.broken.add(name)
            return None
        self.parts[name] = digest_of(document.value)
        if document.value is None:
            self._warn_empty(name)
            return None
        self.mistakes += find_mistakes(document, document.value, KIND_OF_FILE[name])
        return document

    def _warn_empty(self, name: str) -> None:
        """A list without entries is one; an empty register is as if there were none, which changes what is asked."""
        if name == REGISTER:
            text = say("文件是空的，按没有登记处理", "the file is empty, as if there were no register")
            self.warnings.append(Mistake(str(self.folder / name), 0, text))

    def check_names(self) -> None:
        """A file whose name is mistyped would be passed over in silence."""
        for path in sorted([*self.folder.glob("*.yaml"), *self.folder.glob("*.yml")]):
            if path.name not in FILES:
                text = say(
                    f"站点目录中没有名为 '{path.name}' 的文件", f"the site folder has no file named '{path.name}'"
                )
                self.mistakes.append(Mistake(str(path), 1, text + nearest(path.name, FILES)))


def digest_of(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


class Spot:
    """One entry of a file while it is settled: complains with the entry's own lines."""

    def __init__(self, files: Files, document: Document, path: Path_, zone: ZoneInfo) -> None:
        self._files, self._document, self._path, self._zone = files, document, path, zone

    @property
    def place(self) -> str:
        """file:line."""
        return f"{self._document.file}:{self._document.line(self._path)}"

    def complain(self, text: str, *keys: str | int) -> None:
        """A mistake at this entry, or at one of its keys."""
        self._files.mistakes.append(self._document.mistake((*self._path, *keys), text))

    def warn(self, text: str, *keys: str | int) -> None:
        """What is worth a warning there."""
        self._files.warnings.append(self._document.mistake((*self._path, *keys), text))

    def moment(self, text: str, *keys: str) -> int | None:
        """Milliseconds of a time; None, with a complaint, for a day that no calendar has."""
        try:
            return parse_moment(text, self._zone)
        except ValueError:
            self.complain(
                say(f"'{keys[-1]}'：没有 {text} 这一天或这一时刻", f"'{keys[-1]}': there is no {text}"), *keys
            )
            return None

    def period(self, start: tuple[str, str], end: tuple[str, str]) -> tuple[int, int] | None:
        """The times under two keys, (key, text) each; a complaint when the second is not after the first."""
        since, until = self.moment(start[1], start[0]), self.moment(end[1], end[0])
        if since is None or until is None:
            return None
        if until <= since:
            text = say(
                f"'{end[0]}' 是 {end[1]}，应晚于 '{start[0]}' 的 {start[1]}",
                f"'{end[0]}' is {end[1]}; it must be after '{start[0]}', {start[1]}",
            )
            self.complain(text, end[0])
            return None
        return since, until

    def known(self, name: str, names: Collection[str], zh: str, en: str, *keys: str | int) -> bool:
        """Whether `name` is one of `names`; a complaint with the nearest when not. zh, en: what it should name."""
        if name not in names:
            self.complain(say(f"没有{zh} '{name}'", f"there is no {en} '{name}'") + nearest(name, names), *keys)
        return name in names


def find_digest(path: Path) -> str:
    """The SHA-256 of a document; '' when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def settle_week(spot: Spot, week: Week) -> Calendar:
    """The hours of each weekday, in order."""
    if not any(week.days.values()):
        spot.complain(say("日历没有写明任何一天的时间", "the calendar names no day and hours"))
    hours: dict[int, tuple[tuple[int, int], ...]] = {}
    for days, texts in week.days.items():
        try:
            weekdays = parse_weekdays(days)
        except ValueError:
            known = say("、", ", ").join(WEEKDAYS)
            text = say(
                f"'{days}' 不是星期：应为 {known}，或 mon-fri 这样的一段",
                f"'{days}' is no day: {known}, or a range such as mon-fri",
            )
            spot.complain(text, "days", days)
            continue
        spans = tuple(_settle_hours(spot, days, texts))
        for weekday in weekdays:
            if weekday in hours:
                spot.complain(
                    say(
                        f"'{days}' 中的 {WEEKDAYS[weekday]} 前面已写过",
                        f"'{days}': {WEEKDAYS[weekday]} was named before",
                    ),
                    "days",
                    days,
                )
                break
            hours[weekday] = spans
    return Calendar(hours, frozenset(_settle_holidays(spot, week)))


def _settle_hours(spot: Spot, days: str, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    before = 0
    for number, text in enumerate(texts):
        try:
            start, end = parse_hours(text)
        except ValueError:
            wanted = say(
                f"'{text}' 不是一段时间：应如 08:00-12:00，先早后晚，不跨零点，24:00 为一天结束",
                f"'{text}' is no span of hours: expected one like 08:00-12:00, the earlier first, within a day; 24:00 is its end",
            )
            spot.complain(wanted, "days", days, number)
            continue
        if start < before:
            spot.complain(
                say(f"'{text}' 与前一段重叠或次序颠倒", f"'{text}' overlaps the span before it or is out of order"),
                "days",
                days,
                number,
            )
            continue
        before = end
        yield start, end


def _settle_holidays(spot: Spot, week: Week) -> Iterator[str]:
    for number, day in enumerate(week.holidays):
        try:
            yield parse_day(day).isoformat()
        except ValueError:
            spot.complain(say(f"没有 {day} 这一天", f"there is no {day}"), "holidays", number)
