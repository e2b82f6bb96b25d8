"""What only the DuckDB store has: a file that one process holds, that can be killed, filled up and damaged."""

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import language
from agent.catalogue import Catalogue, Field, Measurement
from agent.errors import StoreError
from agent.points import Point
from collector.buckets import FEW_NUMBERS, exact_sums, round9_all
from collector.numbers import answer_all
from collector.query import HOUR_MS, Bounds, Expectation, Question, Take, round9
from collector.stores import AppliedBatch, BatchName, StoredScorecard
from collector.stores._duckdb_questions import quote
from collector.stores._duckdb_schema import KEPT_TABLES
from collector.stores.duckdb import Config, Store

START = 1_760_054_400_000
POINTS_EACH = 50
LOAD = Field(kind="gauge", zh="负载", en="load", range=(0, 1), resolution="2^-20")
CATALOGUE = Catalogue(
    {
        "host_cpu": Measurement(
            zh="处理器",
            en="processor",
            interval_seconds=60,
            staleness_seconds=180,
            retention_days=30,
            fields={"busy_ratio": LOAD, "steal_ratio": LOAD},
        )
    },
    {},
)


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)


def applied(store: Store, identities: Sequence[str]) -> set[str]:
    """Which batches of `srv` have their row."""
    return {name.identity for name in store.applied({BatchName("main", "srv", one): None for one in identities})}


def hourly(seq: int) -> AppliedBatch:
    """Batch `seq` fills hour `seq` with POINTS_EACH points of incompressible numbers."""
    made_at = START + seq * HOUR_MS
    points = [
        Point(
            "host_cpu",
            {"asset": f"srv-{n % 5}"},
            {"busy_ratio": (seq * 7919 + n * 104_729) % 2**20 / 2**20},
            made_at + n,
        )
        for n in range(POINTS_EACH)
    ]
    return AppliedBatch("main", "srv", "b1", seq, f"b1/{seq}", made_at, made_at, points, 0, ())


def points_per_hour(store: Store, hours: int) -> dict[int, int]:
    """How many points each hour holds that holds any."""
    end = START + hours * HOUR_MS
    question = Question("host_cpu", "busy_ratio", (), (), START, end, HOUR_MS, Take("count"), Take("sum"))
    expectations = [Expectation((), START + n * HOUR_MS, (), START + (n + 1) * HOUR_MS) for n in range(hours)]
    rows = answer_all(question, store.buckets(question), expectations, Bounds(0.0, 0.0))
    return {hour: row.samples for hour, row in enumerate(rows) if row.samples}


# -- the whole worker: writes until it is stopped, one line for each write that returned

WORKER = """
import sys
sys.path.insert(0, {folder!r})
from test_duckdb import *
import itertools
with Store(Config(path={path!r}), CATALOGUE) as store:
    for call in itertools.count():
        store.write([hourly(call * 3 + part) for part in range(3)])
        print(call, flush=True)
"""


def run_worker(path: Path) -> "subprocess.Popen[str]":
    code = WORKER.format(folder=str(Path(__file__).parent), path=str(path))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", range(5))
def test_every_reported_write_outlives_kill_9_and_no_batch_is_half(tmp_path: Path, seed: int) -> None:
    path, chance = tmp_path / "store.duckdb", random.Random(seed)
    with run_worker(path) as worker:
        assert worker.stdout is not None
        reported = [int(worker.stdout.readline()) for _ in range(chance.randint(1, 60))]
        if chance.random() < 0.5:  # else at once, while the next write is only beginning
            threading.Event().wait(chance.random() * 0.02)
        worker.send_signal(signal.SIGKILL)
        reported += [int(line) for line in worker.stdout.read().split("\n") if line]
    batches = (reported[-1] + 2) * 3
    with Store(Config(path=str(path)), CATALOGUE) as store:
        found = applied(store, [f"b1/{seq}" for seq in range(batches)])
        hours = points_per_hour(store, batches)
    whole = {int(identity.partition("/")[2]) for identity in found}
    assert whole >= set(range((reported[-1] + 1) * 3))
    assert hours == dict.fromkeys(sorted(whole), POINTS_EACH)


# -- a full disk: a file system of 6 MB in a mount namespace of its own, so that nothing has to be cleaned up

