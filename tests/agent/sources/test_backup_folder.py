"""backup_folder over folders with real files: old and new, full and incremental, whole, damaged and unfinished."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from declared import undeclared

from agent.errors import NoData, SourceError
from agent.language import speaking
from agent.points import Value
from agent.sources import Surroundings
from agent.sources.backup_folder import Config, Source

NOW = 1_774_900_000.0
HOUR, DAY = 3600.0, 86_400.0


def put(folder: Path, name: str, age_seconds: float, content: bytes = b"rows", *, has_sums: bool = True) -> Path:
    path = folder / name
    path.write_bytes(content)
    os.utime(path, (NOW - age_seconds, NOW - age_seconds))
    if has_sums:
        path.with_name(f"{name}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    return path


@asynccontextmanager
async def watching(folder: Path, **more: object) -> AsyncIterator[Source]:
    copy = {"folder": str(folder), "full": "full-*", "incremental": "wal-*", "offsite": True, **more}
    config = msgspec.convert({"systems": {"his": {"vault": copy}}}, Config)
    source = Source(config, Surroundings("backup-1", clock=lambda: NOW))
    await source.open()
    try:
        yield source
    finally:
        await source.close()


async def look(source: Source) -> dict[str, Value]:
    """What it says when the sums are counted."""
    await source.collect()
    await source.wait_for_sums()
    [reading] = await source.collect()
    assert undeclared("backup_folder", [reading]) == []
    assert reading.tags == {"system": "his", "copy": "vault"}
    return dict(reading.fields)


async def test_newest_full_and_incremental_and_even_intervals(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f"full-{number}.dump", number * DAY + 5 * HOUR)
    async with watching(tmp_path) as source:
        assert await look(source) == {
            "age_seconds": 5 * HOUR,
            "full_age_seconds": 5 * HOUR,
            "verified_age_seconds": 5 * HOUR,
            "is_full": True,
            "is_automatic": True,
            "is_offsite": True,
        }
        put(tmp_path, "wal-1", HOUR, has_sums=False)
        found = await look(source)
    assert (found["age_seconds"], found["is_full"], found["full_age_seconds"]) == (HOUR, False, 5 * HOUR)
    assert found["is_automatic"] is False, "four hours and then a day are no even intervals"


async def test_damaged_backup_is_not_verified_and_the_one_before_it_was(tmp_path: Path) -> None:
    put(tmp_path, "full-0", 2 * DAY)
    async with watching(tmp_path) as source:
        assert (await look(source))["verified_age_seconds"] == 2 * DAY
        damaged = put(tmp_path, "full-1", DAY)
        damaged.write_bytes(b"rowz")
        os.utime(damaged, (NOW - DAY, NOW - DAY))
        found = await look(source)
    assert (found["full_age_seconds"], found["verified_age_seconds"]) == (DAY, 2 * DAY)
    assert "is_automatic" not in found, "two backups say nothing of intervals"


async def test_folder_is_one_backup_and_a_file_that_is_missing_from_it_is_damage(tmp_path: Path) -> None:
    place = tmp_path / "full-base"
    place.mkdir()
    parts = [put(place, name, DAY, has_sums=False) for name in ("base.tar", "wal.tar")]
    sums = [f"{hashlib.sha256(part.read_bytes()).hexdigest()} *{part.name}" for part in parts]
    (place / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    async with watching(tmp_path) as source:
        assert (await look(source))["verified_age_seconds"] == DAY
    parts[1].unlink()
    async with watching(tmp_path) as source:
        assert "verified_age_seconds" not in await look(source)


async def test_what_is_unfinished_empty_or_not_of_the_name_is_no_backup(tmp_path: Path) -> None:
    put(tmp_path, "full-1", 10.0)
    put(tmp_path, "full-2.part", DAY)
    put(tmp_path, "full-3", DAY, b"")
    put(tmp_path, "notes.txt", DAY)
    async with watching(tmp_path) as source:
        with speaking("en"), pytest.raises(SourceError, match="there is no backup"):
            await source.collect()
    async with watching(tmp_path / "absent") as source:
        with speaking("en"), pytest.raises(SourceError, match=f"{tmp_path}/absent cannot be read: No such file"):
            await source.collect()


async def test_nothing_configured_is_no_trouble() -> None:
    with pytest.raises(NoData):
        await Source(Config(), Surroundings("backup-1")).collect()
