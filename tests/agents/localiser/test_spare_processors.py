"""The localiser makes heat maps in the processor time that other programs leave."""

from __future__ import annotations

import pytest

from agents.localiser.spare_processors import ProcessorTimes, SpareProcessors, count_free_processors, read_processor_times


def make_times(at_s: float, idle_s: float, own_s: float) -> ProcessorTimes:
    return ProcessorTimes(at_s, 2 * at_s, idle_s, own_s)


def test_idle_processors_and_the_localisers_own_time_are_free() -> None:
    assert count_free_processors(make_times(10, 5, 1), make_times(12, 6, 2)) == pytest.approx(1.0)
    assert count_free_processors(make_times(10, 5, 1), make_times(12, 5, 1)) == 0


@pytest.mark.parametrize(("idle_s", "own_s", "expected"), [(0.0, 0.0, False), (0.1, 0.1, False), (0.5, 0.0, True), (0.0, 0.9, True)])
def test_processors_are_free_if_other_programs_leave_half_of_one(idle_s: float, own_s: float, expected: bool) -> None:
    readings = iter((make_times(10, 5, 1), make_times(11, 5 + idle_s, 1 + own_s)))
    assert SpareProcessors(lambda: next(readings)).are_free() is expected


def test_the_answer_is_kept_until_a_new_one_can_be_measured() -> None:
    readings = iter((make_times(10, 0, 0), make_times(11, 0, 0), make_times(11.1, 0.1, 0), make_times(11.4, 0.8, 0)))
    spare = SpareProcessors(lambda: next(readings))
    assert [spare.are_free() for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("are_free", [True, False])
def test_after_a_long_pause_the_use_of_the_processors_is_measured_anew(are_free: bool) -> None:
    """On a machine without a free processor, a heat map takes seconds. So every heat map begins after a long pause."""
    idle_s = 0.0
    readings = [make_times(10, 0, 0)]
    for first_s in (11.0, 20.0, 30.0):
        readings += [make_times(at_s, idle_s := idle_s + (at_s - readings[-1].at_s) * are_free, 0) for at_s in (first_s, first_s + 0.3)]
    times = iter(readings)
    spare = SpareProcessors(lambda: next(times))
    assert [spare.are_free() for _ in range(6)] == [are_free, are_free, False, are_free, False, are_free]


def test_the_times_of_the_machine_grow_with_the_clock() -> None:
    before = read_processor_times()
    sum(range(200_000))
    after = read_processor_times()
    assert after.at_s > before.at_s
    assert after.own_s > before.own_s
    assert after.total_s >= after.idle_s >= before.idle_s