FULL_DISK = """
import sys, json, os, signal
sys.path.insert(0, {folder!r})
from test_duckdb import *
from pathlib import Path
ballast = Path({disk!r}) / "ballast"
store = Store(Config(path={disk!r} + "/store.duckdb"), CATALOGUE).__enter__()
store.write([hourly(0)])
language.choose("en")
try:
    with ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    pass
refusals = []
for seq in range(1, 400):
    try:
        store.write([hourly(seq)])
    except StoreError as error:
        refusals.append((seq, str(error)))
        assert points_per_hour(store, 1) == {{0: POINTS_EACH}}  # reading goes on
        if len(refusals) == 3:
            break
ballast.unlink()
store.write([hourly(seq) for seq in range(500, 540)])
print(json.dumps(refusals), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

AFTERWARDS = """
import sys, json
sys.path.insert(0, {folder!r})
from test_duckdb import *
with Store(Config(path={disk!r} + "/store.duckdb"), CATALOGUE) as store:
    print(json.dumps([sorted(applied(store, [f"b1/{{n}}" for n in range(600)])),
        points_per_hour(store, 600)]))
"""


def run_on_small_disk(disk: Path, *programs: str) -> list[str]:
    """Runs Python programs one after another on a tmpfs of 6 MB at `disk`; gives the lines they print."""
    files = []
    for number, program in enumerate(programs):
        file = disk.parent / f"program-{number}.py"
        file.write_text(program.format(folder=str(Path(__file__).parent), disk=str(disk)))
        files.append(f"{sys.executable} {file}")
    script = f"mount -t tmpfs -o size=6m none {disk} || exit 9\n" + "\n".join(files)
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *as_root, "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 9, f"this kernel lets nobody mount a tmpfs: {done.stderr}"
    return done.stdout.splitlines()


def test_full_disk_refuses_in_one_sentence_and_later_writes_hold(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    refusals, found = (json.loads(line) for line in run_on_small_disk(disk, FULL_DISK, AFTERWARDS))
    assert len(refusals) == 3
    assert {text for _, text in refusals} == {f"{disk}/store.duckdb: the disk is full, nothing was written; make room"}
    refused = {seq for seq, _ in refusals}
    seqs, hours = {int(identity.partition("/")[2]) for identity in found[0]}, found[1]
    assert seqs == {0, *range(1, max(refused))} - refused | set(range(500, 540))
    assert hours == {str(hour): POINTS_EACH for hour in sorted(seqs)}


# -- a file that cannot be had


def refusal(path: Path | str) -> str:
    with pytest.raises(StoreError) as caught, Store(Config(path=str(path)), CATALOGUE):
        pass
    return str(caught.value)


def test_second_process_learns_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with run_worker(path) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        said = refusal(path)
        worker.kill()
    assert said.startswith(f"{path}: process {worker.pid} (python")
    assert said.endswith("holds the database file; stop it, or ask it instead")


def test_missing_directory_is_said(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "store.duckdb"
    assert refusal(path) == f"{path}: the directory does not exist; make it first"


def test_directory_in_place_of_the_file_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: this is a directory; a file's name is wanted"


def test_directory_without_permission_is_said(tmp_path: Path) -> None:
    code = (
        f"import sys, os; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_duckdb import *\n"
        "language.choose('en')\nos.setuid(65534)\nprint(refusal('/var/infravitals-store.duckdb'))"
    )
    if os.geteuid() != 0:
        code = code.replace("os.setuid(65534)", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "/var/infravitals-store.duckdb: no permission to read and write; "
        "look at the owner of the file and its directory\n"
    )


def test_file_of_another_kind_is_said(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    path.write_bytes(b"this is a letter, not a database\n" * 1000)
    assert refusal(path) == f"{path}: this is no database file; look at the path"


@pytest.mark.parametrize("at", [5000, 13_000])
def test_damaged_file_is_said(tmp_path: Path, at: int) -> None:
    path = tmp_path / "store.duckdb"
    with Store(Config(path=str(path)), CATALOGUE) as store:
        store.write([hourly(seq) for seq in range(50)])
    content = bytearray(path.read_bytes())
    content[at : at + 4000] = random.Random(1).randbytes(4000)
    path.write_bytes(content)
    assert (
        refusal(path)
        == f"{path}: the database file is damaged; restore it from a backup, or move it away and start anew"
    )


def test_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with Store(Config(path=str(path)), CATALOGUE) as store:
        store._open().connection.run("UPDATE opening SET format = 99")
    assert (
        refusal(path) == f"{path}: written by a newer version (format 99, this program knows 3); upgrade this program"
    )


FORMAT_1 = """
CREATE SCHEMA points;
CREATE TABLE opening AS SELECT 1::INTEGER AS format, 7::BIGINT AS number;
CREATE TABLE scorecard (site VARCHAR, as_of BIGINT, revision INTEGER, digest VARCHAR, written_at BIGINT, body BLOB);
INSERT INTO scorecard VALUES ('main', 5, 1, 'd1', 6, '{"total": 1}'::BLOB);
"""


def test_file_of_format_1_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with duckdb.connect(str(path)) as old:
        old.execute(FORMAT_1)
    for _ in range(2):
        with Store(Config(path=str(path)), CATALOGUE) as store:
            assert store.save_scorecard("main", 5, "d2", b"{}", 8, "late data") == 2
            assert store.scorecards("main", 0) == [
                StoredScorecard(5, 1, "d1", 6, b'{"total": 1}', "", ""),
                StoredScorecard(5, 2, "d2", 8, b"{}", "late data", ""),
            ]


def test_what_an_older_program_kept_moves_on(tmp_path: Path) -> None:
    def kept(store: Store, table: str) -> list[tuple[object, ...]]:
        return store._open().connection.rows(f"SELECT question, made_at FROM {table}")

    path = tmp_path / "store.duckdb"
    rows = "('0f', 'm', 0, 1, 9, ''::BLOB, ''::BLOB, ''::BLOB), ('a0', 'm', 0, 1, 8, ''::BLOB, ''::BLOB, ''::BLOB)"
    for _ in range(2):  # the second time an older program has run in between: its rows replace those of the same chunk
        with Store(Config(path=str(path)), CATALOGUE) as store:
            store._open().connection.run(f"INSERT INTO kept VALUES {rows}")
        with Store(Config(path=str(path)), CATALOGUE) as store:
            assert [kept(store, table) for table in ("kept", "kept_0", "kept_a")] == [[], [("0f", 9)], [("a0", 8)]]


def test_what_format_2_kept_in_wider_numbers_answers_as_before(tmp_path: Path) -> None:
    path, day = tmp_path / "store.duckdb", START + 24 * HOUR_MS
    with Store(Config(path=str(path)), CATALOGUE) as store:
        store.write([hourly(seq) for seq in range(4)])
        before = {subject: one.samples.tolist() for subject, one in store.buckets(counts(3), day).items()}
        store.keep()
        connection = store._open().connection
        for table in KEPT_TABLES:
            rows = connection.rows(f'SELECT start, places, samples, "values" FROM {table}')
            for start, *numbers, values in rows:
                wide = [np.frombuffer(part, f"<u{8 * len(part) // len(values)}") for part in numbers]
                assert [part.dtype for part in wide] == [np.dtype(np.uint8)] * 2, "few subjects, few samples"
                blobs = [part.astype("<i8").tobytes() for part in wide]
                connection.run(f"UPDATE {table} SET places = ?, samples = ? WHERE start = ?", [*blobs, start])
        connection.run("UPDATE opening SET format = 2")
        connection.run("DELETE FROM points.host_cpu WHERE time < ?", [START + 3 * HOUR_MS])
    with Store(Config(path=str(path)), CATALOGUE) as store:
        assert store._open().connection.rows("SELECT format FROM opening") == [(3,)]
        assert {subject: one.samples.tolist() for subject, one in store.buckets(counts(3)).items()} == before
        both = store.buckets(counts(4), day)
        store.keep()
        for subject, one in store.buckets(counts(4)).items():
            assert one.samples.tolist() == both[subject].samples.tolist()
            assert one.samples.tolist()[:3] == before[subject]


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    with Store(Config(path=str(tmp_path / "store.duckdb"), memory_bytes=64 * 2**20), CATALOGUE) as store:
        connection = store._open().connection
        connection.run("SET temp_directory = ''")
        with pytest.raises(StoreError, match="out of memory; raise memory_bytes or ask for a shorter window"):
            connection.run("CREATE TEMP TABLE t AS SELECT random() AS x, range AS y FROM range(20000000)")


# -- inside


def test_wrong_point_is_our_bug_and_leaves_nothing_half_written() -> None:
    wrong = Point("host_cpu", {"asset": "srv-0"}, {"busy_ratio": "text"}, START)
    with Store(Config(path=":memory:"), CATALOGUE) as store:
        with pytest.raises(ValueError, match="text"):
            store.write([hourly(0), hourly(1)._replace(points=[wrong])])
        assert applied(store, ["b1/0", "b1/1"]) == set()
        assert store.subjects("host_cpu", ("asset",), {}, START + HOUR_MS) == []
        store.write([hourly(0)])
        assert points_per_hour(store, 2) == {0: POINTS_EACH}


def test_only_hours_that_may_hold_a_double_are_marked(tmp_path: Path) -> None:
    config = Config(path=str(tmp_path / "store.duckdb"))

    def marks(store: Store) -> Sequence[tuple[object, ...]]:
        return store._open().connection.rows("SELECT hour - ? FROM double_hour ORDER BY hour", [START // HOUR_MS])

    with Store(config, CATALOGUE) as store:
        store.write([hourly(seq) for seq in range(5)])
        assert marks(store) == []
        store.write([hourly(3)._replace(seq=9, identity="b1/9")])
        assert marks(store) == [(3,)]
        store.prune(START)
        assert marks(store) == [(3,)]
        store.write(
            [hourly(1)._replace(seq=10, points=[Point("host_cpu", {"asset": "srv-0"}, {"busy_ratio": 0.5}, START + 9)])]
        )
        assert marks(store) == [(0,), (3,)]
        store.prune(START)  # hour 0 was late, not double
        assert marks(store) == [(3,)]
    with Store(config, CATALOGUE) as store:
        store.write([hourly(5)])
        assert marks(store) == [(3,)]


def test_reader_in_another_thread_sees_whole_batches_while_writes_go_on(tmp_path: Path) -> None:
    seen: list[dict[int, int]] = []
    with Store(Config(path=str(tmp_path / "store.duckdb")), CATALOGUE) as store:
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                seen.append(points_per_hour(store, 40))

        reader = threading.Thread(target=read)
        reader.start()
        for seq in range(40):
            store.write([hourly(seq)])
        done.set()
        reader.join()
        seen.append(points_per_hour(store, 40))
    assert {count for hours in seen for count in hours.values()} == {POINTS_EACH}
    assert len(seen[-1]) == 40


def test_same_question_gives_the_same_bits_again_and_again(tmp_path: Path) -> None:
    question = Question(
        "host_cpu", "busy_ratio", (), (), START, START + 300 * HOUR_MS, HOUR_MS, Take("mean"), Take("mean")
    )
    with Store(Config(path=str(tmp_path / "store.duckdb")), CATALOGUE) as store:
        store.write([hourly(seq) for seq in range(300)])
        answers = {
            answer_all(question, store.buckets(question), [Expectation((), 0, ())], Bounds(1.0, 0.0))[0]
            for _ in range(12)
        }
    assert {row.known for row in answers} == {0.499507888}


def test_compiled_question_run_again_gives_the_buckets(tmp_path: Path) -> None:
    name = "it's 5\" ?"
    question = Question(
        "host_cpu",
        "busy_ratio",
        (("asset", (name,)),),
        ("asset",),
        START,
        START + 2 * HOUR_MS,
        HOUR_MS,
        Take("max"),
        Take("max"),
    )
    points = [Point("host_cpu", {"asset": name}, {"busy_ratio": at / 8}, START + at * HOUR_MS) for at in (0, 1, 1)]
    with Store(Config(path=str(tmp_path / "store.duckdb")), CATALOGUE) as store:
        store.write([hourly(0)._replace(points=points)])
        assert store._open().connection.rows(store.compiled(question)) == [(0, 0.0, 1), (1, 0.125, 1)]


def test_a_question_is_spelt_one_way_whatever_came_and_gives_the_buckets(tmp_path: Path) -> None:
    """Doubles, an order of its own, a pruning and a second series of a subject change what the store does, never what it says."""
    end = START + 3 * HOUR_MS
    question = Question("host_cpu", "busy_ratio", (), (), START, end, HOUR_MS, Take("last"), Take("max"))

    def came(*samples: tuple[int, float], agent: str = "srv") -> None:
        points = [Point("host_cpu", {"asset": agent}, {"busy_ratio": value}, START + at) for at, value in samples]
        whole = hourly(seq := next(numbers))
        store.write([whole._replace(agent=agent, identity=f"{agent}/{seq}", points=points)])
        texts.append(store.compiled(question))

    numbers, texts = itertools.count(), list[str]()
    with Store(Config(path=str(tmp_path / "store.duckdb")), CATALOGUE) as store:
        texts.append(store.compiled(question))
        came((HOUR_MS, 0.5), (2 * HOUR_MS, 0.25))
        came((0, 0.125))
        store.prune(end)
        texts.append(store.compiled(question))
        came((HOUR_MS, 0.75))
        came((HOUR_MS, 0.625), agent="srv-2")
        assert len(set(texts)) == 1
        found = store.buckets(question)[()]
        rows = sorted(store._open().connection.rows(texts[0]))
        assert rows == [*zip(found.positions.tolist(), found.values.tolist(), found.samples.tolist(), strict=True)]
        assert rows == [(0, 0.125, 1), (1, 0.75, 2), (2, 0.25, 1)]


@given(st.text())
def test_quoted_text_is_read_as_itself(text: str) -> None:
    found = duckdb.execute(f"SELECT {quote(text)}, {quote([text, text])}").fetchall()
    assert found == [(text, [text, text])]


@given(
    st.lists(
        st.one_of(
            st.floats(-1e300, 1e300),
            st.sampled_from([1.0, -1.0, 2.0**53, -(2.0**53), 2.0**-53, 0.1]),
            st.integers(0, 10**9).map(lambda number: number / 1e9),
        ),
        min_size=1,
    )
)
def test_sums_of_columns_are_the_exact_sums_rounded_once(values: list[float]) -> None:
    back = values[::-1]
    for pairs in (1, FEW_NUMBERS):  # few numbers go another way than many
        sums = exact_sums(np.array([values, back] * pairs)).tolist()
        assert [total.hex() for total in sums] == [math.fsum(values).hex(), math.fsum(back).hex()] * pairs


@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=False),
            st.integers(-(2**50), 2**50).map(lambda step: step / 2**20),
            st.tuples(st.integers(0, 10**9), st.integers(-25, 12)).map(lambda one: float(f"{one[0]}5e{one[1]}")),
        )
    )
)
def test_rounding_of_columns_is_the_rounding_of_numbers(values: list[float]) -> None:
    rounded = round9_all(np.array(values, np.float64)).tolist()
    assert [value.hex() for value in rounded] == [round9(value).hex() for value in values]


# -- one moment for many questions


def test_what_is_written_beside_an_instant_is_neither_seen_in_it_nor_kept_wrong(tmp_path: Path) -> None:
    question, now = counts(2), START + 5 * HOUR_MS
    with Store(Config(path=str(tmp_path / "store.duckdb")), CATALOGUE) as store:
        store.write([hourly(0), hourly(1)])
        with store.instant() as instant:
            before = instant.buckets(question)[("srv-0",)].values.tolist()
            store.write([late_in(1)])
            assert instant.buckets(question, now)[("srv-0",)].values.tolist() == before
            assert [one.last_seen for one in instant.subjects("host_cpu", ("asset",), {}, now)]
        store.keep()
        after = [before[0] + 1, *before[1:]]
        for table in (None, *KEPT_TABLES):
            if table:
                store._open().connection.run(f"DELETE FROM {table}")
            assert store.buckets(question)[("srv-0",)].values.tolist() == after


# -- kept buckets when the process is killed

KEEPER = """
import sys
sys.path.insert(0, {folder!r})
from test_duckdb import *
import itertools
with Store(Config(path={path!r}), CATALOGUE) as store:
    for hour in itertools.count():
        store.write([hourly(hour), late_in(hour)])
        store.buckets(counts(hour), START + (hour + 2) * HOUR_MS)
        store.keep()
        print(hour, flush=True)
