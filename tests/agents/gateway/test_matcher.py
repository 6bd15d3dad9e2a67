"""The matcher finds the part of each picture by their times alone."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.gateway.matcher import MatchDecision, Matcher
from streams.identity import PartId

WINDOW_S = 1.0
Decisions = list[MatchDecision[str]]


def part(number: int, run: int = 7) -> PartId:
    return PartId("line-1", run, number)


def make_matcher(window_s: float = WINDOW_S) -> Matcher[str]:
    return Matcher(window_s, part_timeout_s=30.0)


def test_a_picture_is_matched_whether_it_arrives_before_or_after_its_part() -> None:
    matcher = make_matcher()
    matcher.add_part(part(1), 8.0, 8.0)
    matcher.add_part(part(2), 10.0, 10.05)
    assert matcher.add_picture("late", 10.02, 10.5) == [MatchDecision("late", part(2))]
    other = make_matcher()
    other.add_part(part(1), 8.0, 8.0)
    assert other.add_picture("early", 10.02, 10.03) == []
    assert other.add_part(part(2), 10.0, 10.1) == []
    assert other.decide_due(10.3) == [MatchDecision("early", part(2))]


def test_waiting_pictures_are_limited_in_bytes_and_the_oldest_get_no_part() -> None:
    matcher: Matcher[str] = Matcher(WINDOW_S, part_timeout_s=30.0, max_bytes=25)
    assert matcher.add_picture("a", 1.0, 1.0, 10) == matcher.add_picture("b", 1.1, 1.1, 10) == []
    assert matcher.add_picture("c", 1.2, 1.2, 10) == [MatchDecision("a", None)]
    assert matcher.pending_pictures == 2


def test_a_picture_waits_until_the_silence_behind_its_part_is_four_times_its_distance() -> None:
    """The next part could follow closely, and then the picture would lie beyond a quarter of the spacing."""
    matcher = make_matcher()
    matcher.add_part(part(1), 8.0, 8.0)
    matcher.add_part(part(2), 10.0, 10.0)
    assert matcher.add_picture("a", 10.1, 10.15) == []
    assert matcher.decide_due(10.45) == [], "0.35 s of silence, of which reports may be late by 0.1 s"
    assert matcher.decide_due(10.51) == [MatchDecision("a", part(2))]


@pytest.mark.parametrize(("offset_s", "is_matched"), [(0.24, True), (0.26, False), (-0.24, True), (-0.26, False), (0.5, False)])
def test_a_picture_is_matched_up_to_a_quarter_of_the_spacing(offset_s: float, is_matched: bool) -> None:
    """The spacing at part 3 is the smaller gap, 1 s, although the other one is 3 s."""
    for times in ((0.0, 2.0, 3.0, 6.0, 9.0), (0.0, 2.0, 5.0, 6.0, 9.0)):
        matcher = make_matcher()
        for number, time_s in enumerate(times, 1):
            matcher.add_part(part(number), 100 + time_s, 100 + time_s)
        expected = part(3) if is_matched else None
        assert matcher.add_picture("a", 100 + times[2] + offset_s, 110.0) == [MatchDecision("a", expected)]


def test_a_picture_between_known_parts_is_unmatched_at_once() -> None:
    matcher = make_matcher()
    for number in range(1, 4):
        matcher.add_part(part(number), 10.0 + number, 10.0 + number)
    (decision,) = matcher.add_picture("stray", 11.5, 13.1)
    assert (decision.picture, decision.part, decision.spacing_s) == ("stray", None, 1.0)
    assert abs(decision.offset_s or 0) == 0.5


def test_a_picture_whose_report_is_missing_waits_for_the_report_and_never_gets_a_neighbour() -> None:
    """The gaps are so long that the picture of part 3 lies within a quarter of the gap before part 2 and behind part 4."""
    matcher = make_matcher()
    for number, time_s in ((1, 100.0), (2, 120.0), (4, 122.0), (5, 150.0)):
        matcher.add_part(part(number), time_s, time_s)
    assert matcher.add_picture("of 3", 120.9, 150.2) == []
    assert matcher.add_part(part(3), 120.8, 150.3) == [MatchDecision("of 3", part(3))]
    lost = make_matcher()
    for number, time_s in ((1, 100.0), (2, 101.0), (3, 120.0), (5, 122.0), (6, 150.0)):
        lost.add_part(part(number), time_s, time_s)
    assert lost.add_picture("of 4", 120.9, 150.2) == []
    assert lost.decide_due(151.3) == [MatchDecision("of 4", None)], "the smallest recent gap stands in for the unknown ones"


def test_the_first_part_after_a_restart_waits_because_the_part_before_it_is_unknown() -> None:
    matcher = make_matcher()
    assert matcher.add_part(part(41), 100.0, 100.0) == []
    assert matcher.add_picture("of 41", 100.02, 100.5) == []
    assert matcher.add_part(part(42), 101.0, 101.0) == []
    assert matcher.decide_due(101.6) == [MatchDecision("of 41", part(41))]
    first_of_run = make_matcher()
    first_of_run.add_part(part(1), 100.0, 100.0)
    assert first_of_run.add_picture("of 1", 100.02, 100.5) == [MatchDecision("of 1", part(1))], "no part was counted before part 1"


def test_a_new_run_of_the_board_begins_with_part_1() -> None:
    matcher = make_matcher()
    matcher.add_part(part(1), 100.0, 100.0)
    matcher.add_part(part(2), 101.0, 101.0)
    matcher.add_part(part(1, run=8), 109.0, 109.0)
    assert matcher.add_picture("a", 109.2, 112.0) == [MatchDecision("a", part(1, run=8))]


def test_a_casting_that_a_reset_board_never_reported_does_not_give_its_picture_to_the_part_before_it() -> None:
    matcher = make_matcher()
    matcher.add_part(part(4), 105.3, 105.4)
    matcher.add_part(part(1, run=8), 110.1, 110.2)
    # Part 5 of run 7 passed at 105.9, and its report was lost in the reset.
    assert matcher.add_picture("of part 5", 105.9, 110.3) == []
    assert matcher.decide_due(112.0) == [MatchDecision("of part 5", None)]
    assert matcher.add_picture("of a later part 5", 109.5, 112.0) == []
    assert matcher.decide_due(114.0) == [MatchDecision("of a later part 5", None)]


def test_a_picture_without_a_part_is_unmatched_after_its_timeout() -> None:
    matcher = make_matcher()
    matcher.add_picture("a", 10.0, 10.0)
    assert matcher.decide_due(10.9) == []
    assert matcher.decide_due(11.0) == [MatchDecision("a", None)]


def test_a_part_without_a_picture_is_unmatched_after_its_timeout() -> None:
    matcher = make_matcher()
    matcher.add_part(part(1), 10.0, 10.0)
    assert matcher.decide_due(39.9) == []
    assert matcher.decide_due(40.0) == [MatchDecision(None, part(1))]


def test_a_picture_that_was_held_up_for_minutes_still_finds_its_part_and_only_once() -> None:
    matcher = make_matcher()
    decisions: Decisions = []
    for number in range(1, 101):
        decisions += matcher.add_part(part(number), 100.0 + number, 100.0 + number)
    decisions += matcher.decide_due(240.0)
    assert decisions == [MatchDecision(None, part(number)) for number in range(1, 101)]
    assert matcher.add_picture("late", 150.02, 250.0) == [MatchDecision("late", part(50))]
    assert matcher.add_picture("again", 150.02, 250.0) == []
    assert matcher.decide_due(251.0) == [MatchDecision("again", None)]
    assert matcher.decide_due(300.0) == [], "no part is missed twice"


class RegularBelt:
    """A belt with a casting every `spacing_s`. The clock of the board's PC is `board_ahead_s` ahead of the gateway's clock."""

    def __init__(self, spacing_s: float = 1.0, board_ahead_s: float = 0.0) -> None:
        self._matcher: Matcher[int] = Matcher(WINDOW_S, part_timeout_s=30.0)
        self._spacing_s = spacing_s
        self._board_ahead_s = board_ahead_s
        self._parts: dict[int, int] = {}
        self._arriving: list[tuple[float, int, float]] = []
        self._now_s = 0.0

    def run(self, numbers: range, delay_s: float = 0.08, camera_error_s: float = 0.0, unreported: frozenset[int] = frozenset()) -> None:
        for number in numbers:
            time_s = number * self._spacing_s
            self._run_until(time_s)
            if number not in unreported:
                self._note(self._matcher.add_part(part(number), time_s + self._board_ahead_s, time_s))
            self._arriving.append((time_s + delay_s, number, time_s + self._board_ahead_s + camera_error_s))

    def find_parts(self) -> dict[int, int]:
        """Returns which part each picture got, by the number of the part that the picture shows."""
        self._run_until(self._now_s + 15)
        return self._parts

    def _run_until(self, end_s: float) -> None:
        while self._now_s < end_s:
            self._now_s += 0.05
            while self._arriving and self._arriving[0][0] <= self._now_s:
                arrived_s, number, time_s = self._arriving.pop(0)
                self._note(self._matcher.add_picture(number, time_s, arrived_s))
            self._note(self._matcher.decide_due(self._now_s))

    def _note(self, decisions: list[MatchDecision[int]]) -> None:
        self._parts |= {found.picture: found.part.part for found in decisions if found.picture is not None and found.part is not None}


@pytest.mark.parametrize("spacing_s", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("spacings", [-3, -2, -1, 1, 2, 3])
def test_a_cameras_clock_that_was_set_by_whole_spacings_gives_no_picture_the_part_of_another_casting(
    spacing_s: float, spacings: int
) -> None:
    belt = RegularBelt(spacing_s)
    belt.run(range(1, 40))
    belt.run(range(40, 80), camera_error_s=spacings * spacing_s)
    found = belt.find_parts()
    assert {number: got for number, got in found.items() if number != got} == {}
    assert found.keys() == set(range(1, 40))


@pytest.mark.parametrize("board_ahead_s", [-3.0, 3.0])
def test_the_clocks_of_gateway_and_board_may_differ(board_ahead_s: float) -> None:
    """The sorter can run on another machine. The latency includes the difference of the clocks."""
    belt = RegularBelt(board_ahead_s=board_ahead_s)
    belt.run(range(1, 40))
    assert belt.find_parts() == {number: number for number in range(1, 40)}


def test_pictures_that_come_later_than_before_keep_their_parts_although_one_picture_has_none() -> None:
    belt = RegularBelt()
    belt.run(range(1, 40))
    belt.run(range(40, 200), delay_s=0.5, unreported=frozenset({60}))
    assert belt.find_parts() == {number: number for number in range(1, 200) if number != 60}


def test_a_lost_picture_does_not_shift_the_pictures_of_the_following_parts() -> None:
    """On a dense belt each picture lies close to its own part, and only the part whose picture was lost stays without one."""
    matcher = make_matcher()
    decisions: Decisions = []
    for number in range(1, 21):
        time_s = 100 + number * 0.1
        decisions += matcher.add_part(part(number), time_s, time_s + 0.005)
        if number != 7:
            decisions += matcher.add_picture(f"picture {number}", time_s + 0.01, time_s + 0.02)
    decisions += matcher.decide_due(103.5)
    expected = {f"picture {number}": part(number) for number in range(1, 21) if number != 7}
    assert len(decisions) == len(expected)
    assert {decision.picture: decision.part for decision in decisions} == expected


def test_a_second_picture_of_one_part_is_unmatched() -> None:
    matcher = make_matcher()
    matcher.add_part(part(1), 8.0, 8.0)
    matcher.add_part(part(2), 10.0, 10.0)
    assert matcher.add_picture("a", 10.0, 10.2) == [MatchDecision("a", part(2))]
    assert matcher.add_picture("again", 10.0, 10.2) == []
    assert matcher.decide_due(11.3) == [MatchDecision("again", None)]


def test_pictures_that_wait_are_unmatched_when_the_latency_changes_or_the_process_ends() -> None:
    matcher = make_matcher()
    matcher.add_part(part(1), 10.0, 10.0)
    matcher.add_picture("a", 12.0, 12.0)
    assert matcher.release_pictures() == [MatchDecision("a", None)]
    matcher.add_picture("b", 12.0, 12.0)
    assert matcher.decide_due(12.0, is_ending=True) == [MatchDecision("b", None), MatchDecision(None, part(1))]


def test_the_number_of_waiting_pictures_is_bounded() -> None:
    matcher: Matcher[int] = Matcher(WINDOW_S, 10.0, max_pictures=5)
    decisions = [decision for number in range(9) for decision in matcher.add_picture(number, 1000.0 * number, 0.0)]
    assert decisions == [MatchDecision(number, None) for number in range(4)]
    assert matcher.pending_pictures == 5


@st.composite
def belts(draw: st.DrawFn) -> tuple[list[float], list[tuple[float, str, int]], set[int], set[int]]:
    """Generates a belt: the times of its parts, the arrivals (time, "part" or "picture", number) in order, and what is lost.

    The last two values are the numbers of the lost pictures and of the lost reports. The gaps between the parts vary by up to the factor 3,
    and the delays of the reports by up to 0.1 s. Lost are the first reports, because the gateway starts later than the board, and some of
    those behind the next two, from which the matcher learns the first gap.
    """
    spacing_s = draw(st.floats(0.05, 5.0))
    count = draw(st.integers(1, 40))
    times = [1000.0]
    for _ in range(count - 1):
        times.append(times[-1] + spacing_s * draw(st.floats(1.0, 3.0)))
    lost_pictures = draw(st.sets(st.integers(0, count - 1), max_size=count // 3))
    first_reported = draw(st.integers(0, count // 4))
    later_lost = draw(st.sets(st.integers(first_reported + 2, count + 1), max_size=count // 3))
    lost_reports = {*range(first_reported), *(number for number in later_lost if number < count)}
    report_delay_s = draw(st.floats(0, 0.4))
    arrivals = []
    reported_s = 0.0  # The reports of one board arrive in order.
    for number, at_s in enumerate(times):
        if number not in lost_reports:
            reported_s = max(reported_s, at_s + report_delay_s + draw(st.floats(0, 0.1, exclude_max=True)))
            arrivals.append((reported_s, "part", number))
        if number not in lost_pictures:
            arrivals.append((at_s + draw(st.floats(0, 0.4)), "picture", number))
    return times, sorted(arrivals), lost_pictures, lost_reports


@given(belts(), st.floats(-0.24, 0.24))
@settings(max_examples=150)
def test_each_picture_and_part_is_decided_once_and_none_goes_to_another_part(
    belt: tuple[list[float], list[tuple[float, str, int]], set[int], set[int]], error_share: float
) -> None:
    times, arrivals, lost_pictures, lost_reports = belt
    spacing_s = min((later - earlier for earlier, later in pairwise(times)), default=WINDOW_S)
    error_s = min(spacing_s, WINDOW_S) * error_share
    matcher: Matcher[int] = Matcher(WINDOW_S, 10.0)
    decisions: list[MatchDecision[int]] = []
    for arrived_s, kind, number in arrivals:
        if kind == "part":
            decisions += matcher.add_part(part(number + 1), times[number], arrived_s)
        else:
            shift_s = error_s if number % 2 else -error_s
            decisions += matcher.add_picture(number, times[number] + shift_s, arrived_s)
    decisions += matcher.decide_due(arrivals[-1][0] + 2 * WINDOW_S if arrivals else 0.0)
    decisions += matcher.decide_due(arrivals[-1][0] + 2 * WINDOW_S if arrivals else 0.0, is_ending=True)
    pictures = [decision.picture for decision in decisions if decision.picture is not None]
    parts = [decision.part.part - 1 for decision in decisions if decision.part is not None]
    assert sorted(pictures) == sorted(set(range(len(times))) - lost_pictures)
    assert sorted(parts) == sorted(set(range(len(times))) - lost_reports)
    for decision in decisions:
        if decision.picture is not None and decision.part is not None:
            assert decision.part.part - 1 == decision.picture
    if not lost_pictures | lost_reports and len(times) > 1:
        assert all(decision.part is not None for decision in decisions), "nothing was lost, so that every picture has its part"


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30), st.floats(0, 3)), max_size=60))
@settings(max_examples=150)
def test_all_pictures_are_decided_once_and_no_part_is_missed_or_matched_twice_or_outside_the_window(
    events: list[tuple[bool, float, float]],
) -> None:
    matcher: Matcher[int] = Matcher(WINDOW_S, part_timeout_s=10.0)
    now_s, decisions = 0.0, []
    times: dict[int, float] = {}
    for number, (is_part, at_s, later_s) in enumerate(events, 1):
        now_s += later_s
        times[number] = at_s
        decisions += matcher.add_part(part(number), at_s, now_s) if is_part else matcher.add_picture(number, at_s, now_s)
    decisions += matcher.decide_due(now_s, is_ending=True)
    pictures = [decision.picture for decision in decisions if decision.picture is not None]
    parts = [decision.part.part for decision in decisions if decision.part is not None]
    assert sorted(pictures) == [number for number, event in enumerate(events, 1) if not event[0]]
    assert sorted(set(parts)) == [number for number, event in enumerate(events, 1) if event[0]]
    missed = [decision.part.part for decision in decisions if decision.part is not None and decision.picture is None]
    assert len(set(missed)) == len(missed)
    matched = [decision.part.part for decision in decisions if decision.part is not None and decision.picture is not None]
    assert len(set(matched)) == len(matched)
    for decision in decisions:
        if decision.picture is not None and decision.part is not None:
            assert abs(times[decision.picture] - times[decision.part.part]) <= WINDOW_S


def send_through_an_outage(seed: int, *, is_arrival: bool) -> tuple[int, int]:
    """Sends 40 pictures through a network that fails for some seconds. The kept pictures then arrive 20 to 100 ms after each other.

    Returns how many pictures got their own part, and how many got another one.
    """
    draw = random.Random(seed)
    begin_s = 20 + draw.uniform(0, 1)
    free_s = begin_s + draw.uniform(0.5, 6)
    events: list[tuple[float, int, str]] = [(number + 0.02, number, "") for number in range(1, 41)]
    for number in range(1, 41):
        arrival_s = number + draw.uniform(-0.05, 0.05)
        if begin_s <= arrival_s < free_s:
            arrival_s = free_s = free_s + draw.uniform(0.02, 0.1)
        events.append((arrival_s, number, str(number)))
    matcher = make_matcher()
    decisions: Decisions = []
    for time_s, number, picture in sorted([*events, *((tick / 20, 0, "") for tick in range(900))]):
        if picture:
            decisions += matcher.add_picture(picture, time_s, time_s, is_arrival=is_arrival)
        elif number:
            decisions += matcher.add_part(part(number), float(number), time_s)
        decisions += matcher.decide_due(time_s)
    own = [decision.picture == str(decision.part.part) for decision in decisions if decision.picture and decision.part]
    return own.count(True), own.count(False)


def test_pictures_that_arrive_together_after_an_outage_get_no_part_of_another_casting() -> None:
    results = [send_through_an_outage(seed, is_arrival=True) for seed in range(200)]
    assert sum(wrong for _, wrong in results) == 0
    assert min(right for right, _ in results) >= 30, "the pictures before and after the outage get their parts"
    with_own_times = [send_through_an_outage(seed, is_arrival=False) for seed in range(200)]
    assert sum(wrong for _, wrong in with_own_times) > 0, "the test has outages that would do harm"


def test_a_part_for_which_two_arrivals_compete_gets_none() -> None:
    matcher = make_matcher()
    for number in range(1, 4):
        matcher.add_part(part(number), float(number), float(number))
    assert matcher.add_picture("a", 2.85, 2.85, is_arrival=True) == []
    assert {decision.part for decision in matcher.add_picture("b", 3.15, 3.15, is_arrival=True)} == {None}


def test_an_arrival_without_a_rival_gets_its_part_after_a_quarter_of_the_spacing() -> None:
    matcher = make_matcher()
    for number in range(1, 4):
        matcher.add_part(part(number), float(number), float(number))
    assert matcher.add_picture("a", 3.01, 3.01, is_arrival=True) == []
    assert matcher.decide_due(3.24) == []
    assert matcher.decide_due(3.27) == [MatchDecision("a", part(3))]


def test_a_copy_gets_the_part_of_its_first_arrival_as_long_as_the_matcher_remembers_this_arrival() -> None:
    def match_copy(later_arrivals: int, rival_s: float | None = None) -> list[MatchDecision[str]]:
        matcher = make_matcher()
        for number in range(1, 7):
            matcher.add_part(part(number), float(number), float(number))
        if rival_s is not None:
            matcher.add_arrival(rival_s)
        matcher.add_arrival(3.01)
        for number in range(later_arrivals):
            matcher.add_arrival(100.0 + number)
        decisions = matcher.add_picture("copy", 3.01, 6.01, is_arrival=True, is_copy=True)
        return decisions + matcher.decide_due(6.6)

    assert match_copy(63) == [MatchDecision("copy", part(3))]
    assert match_copy(64) == [MatchDecision("copy", None)], "other pictures may have arrived together with the first copy"
    assert match_copy(63, rival_s=2.95) == [MatchDecision("copy", None)], "the matcher has forgotten the rival, but not the first copy"
    assert match_copy(63, rival_s=1.5) == [MatchDecision("copy", part(3))], "the forgotten picture was no rival"


def test_late_copies_say_nothing_about_the_age_of_other_pictures() -> None:
    matcher = make_matcher()
    for number in range(1, 9):
        matcher.add_part(part(number), float(number), float(number))
    matcher.add_picture("a", 1.01, 8.0)
    for time_s in (2.5, 3.01):
        matcher.add_arrival(time_s)
    decisions = matcher.add_picture("fits no part", 2.5, 8.5, is_arrival=True, is_copy=True) + matcher.decide_due(9.1)
    decisions += matcher.add_picture("of 3", 3.01, 9.1, is_arrival=True, is_copy=True) + matcher.decide_due(9.7)
    assert [decision for decision in decisions if decision.picture] == [MatchDecision("fits no part", None), MatchDecision("of 3", part(3))]
    assert matcher.doubt == 0
