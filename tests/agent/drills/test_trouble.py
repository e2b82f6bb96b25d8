"""Drills in trouble on a real socket: a disk that fills, a program that is absent, a killed one, a server without a name."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from agent.continuity.outages import Outage
from agent.continuity.reach import Reach
from agent.continuity.settings import Probe
from agent.drills.conduct import Conductor, judge_hands
from agent.drills.plan import Plan, refuse_absent
from agent.drills.records import Running, TokenLog, find_doubts, find_unfinished
from agent.errors import OwnMistake, SourceError, WrongCall
from agent.language import speaking
from agent.sources import Surroundings
from agent.table import NEVER_SECONDS
from collector.cli import main


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; a command of root's."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, left_bytes: int) -> None:
    room = os.statvfs(folder)
    (folder / "other").write_bytes(bytes(room.f_bavail * room.f_frsize - left_bytes))


def make_plan(switch: list[list[str]], back: list[list[str]]) -> Plan:
    window = {"from": "2026-11-26T22:00:00+08:00", "until": "2026-11-26T23:00:00+08:00"}
    written = {
        "drill": "his-1", "probe": "his-tcp", "people": ["zhang-san", "li-si"], "window": window, "calm_seconds": 0.5,
        "observe_seconds": 30.0, "hook": {"switch": switch, "back": back},
    }  # fmt: skip
    return msgspec.convert(written, Plan)


async def test_disk_that_fills_breaks_the_drill_off_and_the_service_is_switched_back(small_disk: Path) -> None:
    returned = small_disk.parent / "returned"
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fill(small_disk, 8192)
    plan = make_plan([["true"]], [["touch", str(returned)]])
    probe = Probe(service="his", kind="tcp", addresses=(f"127.0.0.1:{port}",))
    told: list[str] = []
    conductor = Conductor(plan, probe, small_disk / "drills", Surroundings("drill"), told.append)
    async with server:
        with speaking("en"), pytest.raises(SourceError, match=r"No space left on device.*make room") as caught:
            await conductor.run(plan.people)
    assert returned.exists() and "\n" not in str(caught.value)
    assert find_unfinished(small_disk / "drills") == ["his-1"]
    assert not (small_disk / "drills" / "his-1.running").exists()


class Database:
    """A fake reach: loses nothing, is served by whom the file `served` names, and our own password is wrong while `blind` is there."""

    keeps_tokens = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def send(self, number: int, sent_at: float) -> str:
        if (self.folder / "blind").exists():
            (self.folder / "groped").touch()
            raise OwnMistake("our password is wrong")
        return (self.folder / "served").read_text()

    async def read_back(self, first: int, last: int) -> set[int]:
        return set(range(first, last + 1))

    async def close(self) -> None:
        """Holds nothing."""


class Drilled(Conductor):
    """A drill of the fake database in its folder's parent."""

    def _make_reach(self) -> Reach:
        self._reach = Database(self._folder.parent)
        return self._reach


MOVE = "printf {0} > {1}/new && mv {1}/new {1}/served"
BLIND_MOVE = "touch {1}/blind; until [ -e {1}/groped ]; do sleep 0.05; done; sleep 0.5; " + MOVE + "; rm {1}/blind"


@pytest.mark.parametrize(
    ("switch", "back", "is_passed"),
    [
        (MOVE, MOVE, True),
        (BLIND_MOVE, MOVE, False),
        (MOVE, BLIND_MOVE, False),
        (MOVE, MOVE + "; touch {1}/blind", False),
    ],
    ids=["seen", "blind-away", "blind-back", "blind-at-the-end"],
)
async def test_drill_that_our_own_mistake_kept_us_from_seeing_proves_nothing(
    switch: str, back: str, is_passed: bool, tmp_path: Path
) -> None:
    (tmp_path / "served").write_text("a")
    acts = [[["sh", "-c", text.format(name, tmp_path)]] for text, name in ((switch, "b"), (back, "a"))]
    is_end_seen = not back.endswith("touch {1}/blind")  # then nobody waits for longer
    seconds = 60.0 if is_end_seen else 4.0
    plan = msgspec.structs.replace(make_plan(*acts), observe_seconds=seconds, calm_seconds=0.3, period_seconds=0.05)
    probe = Probe(service="his", kind="tcp", addresses=("127.0.0.1:1",))
    record = await Drilled(plan, probe, tmp_path / "drills", Surroundings("drill"), lambda _: None).run(plan.people)
    assert record.is_passed is is_passed
    assert find_doubts(tmp_path / "drills", record) == []
    if is_passed:
        assert record.rpo_seconds == 0.0
        return
    assert record.rpo_seconds is None and record.lost is None, "what was not sent cannot be missed"
    assert record.rto_seconds is not None
    assert record.rto_seconds >= (0.5 if "groped" in switch + back else NEVER_SECONDS)


def test_id_is_free_again_when_there_was_no_room_to_begin(small_disk: Path) -> None:
    fill(small_disk, 0)
    with speaking("en"), pytest.raises(SourceError, match="No space left on device"):
        TokenLog(small_disk / "drills", "his-1", "his", 0.0)
    (small_disk / "other").unlink()
    TokenLog(small_disk / "drills", "his-1", "his", 0.0).discard()


def test_program_that_is_not_here_is_refused_before_anything_is_touched() -> None:
    refuse_absent(make_plan([["true"]], [["sh", "-c", "true"]]))
    for plan in (make_plan([["no-such-program", "x"]], []), make_plan([["true"]], [["/no/such/program"]])):
        with pytest.raises(WrongCall, match=re.escape((*plan.hook.back, *plan.hook.switch)[0][0])):
            refuse_absent(plan)


def test_drill_that_was_killed_is_listed_as_unfinished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = tmp_path / "agent.yaml"
    agent.write_text(
        f"site: s\nagent: a\nbroker: {{host: 127.0.0.1}}\nstate_directory: {tmp_path}\nsources: {{host_cpu: {{}}}}\n"
    )
    log = TokenLog(tmp_path / "drills", "his-1", "his", datetime.now(UTC).timestamp())
    assert msgspec.json.decode((tmp_path / "drills" / "his-1.running").read_bytes(), type=Running).service == "his"
    assert main(["drill", "list", "-c", str(agent)]) == 0
    assert "his-1：没有结果" in capsys.readouterr().out
    assert main(["drill", "show", "his-1", "-c", str(agent)]) == 2
    assert "his-1：没有结果" in capsys.readouterr().err
    log.discard()
    assert main(["drill", "list", "-c", str(agent)]) == 0
    assert "没有结果" not in capsys.readouterr().out


def test_slow_token_before_the_switch_does_not_make_its_recovery_automatic() -> None:
    slow, switch, back = (
        Outage(began_at, ended_at, 1, "a", "b", None, 1)
        for began_at, ended_at in ((0.0, 1.0), (5.0, 605.0), (700.0, 1900.0))
    )
    assert judge_hands([slow, switch], None, is_hands_off=False) is None
    assert judge_hands([slow, switch], None, is_hands_off=True) is True
    assert judge_hands([slow, switch, back], 650.0, is_hands_off=False) is None
    assert judge_hands([slow, switch], 300.0, is_hands_off=True) is False, "it took `back`"
    assert judge_hands([slow], 300.0, is_hands_off=False) is True
    assert judge_hands([back], 300.0, is_hands_off=True) is None
