"""How old the stored configuration of each device is, and whether it is still the approved one.

Measures, per device: config_backup.age_seconds (since its file was last fetched), has_drift (it differs from the approved
file, left out where none was approved).
Needs: a folder where something fetches the devices' configurations (a TFTP or SFTP target, oxidized, rancid), one file a
device, and a folder of approved copies. Approving a change is copying the file there.
Reference: docs/paths.md.

Lines that change by themselves (clocks, counters, comments on when it was saved) are left out of the comparison. Nothing of a
configuration leaves this machine: only the age and whether the digests agree.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from agent.catalogue import explain_id, is_id
from agent.errors import NoData, SourceError
from agent.foreign_words import explain_system
from agent.language import say
from agent.points import Value
from agent.sources import Reading, Seconds, SourceConfig, Surroundings

IGNORED = (
    r"^! (Last configuration|NVRAM config) ",
    r"^ntp clock-period ",
    r"^# (Generated|Saved|Last) ",
    r"^!Time: ",
    r"^!(Current|Last) ",
    r"^\s*$",
)
"""Lines that common makers write anew each time."""

MOST_BYTES = 64 * 1024 * 1024


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """folder, approved: where <asset><suffix> stands. ignore: more lines to leave out, as regular expressions."""

    interval_seconds: Seconds = 3600.0
    deadline_seconds: Seconds = 60.0
    folder: str
    approved: str | None = None
    suffix: str = ".cfg"
    assets: tuple[str, ...]
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for asset in self.assets:
            if not is_id(asset):
                raise ValueError(explain_id("assets", asset))
        for pattern in self.ignore:
            try:
                re.compile(pattern)
            except re.error as error:
                text = say(f"ignore：'{pattern}' 不是正则表达式", f"ignore: '{pattern}' is no regular expression")
                raise ValueError(text) from error


class Source:
    """The stored configurations of the devices that are named."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._clock = surroundings.clock
        self._ignored = [re.compile(pattern) for pattern in (*IGNORED, *config.ignore)]

    async def open(self) -> None:
        """Nothing to open."""

    def collect(self) -> list[Reading]:
        """One reading per device that has a file. Raises NoData without any, SourceError when the folder cannot be read."""
        folder = Path(self._config.folder)
        if not folder.is_dir():
            raise SourceError(say(f"没有目录 {folder}", f"there is no folder {folder}"))
        found = {asset: self._describe(asset) for asset in self._config.assets}
        readings = [Reading("config_backup", fields, asset=asset) for asset, fields in found.items() if fields]
        if not readings:
            raise NoData(say(f"{folder} 中没有任何一台设备的配置", f"no device's configuration is in {folder}"))
        return readings

    async def close(self) -> None:
        """Nothing to close."""

    def _describe(self, asset: str) -> Mapping[str, Value]:
        stored = Path(self._config.folder, asset + self._config.suffix)
        try:
            fields: dict[str, Value] = {"age_seconds": max(0.0, self._clock() - stored.stat().st_mtime)}
            if self._config.approved is not None:
                approved = Path(self._config.approved, asset + self._config.suffix)
                if approved.exists():
                    fields["has_drift"] = self._digest(stored) != self._digest(approved)
        except FileNotFoundError:
            return {}
        except OSError as error:
            text = say(
                f"无法读取 {error.filename}：{explain_system(error)}",
                f"cannot read {error.filename}: {explain_system(error)}",
            )
            raise SourceError(text) from error
        return fields

    def _digest(self, path: Path) -> str:
        """Of the lines that count; line ends and trailing blanks do not. Raises OSError."""
        if path.stat().st_size > MOST_BYTES:
            raise OSError(27, "too large for a configuration", str(path))
        lines = (line.rstrip() for line in path.read_text("utf-8", "replace").splitlines())
        kept = [line for line in lines if not any(pattern.search(line) for pattern in self._ignored)]
        return hashlib.sha256("\n".join(kept).encode()).hexdigest()
