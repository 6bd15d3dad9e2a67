"""Every board moves the further gates of a belt as firmware/PROTOCOL.md says under "Further gates"."""

from __future__ import annotations

import pytest

from firmware.board.lane_settings import Value
from tests.agents.gate.host import Host

REVIEW = 2  # the lane that lends its servo to lane 1's belt
FAR: dict[str, Value] = {"lane_of": 1, "gate_mm": 150}


@pytest.fixture
def graded(host: Host) -> Host:
    """Lane 1's own gate at 20 mm past photo-eye 2, the gate of lane 2 at 150 mm."""
    host.greet()
    host.configure(REVIEW, **FAR)
    return host


def did(host: Host) -> list[tuple[int, str, str, int, int]]:
    """Part, action, reason, movement and further gate of each GATE event."""
    return [
        (gate.number("part"), gate.word("action"), gate.word("reason"), gate.number("moved"), gate.number("gate") if "gate" in gate else 0)
        for gate in host.gates()
    ]


def follow(host: Host, *verdicts: tuple[str, int]) -> list[int]:
    """Parts 100 mm apart, told at once, up to their moments; when each was at photo-eye 1."""
    parts = []
    for verdict, gate in verdicts:
        part, at_ms = host.part()
        parts.append(at_ms)
        assert host.tell(part, verdict, gate).fields == ("accepted",)
        host.wait_until(at_ms + 100)
    return parts


def test_a_board_says_that_it_knows_grades(host: Host) -> None:
    assert host.ok("HELLO", 1)["grades"] == 1


def test_each_part_falls_at_the_gate_that_its_verdict_names(graded: Host) -> None:
    parts = follow(graded, ("divert", REVIEW), ("keep", 1), ("divert", 1))
    for at_ms in parts:
        graded.carry(at_ms)
    graded.wait(300)
    assert sorted(did(graded)) == [(1, "divert", "verdict", 1, REVIEW), (2, "pass", "verdict", 0, 0), (3, "divert", "verdict", 1, 0)]
    counts = graded.status("count")
    assert (counts["parts"], counts["diverted"], counts["passed"]) == (3, 2, 1)


def test_a_further_gate_moves_at_its_own_moment_and_dwells_by_itself(graded: Host) -> None:
    graded.configure(REVIEW, **FAR | {"dwell_mm": 100, "out_us": 1800})
    (at_ms,) = follow(graded, ("divert", REVIEW))
    graded.wait_until(at_ms + 300)
    graded.block(2)
    graded.wait_until(at_ms + 300 + 146)
    assert graded.rig.pulse_us(REVIEW) == 1000, "it moved before the part's moment"
    graded.rig.wait(8)
    assert graded.rig.pulse_us(REVIEW) == 1800, "it did not move at the part's moment"
    assert graded.rig.pulse_us(1) == 1000
    graded.wait_until(at_ms + 300 + 246)
    assert graded.rig.pulse_us(REVIEW) == 1800, "it returned before the dwell was over"
    graded.rig.wait(12)
    assert graded.rig.pulse_us(REVIEW) == 1000, "it stayed after the dwell was over"
    assert graded.rig.swings() == 0


def test_parts_too_close_for_two_gates_fall_at_the_belts_own(graded: Host) -> None:
    first, at_ms = graded.part()
    graded.rig.wait(max(0, 45 - (graded.rig.now_ms() - at_ms)))
    second, then_ms = graded.part()
    assert then_ms - at_ms < 60, "the test itself was too slow"
    graded.tell(first, "divert", REVIEW)
    graded.tell(second, "divert", 1)
    graded.wait_until(at_ms + 300)
    graded.block(2)
    graded.wait_until(then_ms + 300)
    graded.block(2)
    graded.wait(200)
    assert did(graded) == [(1, "divert", "spacing", 1, 0), (2, "divert", "verdict", 0, 0)]


def test_parts_too_close_for_a_change_fall_together_at_a_further_gate(graded: Host) -> None:
    first, at_ms = graded.part()
    graded.rig.wait(max(0, 45 - (graded.rig.now_ms() - at_ms)))
    second, then_ms = graded.part()
    for part in (first, second):
        graded.tell(part, "divert", REVIEW)
    graded.wait_until(at_ms + 300)
    graded.block(2)
    graded.wait_until(then_ms + 300)
    graded.block(2)
    graded.wait(250)
    assert did(graded) == [(1, "divert", "verdict", 1, REVIEW), (2, "divert", "verdict", 0, REVIEW)]


def test_a_stranger_on_the_heels_of_a_part_falls_where_that_falls(graded: Host) -> None:
    (at_ms,) = follow(graded, ("divert", REVIEW))
    graded.wait_until(at_ms + 300)
    graded.block(2, 10)
    graded.rig.wait(max(0, at_ms + 345 - graded.rig.now_ms()))
    graded.block(2, 10)
    graded.wait(250)
    assert did(graded) == [(1, "divert", "verdict", 1, REVIEW), (0, "divert", "spacing", 0, REVIEW)]


