"""The site folder of the made-up hospital, written as a person would write one."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

from agent.documents import write_document
from collector.demo.curves import DAY_MS
from collector.demo.hospital import TITLE, things
from collector.demo.story import Story
from collector.rulebook import Criterion, Rulebook, Scale, duration_ms
from collector.site_times import format_moment
from collector.site_written import (
    ATTESTATIONS,
    CALENDARS,
    DOCUMENTS,
    REGISTER,
    SECTIONS,
    SITE,
)

ZONE = ZoneInfo("Asia/Shanghai")
HEAD = "# 模拟数据，由 infravitals demo 写出 / simulated data, written by infravitals demo\n"
BUSY = {"days": {"mon-fri": ["08:00-12:00", "14:00-18:00"]}}
CONSULTING = {"days": {"mon-fri": ["09:00-12:00"]}}
NEVER_ATTESTED = ("ev-ransomware-playbook", "ev-telemed-ups", "ev-media-inventory")
"""What this hospital has no paper for."""
RUNS_OUT = ("ev-drill-report", "ev-pentest-report")
"""What expires soon after the end."""
OUTSIDE_SHARE = 0.72
"""What the outside assessments of all other indicators gave."""


def write_folder(folder: Path, story: Story, book: Rulebook) -> None:
    """Write all files anew. Raises OSError."""
    (folder / DOCUMENTS).mkdir(parents=True, exist_ok=True)
    files: Mapping[str, object] = {
        SITE: {"title": _title(TITLE), "time_zone": ZONE.key},
        REGISTER: _register(story),
        CALENDARS: {"service-hours": CONSULTING, "busy": BUSY},
        ATTESTATIONS: list(_attestations(folder, story, book)),
    }
    for name, content in files.items():
        (folder / name).write_text(HEAD + write_document(content), "utf-8")


def _title(words: tuple[str, str]) -> dict[str, str]:
    return dict(zip(("zh", "en"), words, strict=True))


def _register(story: Story) -> dict[str, dict[str, object]]:
    began = format_moment(story.at(365), ZONE)
    sections: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for thing in things():
        sections[thing.section][thing.id] = {"title": _title(thing.title), **thing.said, "from": began}
    return sections


def _attestations(folder: Path, story: Story, book: Rulebook) -> Iterator[dict[str, object]]:
    for name, criterion in sorted(book.criteria.items()):
        if criterion.kind != "attested" or name in NEVER_ATTESTED:
            continue
        paper = _paper(folder, name, criterion)
        term = duration_ms(criterion.valid or "365d") // DAY_MS
        days = 345 if name in RUNS_OUT else 360
        for begin in range(days, -1, -term):  # the last one holds beyond the end
            yield {
                "criterion": name,
                "value": _value(book.scales[criterion.scale]),
                "reason": "模拟的证明 / a simulated attestation",
                "author": "模拟 / simulated",
                "role": "信息科 / IT department",
                "from": format_moment(story.at(begin), ZONE),
                "expires": format_moment(story.at(begin - term), ZONE),
                "document": paper,
            }


def _paper(folder: Path, name: str, criterion: Criterion) -> dict[str, str]:
    text = f"模拟文件，不能作为证明 / a simulated paper, no proof of anything\n\n{criterion.title.zh}\n{criterion.title.en}\n"
    path = folder / DOCUMENTS / f"{name}.md"
    path.write_text(text, "utf-8")
    return {"path": f"{DOCUMENTS}/{path.name}", "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _value(scale: Scale) -> float:
    """The best rung; of an outside assessment a share."""
    return scale.rungs[0].at if scale.rungs else OUTSIDE_SHARE
