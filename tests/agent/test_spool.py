"""The spool on a real disk: its bounds, its announcements, and what it does when the process or the disk fails it."""

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from servers import program

from agent.errors import SpoolError
from agent.language import choose
from agent.points import Point
from agent.spool import ACCOUNT_MS, Outgoing, Spool, SpoolState
from agent.wire import Receipt, decode_batch

NOON = 1_760_000_000.0
MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def open_spool(folder: Path, **changes: object) -> Spool:
    settings: dict[str, object] = {
        "max_bytes": 8 * MEBIBYTE,
        "max_age_seconds": 7 * 86400.0,
        "clock": Clock(),
        "new_boot": lambda: "boot-a",
    }
    return Spool(folder / "spool.db", **(settings | changes))  # type: ignore[arg-type]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = open_spool(tmp_path)
    yield opened
    opened.close()


def point(value: float = 0.5) -> Point:
    return Point("host_memory", {"asset": "his-db-1"}, {"used_ratio": value}, 1_760_000_000_000)


def heavy(kibibytes: int) -> list[Point]:
    """Points whose JSON takes about so many kibibytes."""
    return [Point("host_memory", {"asset": "his-db-1"}, {"used_ratio": 0.5}, 0)] * (kibibytes * 1024 // 93)


def take_all(spool: Spool) -> list[Outgoing]:
    return spool.take(10_000, live_since=2**62, in_flight=())


def applied(*batches: Outgoing) -> Receipt:
    return Receipt(batches[0].boot, [(batch.seq, batch.seq) for batch in batches], [])


def disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_spool_gives_the_bytes_of_the_wire(spool: Spool) -> None:
    spool.put([point()])
    assert take_all(spool)[0].payload(1_760_000_000_250) == (
        b'{"boot":"boot-a","seq":0,"made_at":1760000000000,"sent_at":1760000000250,"points":1,"dropped":[],'
        b'"metrics":[{"name":"host_memory","tags":{"asset":"his-db-1"},"fields":{"used_ratio":0.5},'
        b'"timestamp":1760000000000}]}'
    )


def test_spool_counts_batches_from_zero_in_each_boot(tmp_path: Path) -> None:
    for boot in ("boot-a", "boot-b"):
        spool = open_spool(tmp_path, new_boot=lambda boot=boot: boot)
        spool.put([point()])
        spool.put([point()])
        spool.close()
    found = take_all(spool)
    spool.close()
    assert [(batch.boot, batch.seq) for batch in found] == [("boot-a", 0), ("boot-a", 1), ("boot-b", 0), ("boot-b", 1)]


def test_spool_made_at_rises_when_the_clock_goes_back(tmp_path: Path) -> None:
    clock = Clock()
    spool = open_spool(tmp_path, clock=clock)
    spool.put([point()])
    clock.now -= 3600
    spool.put([point()])
    spool.settle(applied(*take_all(spool)))
    spool.close()
    after_restart = open_spool(tmp_path, clock=clock)
    after_restart.put([point()])
    assert [batch.made_at for batch in take_all(after_restart)] == [1_760_000_000_002]
    after_restart.close()


def test_spool_keeps_nothing_for_no_points(spool: Spool) -> None:
    spool.put([])
    assert spool.state().made_batches == 0


def test_spool_gives_live_batches_newest_first_and_then_the_backlog_oldest_first(spool: Spool) -> None:
    for _ in range(3):
        spool.put([point()])
    connected_at = spool.newest()
    for _ in range(2):
        spool.put([point()])
    found = spool.take(4, live_since=connected_at, in_flight=())
    assert [batch.seq for batch in found] == [4, 3, 0, 1]


def test_spool_leaves_out_what_is_in_flight(spool: Spool) -> None:
    for _ in range(3):
        spool.put([point()])
    first = take_all(spool)[0]
    assert [batch.seq for batch in spool.take(9, live_since=0, in_flight={first.made_at})] == [2, 1]


def test_spool_gives_a_batch_again_until_it_is_settled(spool: Spool) -> None:
    spool.put([point()])
    batch = take_all(spool)[0]
    assert spool.again(batch.made_at) == batch
    spool.settle(applied(batch))
    assert spool.again(batch.made_at) is None


def test_spool_is_freed_by_applied_and_by_set_aside_alike(spool: Spool) -> None:
    for _ in range(4):
        spool.put([point(), point()])
    freed = spool.settle(Receipt("boot-a", [(0, 1)], [(3, 3)]))
    assert freed == [1_760_000_000_000, 1_760_000_000_001, 1_760_000_000_003]
    assert [batch.seq for batch in take_all(spool)] == [2]
    state = spool.state()
    assert (state.made_points, state.applied_points, state.set_aside_points, state.points) == (8, 4, 2, 2)


@pytest.mark.parametrize(
    "receipt", [Receipt("boot-x", [(0, 9)], []), Receipt("boot-a", [(1, 0), (5, 2**80), (-(2**80), -1)], [])]
)
def test_spool_is_not_freed_by_a_receipt_for_something_else(spool: Spool, receipt: Receipt) -> None:
    spool.put([point()])
    assert spool.settle(receipt) == []
    assert spool.state().batches == 1


def test_spool_makes_several_batches_of_what_is_too_much_for_one(spool: Spool) -> None:
    spool.put(heavy(600))
    found = take_all(spool)
    assert [batch.seq for batch in found] == [0, 1, 2, 3]
    assert sum(batch.points for batch in found) == len(heavy(600))
    assert max(len(batch.metrics) for batch in found) <= 256 * 1024


def test_spool_drops_oldest_when_full(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=MEBIBYTE)
    for _ in range(30):
        spool.put(heavy(100))
    kept = [batch.seq for batch in take_all(spool)]
    assert kept == list(range(kept[0], 30))
    state = spool.state()
    assert (state.made_batches, state.dropped_batches, state.batches) == (30, kept[0], 30 - kept[0])
    assert len(kept) >= 5
    spool.close()


@pytest.mark.parametrize("max_bytes", [MEBIBYTE // 2, MEBIBYTE, 3 * MEBIBYTE])
def test_spool_never_takes_more_of_the_disk_than_its_bound(tmp_path: Path, max_bytes: int) -> None:
    dice = random.Random(7)
    spool = open_spool(tmp_path, max_bytes=max_bytes)
    largest = 0
    for _ in range(150):
        spool.put(heavy(dice.choice((1, 4, 50, 120))))
        largest = max(largest, disk_bytes(tmp_path))
        if dice.random() < 0.1:
            waiting = spool.take(dice.randrange(20), live_since=0, in_flight=())
            spool.settle(Receipt("boot-a", [(batch.seq, batch.seq) for batch in waiting], []))
    assert spool.state().dropped_batches > 0
    assert max_bytes // 2 < largest <= max_bytes
    spool.close()


def test_spool_gives_the_disk_back_when_it_is_settled(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for _ in range(60):
        spool.put(heavy(100))
    full = disk_bytes(tmp_path)
    for batch in take_all(spool):
        spool.settle(applied(batch))
    spool.close()
    assert full > 5 * MEBIBYTE
    assert disk_bytes(tmp_path) < 2 * MEBIBYTE


def test_spool_drops_what_is_too_old(tmp_path: Path) -> None:
    clock = Clock()
    spool = open_spool(tmp_path, clock=clock, max_age_seconds=3600.0)
    spool.put([point()])
    clock.now += 3599
    spool.put([point()])
    clock.now += 2
    spool.put([point()])
    found = take_all(spool)
    assert [batch.seq for batch in found] == [1, 2]
    assert found[-1].dropped == [("boot-a", 0, 0, 1)]
    assert spool.state().oldest_age_seconds == 2.0
    spool.close()


def test_spool_announces_a_single_point_that_no_batch_can_hold(spool: Spool) -> None:
    spool.put([Point("device_label", {"asset": "x"}, {"text": "z" * 300_000}, 0)])
    spool.put([point()])
    assert [(batch.seq, batch.dropped) for batch in take_all(spool)] == [(1, [("boot-a", 0, 0, 1)])]


@pytest.fixture
def lossy(tmp_path: Path) -> Iterator[tuple[Spool, Callable[[], None]]]:
    """A spool with the batches 1 and 2, batch 0 lost and announced since 2; and how to lose all that waits."""
    clock = Clock()
    opened = open_spool(tmp_path, clock=clock, max_age_seconds=3600.0)

    def lose_all() -> None:
        clock.now += 3601

    opened.put([point()])
    clock.now += 1800
    opened.put([point()])
    clock.now += 1801
    opened.put([point()])
    yield opened, lose_all
    opened.close()


Lossy = tuple[Spool, Callable[[], None]]


def test_spool_announces_a_loss_in_every_batch(lossy: Lossy) -> None:
    announced = [("boot-a", 0, 0, 1)]
    assert [(batch.seq, batch.dropped) for batch in take_all(lossy[0])] == [(1, announced), (2, announced)]


def test_spool_announces_until_a_batch_made_since_is_applied(lossy: Lossy) -> None:
    spool, _ = lossy
    before, since = take_all(spool)
    spool.settle(applied(before))  # an earlier send of it may have arrived, without the announcement
    assert take_all(spool)[0].dropped == [("boot-a", 0, 0, 1)]
    spool.settle(applied(since))
    spool.put([point()])
    assert take_all(spool)[0].dropped == []


def test_spool_announces_on_when_the_batch_that_carried_it_was_set_aside(lossy: Lossy) -> None:
    spool, _ = lossy
    spool.settle(Receipt("boot-a", [], [(2, 2)]))
    assert take_all(spool)[0].dropped == [("boot-a", 0, 0, 1)]


def test_spool_lets_later_losses_wait_for_the_next_announcement(lossy: Lossy) -> None:
    spool, lose_all = lossy
    lose_all()
    spool.put([point()])
    assert [(batch.seq, batch.dropped) for batch in take_all(spool)] == [(3, [("boot-a", 0, 0, 1)])]
    spool.settle(Receipt("boot-a", [(3, 3)], []))
    spool.put([point()])
    assert [(batch.seq, batch.dropped) for batch in take_all(spool)] == [(4, [("boot-a", 1, 2, 2)])]


def test_spool_announces_on_after_a_restart(lossy: Lossy, tmp_path: Path) -> None:
    lossy[0].close()
    restarted = open_spool(tmp_path, new_boot=lambda: "boot-b")
    assert take_all(restarted)[0].dropped == [("boot-a", 0, 0, 1)]
    restarted.close()


def assert_balanced(state: SpoolState) -> None:
    batches = (state.applied_batches, state.set_aside_batches, state.dropped_batches, state.batches)
    points = (state.applied_points, state.set_aside_points, state.dropped_points, state.points)
    assert (state.made_batches, state.made_points) == (sum(batches), sum(points))


def test_spool_ledger_balances_whatever_happens(tmp_path: Path) -> None:
    dice = random.Random(11)
    clock = Clock()
    boots = count()
    spool = open_spool(tmp_path, max_bytes=MEBIBYTE, clock=clock, max_age_seconds=600.0)
    for _ in range(400):
        clock.now += dice.choice((1, 15, 60, -30))
        spool.put(heavy(dice.choice((1, 2, 100))))
        if dice.random() < 0.3:
            waiting = spool.take(5, live_since=0, in_flight=())
            chosen = [(batch.seq, batch.seq) for batch in waiting if batch.boot == waiting[0].boot]
            spool.settle(Receipt(waiting[0].boot, chosen[1:], chosen[:1]))
        if dice.random() < 0.05:
            spool.close()
            spool = open_spool(
                tmp_path, max_bytes=MEBIBYTE, clock=clock, max_age_seconds=600.0, new_boot=lambda: f"boot-{next(boots)}"
            )
    state = spool.state()
    there = take_all(spool)
    assert (state.batches, state.points) == (len(there), sum(batch.points for batch in there))
    assert_balanced(state)
    assert min(state.applied_batches, state.set_aside_batches, state.dropped_batches, next(boots)) > 5
    spool.close()


PUTS_FOR_EVER = """
import sys
from pathlib import Path
from agent.points import Point
from agent.spool import Spool

spool = Spool(Path(sys.argv[1]), max_bytes=2**24, max_age_seconds=1e9, new_boot=lambda: sys.argv[2])
for number in range(10**6):
    spool.put([Point("host_memory", {}, {"used_ratio": 0.5}, number)] * 200)
    print(number, flush=True)
"""


def test_spool_loses_nothing_that_it_took_when_killed(tmp_path: Path) -> None:
    promised: list[tuple[str, int]] = []
    for lines in (1, 40, 97):
        boot = f"boot-{lines}"
        argv = [sys.executable, "-c", PUTS_FOR_EVER, str(tmp_path / "spool.db"), boot]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(lines):
                promised.append((boot, int(child.stdout.readline())))
            os.kill(child.pid, signal.SIGKILL)
            promised += [(boot, int(line)) for line in child.stdout if line.endswith("\n")]
    spool = open_spool(tmp_path, max_bytes=2**24)
    kept = {(batch.boot, batch.seq): batch for batch in take_all(spool)}
    spool.close()
    assert len(promised) >= 138
    assert set(promised) <= kept.keys()
    assert all(len(decode_batch(batch.payload(0)).batch.metrics) == 200 for batch in kept.values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [program("mount", "mount"), "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"this test must be root to mount a small disk: {done.stderr}"
    yield disk
    subprocess.run([program("umount", "mount"), disk], check=True)


def test_spool_says_that_the_disk_is_full_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    spool = open_spool(small_disk)
    spool.put([point()])
    ballast.write_bytes(bytes(900 * 1024))
    with pytest.raises(SpoolError) as full:
        for _ in range(100):
            spool.put(heavy(30))
    assert str(full.value) == (
        f"the disk of the spool {small_disk}/spool.db is full, new data cannot be kept; free some space, it recovers by itself"
    )
    kept = len(take_all(spool))
    with pytest.raises(SpoolError):
        spool.put(heavy(100))
    ballast.unlink()
    spool.put([point()])
    assert take_all(spool)[-1].dropped == [("boot-a", kept, kept + 1, len(heavy(30)) + len(heavy(100)))]
    state = spool.state()
    assert (state.made_batches, state.dropped_batches, state.batches) == (kept + 3, 2, kept + 1)
    assert state.unkept_points == state.dropped_points == len(heavy(30)) + len(heavy(100))
    assert_balanced(state)
    spool.close()


def test_spool_starts_on_a_full_disk_and_recovers(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(2 * MEBIBYTE))
    spool = open_spool(small_disk)
    with pytest.raises(SpoolError, match="full"):
        spool.put([point()])
    ballast.unlink()
    spool.put([point()])
    assert [(batch.seq, batch.dropped) for batch in take_all(spool)] == [(1, [("boot-a", 0, 0, 1)])]
    spool.close()


def test_spool_still_gives_what_it_has_on_a_full_disk(small_disk: Path) -> None:
    spool = open_spool(small_disk)
    spool.put([point()])
    spool.put([point()])
    spool.close()
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(2 * MEBIBYTE))
    assert [batch.seq for batch in take_all(spool)] == [0, 1]
    spool.close()


def test_spool_moves_a_file_that_is_no_database_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "spool.db").write_bytes(b"this was never a database\n" * 400)
    spool = open_spool(tmp_path)
    spool.put([point()])
    assert [batch.seq for batch in take_all(spool)] == [0]
    spool.close()
    assert (tmp_path / "spool.db.damaged").read_bytes().startswith(b"this was never")
    assert "is damaged (file is not a database); it was moved to" in caplog.text


def test_spool_moves_a_file_aside_that_is_damaged_in_the_middle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = open_spool(tmp_path)
    for _ in range(20):
        spool.put(heavy(20))
    spool.close()
    with (tmp_path / "spool.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 60_000)
    spool.put([point()])
    assert [(batch.seq, batch.boot) for batch in take_all(spool)] == [(20, "boot-a")]
    spool.close()
    assert "is damaged" in caplog.text


def test_spool_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = open_spool(tmp_path), open_spool(tmp_path)
    first.put([point()])
    with pytest.raises(
        SpoolError,
        match=r"spool\.db is in use by another process; end that one, or give each agent its own state_directory",
    ):
        second.put([point()])
    first.close()
    second.put([point()])
    second.close()


def test_spool_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    later = sqlite3.connect(tmp_path / "spool.db")
    later.execute("PRAGMA user_version = 9")
    later.close()
    with pytest.raises(SpoolError, match=r"is of version 9, this program knows 1"):
        open_spool(tmp_path).put([point()])


def test_spool_says_where_it_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SpoolError,
        match=r"cannot open the spool .*file/spool\.db \(.+\); check the folder's permissions and the disk, or set state_directory$",
    ):
        open_spool(tmp_path / "file").put([point()])


def test_spool_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "spool.db").touch(mode=0o644)
    spool = open_spool(tmp_path)
    spool.put([point()])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    spool.close()
    assert modes == {"spool.db": 0o600, "spool.db-wal": 0o600}


def test_account_is_closed_when_it_is_old_and_nothing_waits(tmp_path: Path) -> None:
    clock = Clock()
    spool = open_spool(tmp_path, clock=clock, max_age_seconds=1e9)
    spool.put([point(), point()])
    first = spool.state()
    assert (first.began_at, first.newest_at, first.oldest_at, first.closings) == (int(NOON * 1000),) * 3 + (0,)
    clock.now += ACCOUNT_MS / 1000
    spool.put([point()])
    assert (spool.state().made_batches, spool.state().closings) == (2, 0), "something waits"
    spool.settle(applied(*take_all(spool)))
    spool.put([point()])
    closed = spool.state()
    assert (closed.made_batches, closed.made_points, closed.applied_batches, closed.closings) == (1, 1, 0, 1)
    assert closed.began_at == closed.newest_at == closed.oldest_at == int(clock.now * 1000) + 1
    spool.close()


def test_account_of_an_older_file_is_told_once_it_was_empty(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([point()])
    spool.close()
    older = sqlite3.connect(tmp_path / "spool.db")
    for column in ("began_at", "closings"):
        older.execute(f"ALTER TABLE ledger DROP COLUMN {column}")
    older.close()
    spool = open_spool(tmp_path, new_boot=lambda: "boot-b")
    assert spool.state().began_at is None
    spool.settle(applied(*take_all(spool)))
    spool.put([point()])
    state = spool.state()
    assert (state.began_at, state.made_batches, state.closings) == (state.newest_at, 1, 1)
    spool.close()


def test_what_somebody_took_out_of_the_file_shows_in_the_account(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for _ in range(3):
        spool.put([point()])
    spool.close()
    with sqlite3.connect(tmp_path / "spool.db") as file:
        file.execute("DELETE FROM batch WHERE seq = 1")
    file.close()
    state = open_spool(tmp_path).state()
    assert (state.made_batches, state.batches, state.points) == (3, 2, 2)
