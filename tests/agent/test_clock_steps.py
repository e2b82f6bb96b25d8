"""Batches remember which clock stamped them, though it was set meanwhile."""

import time

from agent.clock_steps import MOST_STEPS, ClockSteps, passed_seconds


class Clocks:
    """A wall clock that is set, and one that nobody sets."""

    def __init__(self) -> None:
        self.passed, self.ahead = 100.0, 1_790_000_000.0
        self.steps = ClockSteps(lambda: self.passed + self.ahead, lambda: self.passed)

    def now(self, made_at: int) -> float:
        return self.steps.now(made_at)


def test_batch_of_an_earlier_process_goes_by_the_clock_as_it_is() -> None:
    clocks = Clocks()
    assert clocks.now(5) == 1_790_000_100.0
    clocks.steps.note(10)
    clocks.ahead += 3600
    assert clocks.now(5) == 1_790_003_700.0


def test_batch_goes_on_by_the_clock_that_stamped_it() -> None:
    clocks = Clocks()
    clocks.steps.note(10)
    clocks.ahead += 3600
    clocks.steps.note(11)
    clocks.ahead -= 7200
    clocks.steps.note(12)
    clocks.passed += 50
    assert [clocks.now(made_at) for made_at in (10, 11, 12, 13)] == [
        1_790_000_150.0,
        1_790_003_750.0,
        1_789_996_550.0,
        1_789_996_550.0,
    ]


def test_clock_that_is_slewed_is_followed_within_a_second() -> None:
    clocks = Clocks()
    for made_at in range(2000):
        clocks.ahead += 0.01
        clocks.steps.note(made_at)
        assert abs(clocks.now(made_at) - clocks.passed - clocks.ahead) <= 1.0


def test_clock_that_is_set_for_ever_is_not_remembered_for_ever() -> None:
    clocks = Clocks()
    for made_at in range(3 * MOST_STEPS):
        clocks.ahead += 10
        clocks.steps.note(made_at)
    assert clocks.now(0) == clocks.now(3 * MOST_STEPS) == clocks.passed + clocks.ahead
    assert clocks.now(2 * MOST_STEPS) < clocks.passed + clocks.ahead


def test_time_that_passes_is_not_the_wall_clock_s() -> None:
    assert 0 < time.monotonic() <= passed_seconds() < time.time()
