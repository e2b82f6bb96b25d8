"""The runner: schedule, deadline, back-off and the points about them; time is given, or real and tiny."""

import asyncio
import functools
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import ClassVar

import pytest
from servers import until_async

from agent.catalogue import load
from agent.errors import NoData, SourceError, SpoolError
from agent.points import Point
from agent.rounds import Clocks, Gatherer, Outcome, Schedule, Watch, beats_to_wait
from agent.run import Runner, Waiting, gather_once
from agent.sources import Incomplete, Reading, SourceConfig, load_source
from agent.sources._hours import ProbeConfig, is_within
from agent.spool import SpoolState
from agent.workers import Workers

START = 1_760_000_000.0


class FakeTime:
    """A clock that moves only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def clocks(self) -> Clocks:
        return Clocks(wall=lambda: START + self.now - 1000.0, monotonic=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._waiting, (self.now + seconds, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        await _let_others_run()
        while self._waiting and self._waiting[0][0] <= end:
            due, _, future = heapq.heappop(self._waiting)
            self.now = max(self.now, due)
            if not future.done():
                future.set_result(None)
            await _let_others_run()
        self.now = end
        await _let_others_run()


async def _let_others_run() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


class Scripted:
    """A source that does what a test says, and remembers what the runner did to it."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, act: Callable[[int], Iterable[Reading]], said: list[str] | None = None) -> None:
        self._act = act
        self.said = said if said is not None else []
        self.rounds = 0

    async def open(self) -> None:
        self.said.append("open")

    async def collect(self) -> Iterable[Reading]:
        self.rounds += 1
        self.said.append("collect")
        return self._act(self.rounds)

    async def close(self) -> None:
        self.said.append("close")


class Plain(Scripted):
    """The same with a plain `collect`, which runs in a thread."""

    def collect(self) -> Iterable[Reading]:
        self.rounds += 1
        return self._act(self.rounds)


class WithRates(Plain):
    """The same, in need of two rounds."""

    has_rates: ClassVar[bool] = True


def cpu(busy: float = 0.5) -> list[Reading]:
    return [Reading("host_cpu", {"busy_ratio": busy})]


def watch(source: Scripted, interval: float = 15.0, deadline: float = 10.0, name: str = "host_cpu") -> Watch:
    return Watch(name, SourceConfig(interval_seconds=interval, deadline_seconds=deadline), lambda: source)


