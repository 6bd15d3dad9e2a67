"""When the clock of a machine is trusted, so that old pictures and old records may be deleted."""

from __future__ import annotations

from streams.clock_trust import LONGEST_PAUSE_S, SETTLING_S, ClockTrust

_START_S = 1_800_000_000.0
_YEARS_S = 73 * 365 * 86400.0


class Clocks:
    """A wall clock that can be set, and a steady clock that cannot."""

    def __init__(self) -> None:
        self.steady_s = 100.0
        self.ahead_s = _START_S

    def wall(self) -> float:
        return self.steady_s + self.ahead_s

    def steady(self) -> float:
        return self.steady_s


def test_a_clock_is_trusted_two_hours_after_the_start() -> None:
    clocks = Clocks()
    trust = ClockTrust("Wait for NTP.", clocks.wall, clocks.steady)
    assert "has just started" in trust.find_doubt(None)
    clocks.steady_s += SETTLING_S - 1
    assert trust.find_doubt(clocks.wall() - 60)
    clocks.steady_s += 1
    assert trust.find_doubt(clocks.wall() - 60) == ""
    assert trust.find_doubt(None) == ""


def test_a_clock_that_was_set_by_more_than_an_hour_is_not_trusted_for_two_hours() -> None:
    clocks = Clocks()
    trust = ClockTrust("Wait for NTP.", clocks.wall, clocks.steady)
    clocks.steady_s += SETTLING_S
    clocks.ahead_s += 3599
    assert trust.find_doubt(clocks.wall()) == "", "daylight saving or NTP"
    for step_s in (3601, -7200):
        clocks.ahead_s += step_s
        assert "was set by" in trust.find_doubt(clocks.wall())
        clocks.steady_s += SETTLING_S - 1
        assert trust.find_doubt(clocks.wall())
        clocks.steady_s += 1
        assert trust.find_doubt(clocks.wall()) == ""


def test_a_clock_is_not_trusted_if_it_is_far_ahead_of_the_last_time_at_which_it_was_right() -> None:
    clocks = Clocks()
    right_s = clocks.wall()
    clocks.ahead_s += _YEARS_S
    trust = ClockTrust("Wait for NTP.", clocks.wall, clocks.steady)
    clocks.steady_s += 10 * SETTLING_S
    assert "26646 days after 2027-01-15" in trust.find_doubt(right_s)
    assert trust.find_doubt(clocks.wall() - LONGEST_PAUSE_S + 1) == ""
    assert trust.find_doubt(clocks.wall() + 10) == "", "the clock was ahead, and is right now"