def test_a_verdict_for_another_gate_is_another_verdict(graded: Host) -> None:
    part, _ = graded.part()
    assert graded.tell(part, "divert", REVIEW).fields == ("accepted",)
    assert graded.tell(part, "divert", REVIEW).fields == ("same",)
    assert graded.tell(part, "divert", 1).fields[0] == "23"
    assert graded.tell(part, "divert", 3).fields[0] == "10", "no gate of this belt"
    assert graded.ok("CANCEL", 1, graded.rig.run, part)["told"] == "cancelled"
    assert graded.tell(part, "divert", 1).fields == ("accepted",)


def test_more_parts_are_on_their_way_to_a_far_gate_than_to_a_near_one(graded: Host) -> None:
    graded.configure(1, eye_gap_mm=1000)
    graded.configure(REVIEW, **FAR | {"gate_mm": 1000})
    for at_ms in follow(graded, *[("divert", REVIEW)] * 8):
        graded.wait_until(at_ms + 1000)
        graded.block(2)
    assert did(graded) == [], "the first part is at the gate before the last is at photo-eye 2"
    graded.wait(1300)
    assert [(part, gate) for part, _, _, _, gate in did(graded)] == [(part, REVIEW) for part in range(1, 9)]
    assert graded.faults() == []


def test_a_fault_holds_all_gates_of_the_belt(graded: Host) -> None:
    follow(graded, ("divert", REVIEW))
    graded.rig.estop(True)
    graded.wait(100)
    assert graded.rig.pulse_us(1) == graded.rig.pulse_us(REVIEW) == 2000
    assert did(graded) == [(1, "divert", "safe", 0, 0)]
    assert graded.code("TEST", REVIEW, 5, "gate") == 12
    graded.rig.estop(False)
    graded.wait(20)
    graded.ok("CLEAR", 1, 45)
    graded.wait(200)
    assert graded.rig.pulse_us(1) == graded.rig.pulse_us(REVIEW) == 1000


def test_parts_on_their_way_to_a_far_gate_are_reported_when_a_fault_begins(graded: Host) -> None:
    (at_ms,) = follow(graded, ("divert", REVIEW))
    graded.wait_until(at_ms + 300)
    graded.block(2)
    graded.wait(40)
    assert did(graded) == []
    graded.rig.estop(True)
    graded.wait(100)
    assert did(graded) == [(1, "divert", "safe", 0, 0)]


def test_the_supply_of_a_further_servo_is_the_belts(graded: Host) -> None:
    graded.rig.servo_power(True, REVIEW)
    graded.configure(REVIEW, **FAR | {"use_servo_power": 1})
    graded.wait(50)
    assert graded.faults() == []
    graded.rig.servo_power(False, REVIEW)
    graded.wait(50)
    assert graded.status("line")["code"] == 44
    assert graded.code("CLEAR", 1, 44) == 12
    graded.rig.servo_power(True, REVIEW)
    graded.wait(20)
    assert graded.ok("CLEAR", 1, 44)["told"] == "cleared"


@pytest.mark.parametrize(
    ("lane", "settings"),
    [(3, {"lane_of": 3}), (3, {"lane_of": 4}), (3, {"lane_of": REVIEW}), (1, {"lane_of": 3})],
    ids=["of itself", "of a lane not in force", "of a further gate", "of another, having one itself"],
)
def test_a_further_gate_is_at_one_belt_that_is_in_force(graded: Host, lane: int, settings: dict[str, Value]) -> None:
    graded.put_aside(lane, **settings)
    assert graded.code("COMMIT", lane) == 8


def test_a_belt_with_parts_lets_none_of_its_gates_be_changed(graded: Host) -> None:
    graded.part()
    graded.ok("CONFIGURE", REVIEW, "dwell_mm", 70)
    assert graded.code("COMMIT", REVIEW) == 9
    assert graded.code("TEST", REVIEW, 5, "gate") == 9


def test_a_further_gate_counts_nothing_and_swings_for_a_test(graded: Host) -> None:
    assert graded.ok("STATUS", REVIEW, "line")["state"] == "running"
    assert graded.code("VERDICT", REVIEW, graded.rig.run, 1, "keep", 0) == 22
    assert graded.ok("TEST", REVIEW, 5, "gate")["told"] == "done"
    graded.rig.wait(100)
    assert (graded.rig.pulse_us(1), graded.rig.pulse_us(REVIEW)) == (1000, 2000)


def test_a_lane_can_be_given_back_to_a_belt_of_its_own(graded: Host) -> None:
    graded.configure(REVIEW)
    part, _ = graded.part()
    assert graded.tell(part, "divert", REVIEW).fields[0] == "10"
    assert graded.code("VERDICT", REVIEW, graded.rig.run, 1, "keep", 0) == 22


def test_after_a_reset_grades_wait_for_the_host_like_everything_else(graded: Host) -> None:
    graded.rig.reset("power")
    graded.rig.wait(100)
    assert graded.rig.pulse_us(REVIEW) == 2000, "safe is divert"
    graded.greet()
    part, _ = graded.part()
    assert graded.tell(part, "divert", REVIEW).fields[0] == "10", "its lane has not been committed since the reset"
