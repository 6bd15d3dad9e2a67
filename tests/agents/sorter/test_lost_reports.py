"""The parts whose reports the board has lost, found by the gaps in the part numbers."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agents.gate.lane import REPORTED_WITHIN_S
from agents.sorter.lost_reports import LostReports
from agents.sorter.part_states import RecordedParts


def make_lost_reports(recorded: set[int], announced: set[int] | None = None) -> LostReports:
    known = announced if announced is not None else set()
    lost = LostReports(lambda run, part: part in known or part in recorded, lambda run, part: part in recorded)
    lost.begin_run(1, RecordedParts(), 0.0)
    return lost


def take_lost(lost: LostReports, now_s: float) -> list[int]:
    return [part for _, part in lost.take_lost(now_s)]


def test_a_part_before_a_reported_one_is_lost_after_a_while_and_only_once() -> None:
    lost = make_lost_reports({1, 4})
    lost.add_report(1, 0.0)
    lost.add_report(4, 1.0)
    assert take_lost(lost, REPORTED_WITHIN_S) == []
    assert take_lost(lost, 1.0 + REPORTED_WITHIN_S) == [2, 3]
    assert take_lost(lost, 99.0) == []


def test_a_part_that_is_reported_later_is_not_lost() -> None:
    recorded = {1, 4}
    lost = make_lost_reports(recorded)
    lost.add_report(1, 0.0)
    lost.add_report(4, 0.0)
    recorded.add(2)
    assert take_lost(lost, REPORTED_WITHIN_S) == [3]


def test_an_announced_part_that_another_one_overtakes_is_lost_only_if_the_board_has_reported_a_loss() -> None:
    lost = make_lost_reports({1, 3, 4}, {2})
    lost.add_report(1, 0.0)
    lost.add_report(3, 0.0)
    assert take_lost(lost, 99.0) == []
    lost.note_loss()
    lost.add_report(4, 99.0)
    assert take_lost(lost, 99.0 + REPORTED_WITHIN_S) == [2]


def test_after_a_loss_announced_parts_are_found_even_if_the_next_report_is_about_an_earlier_part() -> None:
    recorded = {1, 6}
    lost = make_lost_reports(recorded, {3, 5})
    lost.add_report(1, 0.0)
    lost.add_report(6, 0.0)
    lost.note_loss()
    recorded.add(3)
    lost.add_report(3, 1.0)
    assert take_lost(lost, 1.0 + REPORTED_WITHIN_S) == [2, 4, 5]


def test_a_restarted_sorter_finds_the_gaps_between_the_records_of_the_run_and_none_before_them() -> None:
    recorded = {101, 102, 105}
    lost = make_lost_reports(recorded)
    lost.begin_run(7, RecordedParts({105, 101, 102}, complete_from=0), 0.0)
    assert take_lost(lost, REPORTED_WITHIN_S) == [103, 104]


def test_parts_whose_records_an_earlier_process_has_written_are_not_lost_although_their_states_were_dropped() -> None:
    lost = make_lost_reports(set())
    lost.begin_run(7, RecordedParts({101, 102, 105, 106}, {103}, complete_from=102), 0.0)
    lost.add_report(107, 0.0)
    assert take_lost(lost, REPORTED_WITHIN_S) == [104]


def test_below_the_first_number_from_which_all_records_are_known_no_part_is_lost() -> None:
    lost = make_lost_reports(set())
    lost.begin_run(7, RecordedParts({101, 105, 108}), 0.0)
    lost.add_report(110, 0.0)
    assert take_lost(lost, REPORTED_WITHIN_S) == [109]


def test_a_board_that_goes_on_with_its_run_after_a_reset_loses_no_part_twice() -> None:
    lost = make_lost_reports(set())
    lost.add_report(1, 0.0)
    lost.add_report(4, 0.0)
    lost.begin_run(1, RecordedParts({1, 4}, complete_from=0), 1.0)
    assert lost.take_ended() == [(1, 2), (1, 3)]
    lost.add_report(6, 2.0)
    assert take_lost(lost, 2.0 + REPORTED_WITHIN_S) == [5]


def test_after_a_reset_all_missing_parts_are_lost() -> None:
    lost = make_lost_reports({1, 4})
    lost.add_report(1, 0.0)
    lost.add_report(4, 0.0)
    lost.begin_run(2, RecordedParts(), 2.0)
    assert (lost.take_ended(), lost.has_ended) == ([(1, 2), (1, 3)], False)
    assert take_lost(lost, 99.0) == []


def test_parts_that_the_board_has_counted_for_another_host_are_not_lost() -> None:
    lost = make_lost_reports({5000, 5002})
    lost.add_report(5000, 0.0)
    lost.add_report(5002, 0.0)
    assert take_lost(lost, 99.0) == [5001]


def test_a_very_large_gap_gets_records_for_its_newest_parts_and_few_at_a_time() -> None:
    lost = make_lost_reports(set())
    lost.add_report(1, 0.0)
    lost.add_report(2**31, 0.0)
    assert len(take_lost(lost, 99.0)) == 256
    lost.begin_run(2, RecordedParts(), 99.0)
    remaining = []
    while lost.has_ended:
        remaining.append(lost.take_ended())
    assert {len(keys) for keys in remaining} == {256}
    assert sum(map(len, remaining)) == 65_536 - 256
    assert remaining[-1][-1] == (1, 2**31 - 1)


@given(st.sets(st.integers(1, 300), min_size=1), st.randoms(use_true_random=False))
def test_each_part_after_the_first_reported_one_is_recorded_or_lost_in_any_order(reported: set[int], chance: random.Random) -> None:
    order = sorted(reported)
    chance.shuffle(order)
    recorded: set[int] = set()
    lost = make_lost_reports(recorded)
    for part in order:
        recorded.add(part)
        lost.add_report(part, 0.0)
    taken = [*take_lost(lost, REPORTED_WITHIN_S), *take_lost(lost, REPORTED_WITHIN_S)]
    assert set(taken) == set(range(order[0], max(reported))) - reported