"""


def counts(hours: int) -> Question:
    """How many points each asset has in each hour."""
    end = START + hours * HOUR_MS
    return Question("host_cpu", "busy_ratio", (), ("asset",), START, end, HOUR_MS, Take("count"), Take("sum"))


def late_in(hour: int) -> AppliedBatch:
    """A batch, received in `hour`, with a point of three hours ago."""
    moment = START + hour * HOUR_MS
    late = Point("host_cpu", {"asset": "srv-0"}, {"busy_ratio": 0.5}, max(START, moment - 3 * HOUR_MS) + 30_000 + hour)
    return AppliedBatch("main", "srv", "b2", hour, f"b2/{hour}", moment, moment, [late], 0, ())


@pytest.mark.parametrize("seed", range(3))
def test_kept_buckets_are_true_after_kill_9(tmp_path: Path, seed: int) -> None:
    path, chance = tmp_path / "store.duckdb", random.Random(seed)
    code = KEEPER.format(folder=str(Path(__file__).parent), path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        hours = [int(worker.stdout.readline()) for _ in range(chance.randint(5, 40))]
        threading.Event().wait(chance.random() * 0.02)
        worker.send_signal(signal.SIGKILL)
    question = counts(hours[-1])
    with Store(Config(path=str(path)), CATALOGUE) as store:
        connection = store._open().connection
        assert sum(connection.rows(f"SELECT count(*) FROM {table}")[0][0] for table in KEPT_TABLES) > 3
        warm = {subject: one.values.tolist() for subject, one in store.buckets(question).items()}
        for table in KEPT_TABLES:
            connection.run(f"DELETE FROM {table}")
        assert {subject: one.values.tolist() for subject, one in store.buckets(question).items()} == warm