class Kept(list[Point]):
    """A sink that keeps the points, and how many came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def take(self, points: list[Point]) -> None:
        self.sizes.append(len(points))
        self.extend(points)

    def named(self, name: str) -> list[Point]:
        return [point for point in self if point.name == name]

    def rounds_of(self, source: str) -> list[Point]:
        return [point for point in self.named("source_round") if point.tags["source"] == source]


async def run_for(
    seconds: float,
    watches: list[Watch],
    time: FakeTime,
    *,
    sink: Callable[[list[Point]], Awaitable[None] | None] | None = None,
    spool_state: Callable[[], SpoolState] | None = None,
) -> Kept:
    """What a runner gave in so many seconds of the fake clock, before it was ended."""
    kept = Kept()
    runner = Runner(watches, asset="srv-1", sink=sink or kept.take, clocks=time.clocks(), spool_state=spool_state)
    task = asyncio.create_task(runner.run())
    await time.advance(seconds)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled(), task.exception()
    return kept


async def test_round_becomes_points_with_asset_time_and_rounding() -> None:
    kept = await run_for(2, [watch(Scripted(lambda _: cpu(0.1)))], FakeTime())
    [point] = kept.named("host_cpu")
    assert point.tags == {"asset": "srv-1"}
    assert point.fields == {"busy_ratio": round(0.1 * 2**20) / 2**20}
    assert START * 1000 <= point.timestamp < (START + 1) * 1000


async def test_every_round_is_reported() -> None:
    kept = await run_for(2, [watch(Scripted(lambda _: cpu()))], FakeTime())
    [point] = kept.rounds_of("host_cpu")
    assert point.tags == {"asset": "srv-1", "source": "host_cpu", "target": "local"}
    assert point.fields == {
        "duration_seconds": 0.0,
        "is_success": 1.0,
        "interval_seconds": 15.0,
        "points_count": 1.0,
        "is_complete": 1.0,
        "lateness_seconds": 0.0,
    }


async def test_rounds_do_not_drift_when_a_round_takes_time() -> None:
    time = FakeTime()

    def slow(_: int) -> list[Reading]:
        time.now += 4.0
        return cpu()

    kept = await run_for(62, [watch(Scripted(slow))], time)
    stamps = [point.timestamp for point in kept.named("host_cpu")]
    assert [stamp - stamps[0] for stamp in stamps] == [0, 15000, 30000, 45000, 60000]


async def test_rounds_missed_are_left_out_and_lateness_is_told() -> None:
    time = FakeTime()

    def slow_once(number: int) -> list[Reading]:
        time.now += 40.0 if number == 1 else 0.0
        return cpu()

    kept = await run_for(47, [watch(Scripted(slow_once))], time)
    stamps = [point.timestamp for point in kept.named("host_cpu")]
    assert [stamp - stamps[0] for stamp in stamps] == [0, 45000]


async def test_targets_begin_within_a_second_but_not_at_once() -> None:
    names = ["switch-1", "switch-2", "switch-3", "switch-4", "switch-5"]
    kept = await run_for(3, [replace(watch(Scripted(lambda _: [])), target=name) for name in names], FakeTime())
    stamps = {point.tags["target"]: point.timestamp - START * 1000 for point in kept.named("source_round")}
    assert set(stamps) == set(names)
    assert len(set(stamps.values())) == 5
    assert all(0 <= stamp < 1000 for stamp in stamps.values())


async def test_what_is_read_of_the_machine_itself_goes_together() -> None:
    names = ["host_cpu", "host_memory", "host_disk"]
    kept = await run_for(3, [watch(Scripted(lambda _: []), name=name) for name in names], FakeTime())
    assert {point.timestamp for point in kept.named("source_round")} == {START * 1000}


async def test_failing_source_is_asked_less_and_less_and_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def act(number: int) -> list[Reading]:
        if number < 5:
            raise SourceError("the tap is dry")
        return cpu()

    said: list[str] = []
    kept = await run_for(150, [watch(Scripted(act, said))], FakeTime())
    rounds = kept.rounds_of("host_cpu")
    first = rounds[0].timestamp
    assert [(point.timestamp - first) // 1000 for point in rounds] == [0, 15, 45, 105]  # 1, 2, 4, then 8 beats
    assert [point.fields["is_success"] for point in rounds] == [0, 0, 0, 0]
    assert [point.fields["interval_seconds"] for point in rounds] == [15, 15, 15, 15]
    assert said.count("open") == 4
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "the tap is dry" in lines[0]


async def test_recovery_is_logged_once_with_the_count(caplog: pytest.LogCaptureFixture) -> None:
    def act(number: int) -> list[Reading]:
        if number < 3:
            raise SourceError("the tap is dry")
        return cpu()

    kept = await run_for(80, [watch(Scripted(act))], FakeTime())
    assert [point.fields["is_success"] for point in kept.rounds_of("host_cpu")] == [0, 0, 1, 1, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "2" in caplog.records[1].getMessage()


@pytest.mark.parametrize("kind", [Scripted, Plain])
async def test_what_a_failing_round_saw_is_kept(kind: type[Scripted]) -> None:
    def act(_: int) -> list[Reading]:
        raise Incomplete("the device fell silent", cpu(0.5))

    kept = await gather_once([watch(kind(act))])
    [(_, outcome)] = kept
    assert list(outcome.readings) == cpu(0.5) and not outcome.is_success and not outcome.is_bug


async def test_what_a_failing_round_saw_becomes_points_of_a_failed_round() -> None:
    def act(_: int) -> list[Reading]:
        raise Incomplete("the device fell silent", cpu(0.5))

    kept = await run_for(2, [watch(Scripted(act))], FakeTime())
    assert [point.fields for point in kept.named("host_cpu")] == [{"busy_ratio": 0.5}]
    [about] = kept.rounds_of("host_cpu")
    assert (about.fields["is_success"], about.fields["is_complete"], about.fields["points_count"]) == (0.0, 0.0, 1.0)


async def test_many_targets_are_spread_over_the_time_that_their_watch_gives() -> None:
    watches = [replace(watch(Scripted(lambda _: [])), target=f"switch-{n}", spread_seconds=15.0) for n in range(30)]
    kept = await run_for(15, watches, FakeTime())
    stamps = sorted(point.timestamp - START * 1000 for point in kept.named("source_round"))
    assert len(stamps) == 30 and stamps[0] < 3000 and stamps[-1] > 12000


async def test_no_data_is_success_and_looked_for_every_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def act(_: int) -> list[Reading]:
        raise NoData("no array here")

    kept = await run_for(1300, [watch(Scripted(act))], FakeTime())
    rounds = kept.rounds_of("host_cpu")
    assert [(point.timestamp - rounds[0].timestamp) // 1000 for point in rounds] == [0, 600, 1200]
    assert {(point.fields["is_success"], point.fields["points_count"]) for point in rounds} == {(1.0, 0.0)}
    assert rounds[0].fields["interval_seconds"] == 600.0
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "no array here" in lines[0]


async def test_bug_in_a_source_is_logged_with_traceback_and_a_new_source_starts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[Scripted] = []

    def act(_: int) -> list[Reading]:
        if len(made) == 1:
            raise ZeroDivisionError("ours")
        return cpu()

    def make() -> Scripted:
        made.append(Scripted(act))
        return made[-1]

    broken = Watch("host_cpu", SourceConfig(), make)
    healthy = watch(Scripted(lambda _: cpu()), name="host_memory")
    kept = await run_for(70, [broken, healthy], FakeTime())
    assert made[0].said == ["open", "collect", "close"]
    assert [point.fields["is_success"] for point in kept.rounds_of("host_cpu")] == [0, 1]  # a minute apart
    assert len(kept.rounds_of("host_memory")) == 5
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.exc_info[0] for record in errors if record.exc_info] == [ZeroDivisionError]


async def test_undeclared_readings_are_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    readings = [
        Reading("no_such_thing", {"x": 1.0}),
        Reading("host_cpu", {"busy_ratio": 0.5}, {"core": "1"}),
        Reading("host_cpu", {"busy_ratio": 0.5, "wishes_count": 3.0, "iowait_ratio": float("nan")}),
        Reading("filesystem", {"is_read_only": 3.5, "used_ratio": True}, {"mount": "/"}),
        Reading("host_cpu", {"busy_ratio": 0.25}, asset="Not An Id"),
    ]
    kept = await run_for(32, [watch(Scripted(lambda _: readings))], FakeTime())
    assert [point.fields for point in kept.named("host_cpu")] == [{"busy_ratio": 0.5}] * 3
    assert {point.fields["is_complete"] for point in kept.rounds_of("host_cpu")} == {0.0}
    signals = [record.getMessage().split(": ")[1].split(" ")[0] for record in caplog.records]
    assert sorted(signals) == sorted(
        ["no_such_thing", "host_cpu", "host_cpu.wishes_count", "host_cpu.iowait_ratio", "filesystem.used_ratio"]
    )


async def test_facts_are_sent_as_numbers_and_own_asset_and_time_are_kept() -> None:
    reading = Reading("filesystem", {"is_read_only": True}, {"mount": "/"}, asset="nas-1", timestamp=1_760_000_000_123)
    kept = await run_for(2, [watch(Scripted(lambda _: [reading]))], FakeTime())
    assert kept.named("filesystem") == [
        Point("filesystem", {"asset": "nas-1", "mount": "/"}, {"is_read_only": 1.0}, 1_760_000_000_123)
    ]


async def test_points_of_one_second_go_together() -> None:
    names = ["host_cpu", "host_memory", "host_disk"]
    kept = await run_for(14, [watch(Scripted(lambda _: cpu()), name=name) for name in names], FakeTime())
    assert len(kept.sizes) <= 2
    assert sum(kept.sizes) == 7  # three rounds of a point and a report each, and the agent's health


async def test_many_points_go_in_batches_of_five_hundred() -> None:
    readings = [Reading("filesystem", {"used_ratio": 0.5}, {"mount": f"/{n}"}) for n in range(1200)]
    kept = await run_for(3, [watch(Scripted(lambda _: readings))], FakeTime())
    assert max(kept.sizes) == 500
    assert len(kept.named("filesystem")) == 1200


async def test_last_points_are_handed_over_at_the_end() -> None:
    kept = await run_for(1, [watch(Scripted(lambda _: cpu()))], FakeTime())  # ended before the second was full
    assert len(kept.named("host_cpu")) == 1


async def test_sink_that_fails_is_told_once_and_tried_on(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    async def full(points: list[Point]) -> None:
        calls.append(len(points))
        if len(calls) < 3:
            raise SpoolError("the disk is full")

    await run_for(61, [watch(Scripted(lambda _: cpu()))], FakeTime(), sink=full)
    assert len(calls) == 5
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_agent_health_tells_the_spool_and_only_new_losses() -> None:
    time = FakeTime()
    dropped = itertools.chain([40, 40], itertools.repeat(47))

    def state() -> SpoolState:
        return SpoolState(3, 90, 8192, 12.5, 0, 0, 0, 0, 0, 0, 0, next(dropped))

    kept = Kept()
    runner = Runner([], asset="srv-1", sink=kept.take, clocks=time.clocks(), spool_state=state)
    task = asyncio.create_task(runner.run())

    async def has_another(count: int) -> bool:
        await time.advance(1.0)  # the state is asked in a thread, which no fake clock moves
        return len(kept) >= count

    for count in range(1, 5):
        await until_async(functools.partial(has_another, count))
    task.cancel()
    await asyncio.wait({task})
    assert [point.fields.get("dropped_points_count") for point in kept[:4]] == [None, None, 7.0, None]
    assert kept[0].fields["spool_batches_count"] == 3.0
    assert kept[0].fields["spool_bytes"] == 8192.0
    assert kept[0].fields["spool_oldest_age_seconds"] == 12.5
    assert float(kept[0].fields["resident_bytes"]) > 1_000_000
    assert not [name for name in kept[0].fields if name.startswith("ledger_")], "no account is known yet"


async def test_agent_health_tells_the_account_and_what_a_full_disk_cost() -> None:
    def state(made: int, dropped: int, unkept: int, closings: int = 0) -> SpoolState:
        began_at, newest_at = 1_790_000_000_123, 1_790_000_111_457
        counts = (made, made * 10, made - 5, made * 10 - 50, 1, 10, 2, dropped)
        return SpoolState(2, 20, 8192, 12.5, *counts, began_at, newest_at, newest_at - 1, closings, unkept)

    states = iter([state(10, 20, 0), state(11, 25, 3), state(1, 4, 3, closings=1)])
    waiting = Waiting(lambda: next(states))
    first, second, third = [await waiting.fields() for _ in range(3)]
    settled = load().settle("agent_health", first)
    whole = {name.removeprefix("ledger_"): settled[name] for name in settled if name.startswith("ledger_")}
    assert whole["made_batches_count"] == 10 and whole["waiting_points_count"] == 20
    assert [round(float(whole[f"{name}_seconds"]) * 1000) for name in ("began", "newest", "oldest")] == [
        1_790_000_000_123,
        1_790_000_111_457,
        1_790_000_111_456,
    ]
    assert (second["dropped_points_count"], second["unkept_points_count"]) == (5, 3)
    assert third["dropped_points_count"] == 4 and "unkept_points_count" not in third


async def test_plain_source_runs_in_a_daemon_thread() -> None:
    seen: list[threading.Thread] = []

    def act(_: int) -> list[Reading]:
        seen.append(threading.current_thread())
        return cpu()

    outcome = await Gatherer(watch(Plain(act)), Clocks(), Workers()).gather()
    assert list(outcome.readings) == cpu()
    assert seen[0] is not threading.main_thread() and seen[0].daemon


async def test_coroutine_that_overruns_is_cancelled_and_fails_the_round() -> None:
    class Endless(Scripted):
        async def collect(self) -> Iterable[Reading]:
            await asyncio.Event().wait()
            return []

    gatherer = Gatherer(watch(Endless(lambda _: []), deadline=0.01), Clocks(), Workers())
    outcome = await gatherer.gather()
    assert isinstance(outcome.error, SourceError)
    assert not gatherer.is_busy


async def test_thread_that_overruns_fails_rounds_until_it_returned() -> None:
    release = threading.Event()
    source = Plain(lambda number: cpu() if number > 1 or release.wait(120) else [])
    gatherer = Gatherer(watch(source, deadline=2.0), Clocks(), Workers())
    first, second = await gatherer.gather(), await gatherer.gather()
    assert not first.is_success and not second.is_success
    assert source.rounds == 1, "no second round may start beside the first"
    release.set()
    await until_async(lambda: not gatherer.is_busy)
    third = await gatherer.gather()
    assert third.is_success and source.rounds == 2


async def test_thread_that_hangs_delays_no_other_source() -> None:
    release = threading.Event()
    hanging = watch(Plain(lambda _: cpu() if release.wait(120) else []), interval=0.05, deadline=0.05)
    healthy = watch(Plain(lambda _: cpu()), interval=1.0, name="host_memory")
    kept = Kept()
    task = asyncio.create_task(Runner([hanging, healthy], asset="srv-1", sink=kept.take, spread_seconds=0).run())
    await until_async(lambda: len(kept.rounds_of("host_memory")) > 1)
    task.cancel()
    await asyncio.wait({task})
    release.set()
    assert {point.fields["is_success"] for point in kept.rounds_of("host_cpu")} == {0.0}
    assert {point.fields["is_success"] for point in kept.rounds_of("host_memory")} == {1.0}


async def test_sources_are_closed_when_the_runner_ends() -> None:
    said: list[str] = []
    await run_for(20, [watch(Scripted(lambda _: cpu(), said))], FakeTime())
    assert said == ["open", "collect", "collect", "close"]


async def test_gather_once_asks_twice_where_there_are_rates() -> None:
    single, double = Plain(lambda number: cpu(number / 10)), WithRates(lambda number: cpu(number / 10))
    gathered = await gather_once([watch(single), watch(double, name="host_disk")], seconds_between=0.001)
    assert [item.watch.source for item in gathered] == ["host_cpu", "host_disk"]
    assert [list(item.outcome.readings) for item in gathered] == [cpu(0.1), cpu(0.2)]
    assert single.said == double.said == ["open", "close"]


async def test_gather_once_gives_errors_beside_readings() -> None:
    def act(_: int) -> list[Reading]:
        raise SourceError("the tap is dry")

    failing, healthy = await gather_once([watch(Plain(act)), watch(Plain(lambda _: cpu()))])
    assert str(failing.outcome.error) == "the tap is dry"
    assert list(healthy.outcome.readings) == cpu()


@pytest.mark.parametrize(
    ("now", "beats", "due"), [(100.0, 1, 115.0), (100.0, 4, 160.0), (131.0, 1, 145.0), (115.0, 1, 130.0)]
)
def test_schedule_stays_on_its_beats(now: float, beats: int, due: float) -> None:
    schedule = Schedule(100.0, 15.0)
    schedule.advance(now, beats)
    assert schedule.due_seconds == due


@pytest.mark.parametrize(
    ("error", "failures", "interval", "beats"),
    [
        (None, 0, 15, 1),
        (SourceError("x"), 1, 15, 1),
        (SourceError("x"), 3, 15, 4),
        (SourceError("x"), 50, 15, 20),
        (SourceError("x"), 50, 3600, 1),
        (NoData("x"), 1, 60, 10),
        (NoData("x"), 1, 3600, 1),
        (ValueError("x"), 1, 15, 4),
        (Incomplete("x", []), 3, 15, 4),
        (Incomplete("x", [Reading("poll", {})]), 3, 15, 4),
        (Incomplete("x", [], is_partly=True), 3, 15, 4),
        (Incomplete("x", [Reading("poll", {})], is_partly=True), 50, 15, 1),
    ],
)
def test_back_off_counts_in_beats(error: Exception | None, failures: int, interval: float, beats: int) -> None:
    assert beats_to_wait(Outcome((), error, 0.0, 0.0), failures, interval) == beats


def clock_time(seconds: float) -> str:
    return time.strftime("%H:%M", time.localtime(START + seconds))


async def test_probe_keeps_still_outside_of_its_hours_and_says_so() -> None:
    """From the 40th to the 100th minute of the run it may probe, by the clock that the runner was given."""
    config = ProbeConfig(
        interval_seconds=600, hours=(f"{clock_time(2400)}-{clock_time(6000)}",)
    )  # START is 20 s past a minute
    source = Scripted(lambda _: cpu())
    kept = await run_for(9000, [Watch("host_cpu", config, lambda: source)], FakeTime())
    rounds = kept.rounds_of("host_cpu")
    assert [point.fields["is_off"] for point in rounds] == [1.0] * 4 + [0.0] * 6 + [1.0] * 6
    assert all("is_success" not in point.fields for point in rounds if point.fields["is_off"])
    assert {point.fields["interval_seconds"] for point in rounds} == {600.0}
    assert source.rounds == len(kept.named("host_cpu")) == 6


async def test_probe_without_hours_is_always_on_and_says_nothing_of_them() -> None:
    source = Scripted(lambda _: cpu())
    kept = await run_for(100, [Watch("host_cpu", ProbeConfig(interval_seconds=60), lambda: source)], FakeTime())
    assert source.rounds == 2 and all("is_off" not in point.fields for point in kept.rounds_of("host_cpu"))


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        (("01:00-05:00",), (60, 299), (59, 300)),
        (("22:30-00:15",), (1350, 1439, 0, 14), (15, 1349)),
        (("12:00-13:00", "23:00-24:00"), (720, 1439), (719, 780, 0)),
        ((), (0, 1439), ()),
    ],
)
def test_hours_of_a_probe(hours: tuple[str, ...], inside: Iterable[int], outside: Iterable[int]) -> None:
    assert all(is_within(hours, minute) for minute in inside)
    assert not any(is_within(hours, minute) for minute in outside)


@pytest.mark.parametrize("text", ["1-5", "01:00-01:00", "24:00-01:00", "01:60-02:00", "25:00-26:00", "01:00-24:30"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="01:00-05:00"):
        ProbeConfig(hours=(text,))


def test_every_probe_takes_hours() -> None:
    for name in ("isolation_probe", "exposure_scan", "path_probe"):
        assert issubclass(load_source(name).Config, ProbeConfig)
