"""What both programs write to stderr: one line per record, or one JSON object."""

import logging
import os
import sys
from types import TracebackType
from typing import Literal

import msgspec


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes to stderr. format: `line` for people, `json` for machines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["line", "json"] = "line"


def set_up_logging(config: LogConfig) -> None:
    """One line per record on stderr; only the journal adds the time itself, and systemd says that it reads."""
    handler = logging.StreamHandler()
    if config.format == "json":
        handler.setFormatter(_JsonFormatter())
        sys.excepthook = _log_the_end
    else:
        time_part = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
        handler.setFormatter(logging.Formatter(f"{time_part}%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=config.level.upper(), force=True)


def _log_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What ends the program is a record too."""
    logging.getLogger(__name__).critical("ended by a bug", exc_info=(kind, error, trace))


class _JsonFormatter(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time_seconds": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()
