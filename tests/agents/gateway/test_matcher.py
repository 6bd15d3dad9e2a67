"""Which picture shows which part, by time alone."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.gateway.matcher import MatchDecision, Matcher

WINDOW_S = 1.0


def matcher(window_s: float = WINDOW_S) -> Matcher[str, str]:
    return Matcher(window_s, picture_timeout_s=window_s, part_timeout_s=10.0)


def test_picture_and_part_meet_in_either_order() -> None:
    one = matcher()
    one.add_part("before", 8.0, 8.0)
    assert one.add_part("A", 10.0, 10.05) == []
    assert one.add_picture("a", 10.02, 10.1) == [MatchDecision("a", "A")]
    other = matcher()
    other.add_part("before", 8.0, 8.0)
    assert other.add_picture("a", 10.02, 10.03) == []
    assert other.add_part("A", 10.0, 10.1) == [MatchDecision("a", "A")]


def test_the_first_picture_waits_since_no_spacing_is_known_yet() -> None:
    one = matcher()
    assert one.add_part("A", 10.0, 10.0) == []
    assert one.add_picture("a", 10.0, 10.01) == []
    assert one.decide_due(11.01) == [MatchDecision("a", "A")]


def test_a_picture_without_a_part_is_let_go_after_the_wait() -> None:
    one = matcher()
    one.add_picture("a", 10.0, 10.0)
    assert one.decide_due(10.9) == []
    assert one.decide_due(11.0) == [MatchDecision("a", None)]


def test_a_part_without_a_picture_is_counted_in_the_end() -> None:
    one = matcher()
    one.add_part("A", 10.0, 10.0)
    assert one.decide_due(19.9) == []
    assert one.decide_due(20.0) == [MatchDecision(None, "A")]


def test_a_lost_picture_does_not_shift_the_following_ones() -> None:
    one = matcher()
    decided: list[MatchDecision[str, str]] = []
    for number in range(20):
        at_s = 100 + number * 0.1
        decided += one.add_part(f"P{number}", at_s, at_s + 0.005)
        if number != 7:
            decided += one.add_picture(f"p{number}", at_s + 0.01, at_s + 0.02)
    decided += one.decide_due(103.0)
    assert sorted((match.picture, match.part) for match in decided) == sorted((f"p{n}", f"P{n}") for n in range(20) if n != 7)


def test_a_lost_report_on_a_dense_belt_leaves_its_picture_unmatched() -> None:
    one = matcher()
    decided: list[MatchDecision[str, str]] = []
    for number in range(20):
        at_s = 100 + number * 0.1
        if number != 7:
            decided += one.add_part(f"P{number}", at_s, at_s + 0.005)
        decided += one.add_picture(f"p{number}", at_s + 0.01, at_s + 0.02)
    decided += one.decide_all()
    assert MatchDecision("p7", None) in decided
    assert all(match.picture is None or match.part in (None, match.picture.upper()) for match in decided)


def test_a_second_picture_of_one_part_is_unmatched() -> None:
    one = matcher()
    one.add_part("before", 8.0, 8.0)
    one.add_part("A", 10.0, 10.0)
    assert one.add_picture("a", 10.0, 10.01) == [MatchDecision("a", "A")]
    assert one.add_picture("again", 10.0, 10.02) == []
    assert one.decide_due(11.1) == [MatchDecision("again", None)]


def test_pictures_that_wait_are_bounded() -> None:
    one: Matcher[int, int] = Matcher(WINDOW_S, WINDOW_S, 10.0, max_pictures=5)
    decided = [match for number in range(9) for match in one.add_picture(number, 1000.0 * number, 0.0)]
    assert decided == [MatchDecision(number, None) for number in range(4)]
    assert one.pending_pictures == 5


@st.composite
def belts(draw: st.DrawFn) -> tuple[list[float], list[tuple[float, str, int]], set[int], set[int]]:
    """Times of parts; arrivals (when, what, number) in order; numbers of lost pictures; numbers of lost reports.

    Belts run evenly (within a quarter), as belts do; clocks differ by less than a quarter of the spacing.
    """
    spacing_s = draw(st.floats(0.05, 5.0))
    count = draw(st.integers(1, 40))
    times = [1000.0]
    for _ in range(count - 1):
        times.append(times[-1] + spacing_s * draw(st.floats(1.0, 1.25)))
    lost_pictures = draw(st.sets(st.integers(0, count - 1), max_size=count // 3))
    lost_reports = draw(st.sets(st.integers(0, count - 1), max_size=count // 3)) - lost_pictures
    arrivals = []
    told_s = 0.0  # reports of one board come in order
    for number, at_s in enumerate(times):
        if number not in lost_reports:
            told_s = max(told_s, at_s + draw(st.floats(0, 0.4)))
            arrivals.append((told_s, "part", number))
        if number not in lost_pictures:
            arrivals.append((at_s + draw(st.floats(0, 0.4)), "picture", number))
    return times, sorted(arrivals), lost_pictures, lost_reports


@given(belts())
@settings(max_examples=150, deadline=None)
def test_each_comes_out_once_and_no_loss_shifts_another(
    belt: tuple[list[float], list[tuple[float, str, int]], set[int], set[int]],
) -> None:
    times, arrivals, lost_pictures, lost_reports = belt
    spacing_s = min((later - earlier for earlier, later in pairwise(times)), default=WINDOW_S)
    error_s = min(spacing_s, WINDOW_S) * 0.24
    one: Matcher[int, int] = Matcher(WINDOW_S, WINDOW_S, 10.0)
    decided: list[MatchDecision[int, int]] = []
    for when_s, what, number in arrivals:
        if what == "part":
            decided += one.add_part(number, times[number], when_s)
        else:
            shift_s = error_s if number % 2 else -error_s
            decided += one.add_picture(number, times[number] + shift_s, when_s)
    decided += one.decide_all()
    pictures = [match.picture for match in decided if match.picture is not None]
    parts = [match.part for match in decided if match.part is not None]
    assert sorted(pictures) == sorted(set(range(len(times))) - lost_pictures)
    assert sorted(parts) == sorted(set(range(len(times))) - lost_reports)
    wrong = 0
    for match in decided:
        if match.picture is not None and match.part is not None:
            away_s = abs(times[match.picture] + (error_s if match.picture % 2 else -error_s) - times[match.part])
            assert away_s <= WINDOW_S
            wrong += match.picture != match.part
    if not lost_reports:
        assert wrong == 0, "with every part reported no picture goes to another's part"
    assert wrong <= len(lost_reports), "a lost report misleads at most its own picture"
    if not lost_pictures | lost_reports:
        assert all(match.picture == match.part for match in decided)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30), st.floats(0, 3)), max_size=60))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_each_is_decided_exactly_once_and_within_the_window(events: list[tuple[bool, float, float]]) -> None:
    one: Matcher[int, int] = Matcher(WINDOW_S, picture_timeout_s=WINDOW_S, part_timeout_s=10.0)
    now_s, decided = 0.0, []
    times: dict[int, float] = {}
    for number, (is_part, at_s, later_s) in enumerate(events):
        now_s += later_s
        times[number] = at_s
        decided += one.add_part(number, at_s, now_s) if is_part else one.add_picture(number, at_s, now_s)
    decided += one.decide_all()
    pictures = [match.picture for match in decided if match.picture is not None]
    parts = [match.part for match in decided if match.part is not None]
    assert sorted(pictures) == [number for number, event in enumerate(events) if not event[0]]
    assert sorted(parts) == [number for number, event in enumerate(events) if event[0]]
    for match in decided:
        if match.picture is not None and match.part is not None:
            assert abs(times[match.picture] - times[match.part]) <= WINDOW_S + 1e-3
