"""Agents that were revoked, in `revoked.json` of the site folder: `site remove-agent` writes it, the collector reads it.

It tells what is to be expected of whom and is no part of the folder's digest: no score may move because an agent was taken away.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from agent.documents import Mistake
from agent.language import say

REVOKED = "revoked.json"

_Told = dict[str, Annotated[datetime, msgspec.Meta(tz=True)]]


def parse_revoked(text: str) -> dict[str, int]:
    """Agent -> when it was revoked, ms since the epoch. Raises ValueError for a text that is not ours."""
    told = msgspec.json.decode(text, type=_Told)
    return {agent: int(at.timestamp() * 1000) for agent, at in told.items()}


def spell_revoked(revoked: Mapping[str, int]) -> str:
    """The file's text, a line for each."""
    told = {agent: datetime.fromtimestamp(at // 1000, UTC) for agent, at in revoked.items()}
    return msgspec.json.format(msgspec.json.encode(told, order="sorted"), indent=2).decode() + "\n"


def read_revoked(folder: Path, mistakes: list[Mistake]) -> Mapping[str, int]:
    """Those of a site folder; a file that cannot be read goes to `mistakes`."""
    path = folder / REVOKED
    try:
        return parse_revoked(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        text = say(
            "读不懂：应为采集代理名与撤销时刻，由 site remove-agent 写；请从备份恢复，或删去它",
            "this cannot be read: it holds names of agents and when they were revoked, written by site remove-agent; restore it from a backup, or take it away",
        )
        mistakes.append(Mistake(str(path), 1, text))
        return {}
