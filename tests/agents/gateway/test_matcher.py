"""The matcher finds the part of each picture by their times alone."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.gateway.matcher import MatchDecision, Matcher

WINDOW_S = 1.0


def make_matcher(window_s: float = WINDOW_S) -> Matcher[str, str]:
    return Matcher(window_s, picture_timeout_s=window_s, part_timeout_s=10.0)


def test_a_picture_is_matched_whether_it_arrives_before_or_after_its_part() -> None:
    matcher = make_matcher()
    matcher.add_part("before", 8.0, 8.0)
    assert matcher.add_part("A", 10.0, 10.05) == []
    assert matcher.add_picture("a", 10.02, 10.1) == [MatchDecision("a", "A")]
    other = make_matcher()
    other.add_part("before", 8.0, 8.0)
    assert other.add_picture("a", 10.02, 10.03) == []
    assert other.add_part("A", 10.0, 10.1) == [MatchDecision("a", "A")]


def test_the_first_picture_waits_because_no_spacing_is_known_yet() -> None:
    matcher = make_matcher()
    assert matcher.add_part("A", 10.0, 10.0) == []
    assert matcher.add_picture("a", 10.0, 10.01) == []
    assert matcher.decide_due(11.01) == [MatchDecision("a", "A")]


def test_a_picture_without_a_part_is_unmatched_after_its_timeout() -> None:
    matcher = make_matcher()
    matcher.add_picture("a", 10.0, 10.0)
    assert matcher.decide_due(10.9) == []
    assert matcher.decide_due(11.0) == [MatchDecision("a", None)]


def test_a_part_without_a_picture_is_unmatched_after_its_timeout() -> None:
    matcher = make_matcher()
    matcher.add_part("A", 10.0, 10.0)
    assert matcher.decide_due(19.9) == []
    assert matcher.decide_due(20.0) == [MatchDecision(None, "A")]


def test_a_lost_picture_does_not_shift_the_following_ones() -> None:
    matcher = make_matcher()
    decisions: list[MatchDecision[str, str]] = []
    for number in range(20):
        at_s = 100 + number * 0.1
        decisions += matcher.add_part(f"P{number}", at_s, at_s + 0.005)
        if number != 7:
            decisions += matcher.add_picture(f"p{number}", at_s + 0.01, at_s + 0.02)
    decisions += matcher.decide_due(103.0)
    assert sorted((decision.picture, decision.part) for decision in decisions) == sorted((f"p{n}", f"P{n}") for n in range(20) if n != 7)


def test_a_lost_report_on_a_dense_belt_leaves_its_picture_unmatched() -> None:
    matcher = make_matcher()
    decisions: list[MatchDecision[str, str]] = []
    for number in range(20):
        at_s = 100 + number * 0.1
        if number != 7:
            decisions += matcher.add_part(f"P{number}", at_s, at_s + 0.005)
        decisions += matcher.add_picture(f"p{number}", at_s + 0.01, at_s + 0.02)
    decisions += matcher.decide_all()
    assert MatchDecision("p7", None) in decisions
    assert all(decision.picture is None or decision.part in (None, decision.picture.upper()) for decision in decisions)


def test_a_second_picture_of_one_part_is_unmatched() -> None:
    matcher = make_matcher()
    matcher.add_part("before", 8.0, 8.0)
    matcher.add_part("A", 10.0, 10.0)
    assert matcher.add_picture("a", 10.0, 10.01) == [MatchDecision("a", "A")]
    assert matcher.add_picture("again", 10.0, 10.02) == []
    assert matcher.decide_due(11.1) == [MatchDecision("again", None)]


def test_the_number_of_waiting_pictures_is_bounded() -> None:
    matcher: Matcher[int, int] = Matcher(WINDOW_S, WINDOW_S, 10.0, max_pictures=5)
    decisions = [decision for number in range(9) for decision in matcher.add_picture(number, 1000.0 * number, 0.0)]
    assert decisions == [MatchDecision(number, None) for number in range(4)]
    assert matcher.pending_pictures == 5


@st.composite
def belts(draw: st.DrawFn) -> tuple[list[float], list[tuple[float, str, int]], set[int], set[int]]:
    """Generates a belt: the times of its parts, the arrivals (time, "part" or "picture", number) in order, and what is lost.

    The last two values are the numbers of the lost pictures and of the lost reports. The spacing of the parts varies by at most a quarter.
    """
    spacing_s = draw(st.floats(0.05, 5.0))
    count = draw(st.integers(1, 40))
    times = [1000.0]
    for _ in range(count - 1):
        times.append(times[-1] + spacing_s * draw(st.floats(1.0, 1.25)))
    lost_pictures = draw(st.sets(st.integers(0, count - 1), max_size=count // 3))
    lost_reports = draw(st.sets(st.integers(0, count - 1), max_size=count // 3)) - lost_pictures
    arrivals = []
    reported_s = 0.0  # The reports of one board arrive in order.
    for number, at_s in enumerate(times):
        if number not in lost_reports:
            reported_s = max(reported_s, at_s + draw(st.floats(0, 0.4)))
            arrivals.append((reported_s, "part", number))
        if number not in lost_pictures:
            arrivals.append((at_s + draw(st.floats(0, 0.4)), "picture", number))
    return times, sorted(arrivals), lost_pictures, lost_reports


@given(belts())
@settings(max_examples=150, deadline=None)
def test_each_picture_and_part_is_decided_once_and_no_loss_shifts_another(
    belt: tuple[list[float], list[tuple[float, str, int]], set[int], set[int]],
) -> None:
    times, arrivals, lost_pictures, lost_reports = belt
    spacing_s = min((later - earlier for earlier, later in pairwise(times)), default=WINDOW_S)
    error_s = min(spacing_s, WINDOW_S) * 0.24
    matcher: Matcher[int, int] = Matcher(WINDOW_S, WINDOW_S, 10.0)
    decisions: list[MatchDecision[int, int]] = []
    for arrived_s, kind, number in arrivals:
        if kind == "part":
            decisions += matcher.add_part(number, times[number], arrived_s)
        else:
            shift_s = error_s if number % 2 else -error_s
            decisions += matcher.add_picture(number, times[number] + shift_s, arrived_s)
    decisions += matcher.decide_all()
    pictures = [decision.picture for decision in decisions if decision.picture is not None]
    parts = [decision.part for decision in decisions if decision.part is not None]
    assert sorted(pictures) == sorted(set(range(len(times))) - lost_pictures)
    assert sorted(parts) == sorted(set(range(len(times))) - lost_reports)
    wrong_count = 0
    for decision in decisions:
        if decision.picture is not None and decision.part is not None:
            distance_s = abs(times[decision.picture] + (error_s if decision.picture % 2 else -error_s) - times[decision.part])
            assert distance_s <= WINDOW_S
            wrong_count += decision.picture != decision.part
    if not lost_reports:
        assert wrong_count == 0, "no picture is matched to the wrong part if all parts are reported"
    assert wrong_count <= len(lost_reports), "a lost report affects at most its own picture"
    if not lost_pictures | lost_reports:
        assert all(decision.picture == decision.part for decision in decisions)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30), st.floats(0, 3)), max_size=60))
@settings(max_examples=150, deadline=None)
def test_all_pictures_and_parts_are_decided_exactly_once_and_within_the_window(events: list[tuple[bool, float, float]]) -> None:
    matcher: Matcher[int, int] = Matcher(WINDOW_S, picture_timeout_s=WINDOW_S, part_timeout_s=10.0)
    now_s, decisions = 0.0, []
    times: dict[int, float] = {}
    for number, (is_part, at_s, later_s) in enumerate(events):
        now_s += later_s
        times[number] = at_s
        decisions += matcher.add_part(number, at_s, now_s) if is_part else matcher.add_picture(number, at_s, now_s)
    decisions += matcher.decide_all()
    pictures = [decision.picture for decision in decisions if decision.picture is not None]
    parts = [decision.part for decision in decisions if decision.part is not None]
    assert sorted(pictures) == [number for number, event in enumerate(events) if not event[0]]
    assert sorted(parts) == [number for number, event in enumerate(events) if event[0]]
    for decision in decisions:
        if decision.picture is not None and decision.part is not None:
            assert abs(times[decision.picture] - times[decision.part]) <= WINDOW_S + 1e-3
