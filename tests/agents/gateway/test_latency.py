"""The latency of a camera is measured from times alone, watched while the line runs, and kept over restarts.

The belts are simulated: 600 parts, a fifth of the pictures missing, each picture up to a tenth of the spacing early or late.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.gateway.camera_latency import CameraLatency
from agents.gateway.latency import DRIFT_SHARE, estimate_latency
from tests.agents.gateway.belt_simulation import PARTS, SPACING_S, Belt, make_belt, make_line, measure

LATENCIES_S = (0.0, 0.25, 0.7, 1.0, 1.5)
ODD_GAPS = (14, 31, 37, 59, 72, 81, 104)


@pytest.mark.parametrize("irregularity", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("latency_s", LATENCIES_S)
def test_with_a_latency_that_is_set_no_picture_goes_to_another_part(tmp_path: Path, latency_s: float, irregularity: float) -> None:
    line = make_line(tmp_path, latency_s)
    result = line.run(make_belt(int(latency_s * 100), irregularity), lambda index: latency_s)
    assert (result.wrong, result.alarm_at) == (0, None)
    assert result.matched_share >= 0.99
    assert result.largest_median_share < DRIFT_SHARE


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.real) for seed in range(10, 50))])
def test_with_a_latency_that_was_measured_no_picture_goes_to_another_part(tmp_path: Path, seed: int) -> None:
    """Half of the belts are regular but for seven odd gaps. The first 110 parts are those that the command sees."""
    latency_s, irregularity = LATENCIES_S[seed % 5] - 0.8 * (seed % 3 == 0), (0.0, 0.3)[seed % 2]
    estimate = measure(make_belt(seed, irregularity, ODD_GAPS, count=110), latency_s)
    assert estimate.is_certain, estimate
    assert estimate.latency_s == pytest.approx(latency_s, abs=0.05)
    line = make_line(tmp_path)
    line.latency.store_measured(estimate.latency_s or 0.0, SPACING_S)
    result = line.run(make_belt(1000 + seed, irregularity), lambda index: latency_s, clock_error_s=0.8)
    assert (result.wrong, result.alarm_at) == (0, None)
    assert result.matched_share >= 0.99


def test_regular_parts_are_ambiguous_until_one_comes_with_an_odd_gap() -> None:
    regular = measure(make_belt(5, count=60), 0.7)
    assert not regular.is_certain
    assert "ambiguous" in regular.problem
    assert regular.rival_s is not None
    assert abs(abs(regular.rival_s - (regular.latency_s or 0)) - SPACING_S) < 0.05
    belt = make_belt(5, odd_gaps=(30,), count=60)
    complete = Belt(belt.part_times, {index: belt.jitters.get(index, 0.0) for index in range(60)})
    assert measure(complete, 0.7).latency_s == pytest.approx(0.7, abs=0.03)
    assert measure(complete, 0.7).is_certain, "one odd gap is enough if no picture is missing beside it"


@pytest.mark.parametrize("seed", range(40))
def test_a_measurement_is_right_or_says_that_it_is_not_certain(seed: int) -> None:
    """Also with pictures of no part, with lost reports, on regular belts, and with few pictures."""
    draw = random.Random(seed)
    irregularity = draw.choice((0.0, 0.02, 0.1, 0.5))
    belt = make_belt(seed, irregularity, draw.choice(((), (9,), (9, 31))), count=draw.choice((12, 25, 60, 140)))
    latency_s = draw.uniform(-1.5, 1.5)
    pictures = [belt.part_times[index] + latency_s + jitter_s for index, jitter_s in belt.jitters.items()]
    strays = [draw.uniform(belt.part_times[0], belt.part_times[-1]) for _ in range(len(pictures) // 20)]
    reported = [time_s for time_s in belt.part_times if draw.random() > 0.05]
    estimate = estimate_latency(reported, pictures + strays)
    if estimate.is_certain:
        assert estimate.latency_s == pytest.approx(latency_s, abs=0.08)
    else:
        assert estimate.problem


def test_too_few_pictures_and_pictures_without_any_order_have_no_latency() -> None:
    assert "10 of each are needed" in estimate_latency([1.0, 2.0], [1.1]).problem
    draw = random.Random(1)
    noise = [draw.uniform(0, 100) for _ in range(60)]
    estimate = estimate_latency([float(second) for second in range(100)], noise)
    assert estimate.problem == "no latency explains the times of the pictures"


def drift_by(drift_s: float, from_part: int, until_part: int) -> float:
    return drift_s * min(1.0, max(0.0, (from_part - 300) / max(1, until_part - 300)))


@pytest.mark.parametrize("irregularity", [0.0, 0.2])
@pytest.mark.parametrize("drift_s", [0.5, -0.5])
@pytest.mark.parametrize("duration", [0, 250])
def test_a_latency_that_drifts_by_half_a_spacing_raises_the_alarm_and_shifts_no_picture(
    tmp_path: Path, drift_s: float, duration: int, irregularity: float
) -> None:
    line = make_line(tmp_path, 0.3)
    result = line.run(make_belt(3, irregularity), lambda index: 0.3 + drift_by(drift_s, index, 300 + duration) * (index >= 300))
    assert result.wrong == 0
    assert result.alarm_at is not None
    assert result.alarm_at < 320 + duration, "a jump is found after some dozen pictures"
    assert "castline gateway measure line-1" in line.latency.find_problem()


@pytest.mark.parametrize("irregularity", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("drift_s", [1.0, -1.0])
def test_a_latency_that_creeps_by_a_whole_spacing_never_reaches_the_neighbour(tmp_path: Path, drift_s: float, irregularity: float) -> None:
    line = make_line(tmp_path, 0.3)
    result = line.run(make_belt(4, irregularity), lambda index: 0.3 + drift_by(drift_s, index, 500))
    assert result.wrong == 0
    assert result.alarm_at is not None
    assert line.latency.usable_s is None, "with a whole spacing the distances look right again, and nothing is assigned"


@pytest.mark.parametrize("drift_s", [1.0, -1.0])
def test_a_jump_by_a_whole_spacing_is_found_by_irregular_gaps(tmp_path: Path, drift_s: float) -> None:
    """With regular parts such a jump cannot be seen in the times at all, until a gap is odd."""
    line = make_line(tmp_path, 0.3)
    result = line.run(make_belt(4, 0.3), lambda index: 0.3 + drift_s * (index >= 300))
    assert result.alarm_at is not None
    assert result.alarm_at < 340
    assert result.wrong < 30


def test_a_suspension_ends_only_when_an_odd_gap_shows_that_the_latency_is_right_again(tmp_path: Path) -> None:
    line = make_line(tmp_path, 0.3)
    line.run(make_belt(6), lambda index: 0.3 + 0.5 * (300 <= index < 330))
    assert line.latency.suspension, "the distances are small again, but they would also be small with the neighbours"
    again = make_line(tmp_path, 0.3)
    assert again.latency.suspension, "also after a restart"
    again.run(make_belt(6, odd_gaps=ODD_GAPS), lambda index: 0.3)
    assert not again.latency.suspension
    assert again.result.wrong == 0
    assert again.result.right > 0.7 * PARTS * 0.8
    assert make_line(tmp_path, 0.3).latency.usable_s == 0.3


def test_a_measured_latency_survives_a_restart_and_one_in_the_settings_wins(tmp_path: Path) -> None:
    file = tmp_path / "line-1.latency.json"
    unknown = CameraLatency("line-1", None, file)
    assert unknown.usable_s is None
    assert "neither set nor measured" in unknown.find_problem()
    assert "castline gateway measure line-1" in unknown.find_problem()
    unknown.store_measured(0.42, SPACING_S)
    again = CameraLatency("line-1", None, file)
    for latency in (unknown, again):
        assert latency.usable_s == 0.42
        assert latency.source == "measured"
        assert latency.find_problem() == ""
    set_in_file = CameraLatency("line-1", 0.9, file)
    assert (set_in_file.usable_s, set_in_file.source) == (0.9, "settings")


def test_a_suspended_latency_of_the_settings_is_trusted_again_if_a_measurement_confirms_it_or_the_setting_changes(tmp_path: Path) -> None:
    line = make_line(tmp_path, 0.3)
    line.run(make_belt(6), lambda index: 0.3 + 0.5 * (index >= 300))
    line.latency.store_measured(0.8, SPACING_S)
    assert line.latency.usable_s is None, "the setting wins and is wrong"
    assert make_line(tmp_path, 0.8).latency.usable_s == 0.8
    other = make_line(tmp_path, 0.3)
    other.run(make_belt(6), lambda index: 0.3 + 0.5 * (index >= 300))
    other.latency.store_measured(0.31, SPACING_S)
    assert other.latency.usable_s == 0.3


def test_a_step_of_the_clock_and_back_does_not_make_a_wrong_latency_right(tmp_path: Path) -> None:
    line = CameraLatency("line-1", None, tmp_path / "latency.json")
    line.store_measured(0.5, 1.0)
    for _ in range(16):
        line.add_offset(0.4, 1.0)
    reason = line.suspension
    assert reason
    line.add_clock_step(2.0)
    line.add_clock_step(-2.0)
    assert line.suspension == reason
    assert line.usable_s is None


def test_a_latency_that_was_measured_after_a_step_of_the_clock_is_not_trusted_when_the_clock_is_set_back(tmp_path: Path) -> None:
    line = CameraLatency("line-1", None, tmp_path / "latency.json")
    line.store_measured(0.5, 1.0)
    line.add_clock_step(2.0)
    line.store_measured(-1.5, 1.0)
    usable = [line.usable_s]
    for step_s in (-2.0, 2.0):
        line.add_clock_step(step_s)
        usable.append(line.usable_s)
    assert usable == [-1.5, None, -1.5], "after the second step, the clock is as it was during the measurement"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"measured_s": "x"}', '{"measured_s": 1e9}', '{"measured_s": NaN}'])
def test_a_damaged_file_of_the_latency_means_that_it_has_to_be_measured(tmp_path: Path, content: str) -> None:
    file = tmp_path / "line-1.latency.json"
    file.write_text(content)
    latency = CameraLatency("line-1", None, file)
    assert latency.usable_s is None
    latency.store_measured(0.2, SPACING_S)
    assert CameraLatency("line-1", None, file).usable_s == 0.2


@given(
    st.integers(0, 2**32),
    st.floats(0.3, 0.9),
    st.integers(0, 7),
    st.sampled_from(["extra", "unreported"]),
    st.floats(0.0, 0.5),
)
@settings(max_examples=40)
def test_a_picture_or_report_too_much_or_too_few_does_not_stop_a_line_whose_pictures_come_later_than_before(
    tmp_path_factory: pytest.TempPathFactory, seed: int, delay_s: float, after: int, odd: str, extra_s: float
) -> None:
    """From part 60 on, the pictures come later for good. Soon after that, a part triggers the camera twice, or its report is lost."""
    line = make_line(tmp_path_factory.mktemp("line"), 0.3)
    belt = make_belt(seed, 0.3, count=160)
    at = min(index for index in belt.jitters if index >= 60 + after)
    result = line.run(
        belt,
        lambda index: 0.3,
        delay_s=lambda index: delay_s if index >= 60 else 0.0,
        extra=(at, extra_s) if odd == "extra" else None,
        unreported=at if odd == "unreported" else None,
    )
    assert (result.wrong, result.alarm_at) == (0, None)
    again = [index + 1 for index in belt.jitters if index >= at + 50]
    assert len(result.matched.intersection(again)) >= 0.95 * len(again)


def test_a_clock_that_was_set_by_a_whole_spacing_stays_in_doubt_until_an_irregular_gap_proves_that_it_is_wrong(tmp_path: Path) -> None:
    regular = make_belt(1, count=200)
    line = make_line(tmp_path, 0.3)
    line.run(regular, lambda index: 0.3 if index < 60 else 0.3 - SPACING_S, delay_s=lambda index: 0.0 if index < 60 else SPACING_S)
    assert line.result.wrong == 0
    assert (line.result.matched, bool(line.matcher.doubt)) == ({index + 1 for index in regular.jitters if index < 60}, True)
    assert line.matcher.refused_count > 50
