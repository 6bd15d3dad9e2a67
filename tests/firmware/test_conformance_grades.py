"""Every board moves the additional gates of a belt as firmware/PROTOCOL.md says under "Additional gates"."""

from __future__ import annotations

import pytest

from firmware.lane_settings import SettingValue
from tests.firmware.protocol_host import ProtocolHost

# The lane whose servo moves the additional gate of lane 1's belt.
REVIEW = 2
FAR: dict[str, SettingValue] = {"lane_of": 1, "gate_mm": 150}


@pytest.fixture
def graded(host: ProtocolHost) -> ProtocolHost:
    """A belt with its own gate 20 mm past photo-eye 2, and the additional gate of lane 2 at 150 mm."""
    host.greet()
    host.configure(REVIEW, **FAR)
    return host


def gate_actions(host: ProtocolHost) -> list[tuple[int, str, str, int, int]]:
    """Returns part, action, reason, `moved` and additional gate of each GATE event."""
    return [
        (gate.number("part"), gate.word("action"), gate.word("reason"), gate.number("moved"), gate.number("gate") if "gate" in gate else 0)
        for gate in host.gate_events()
    ]


def send_parts(host: ProtocolHost, *verdicts: tuple[str, int]) -> list[int]:
    """Lets parts pass photo-eye 1, 100 mm apart, and sends their verdicts at once. Returns the times of the parts."""
    parts = []
    for verdict, gate in verdicts:
        part, at_ms = host.count_part()
        parts.append(at_ms)
        assert host.send_verdict(part, verdict, gate).fields == ("accepted",)
        host.wait_until(at_ms + 100)
    return parts


def test_a_board_says_that_it_knows_grades(host: ProtocolHost) -> None:
    assert host.ok("HELLO", 1)["grades"] == 1


def test_each_part_falls_at_the_gate_that_its_verdict_names(graded: ProtocolHost) -> None:
    parts = send_parts(graded, ("divert", REVIEW), ("keep", 1), ("divert", 1))
    for at_ms in parts:
        graded.carry_to_eye2(at_ms)
    graded.wait(300)
    assert sorted(gate_actions(graded)) == [
        (1, "divert", "verdict", 1, REVIEW),
        (2, "pass", "verdict", 0, 0),
        (3, "divert", "verdict", 1, 0),
    ]
    counts = graded.status("count")
    assert (counts["parts"], counts["diverted"], counts["passed"]) == (3, 2, 1)


def test_a_further_gate_moves_at_its_own_moment_and_dwells_by_itself(graded: ProtocolHost) -> None:
    graded.configure(REVIEW, **FAR | {"dwell_mm": 100, "out_us": 1800})
    (at_ms,) = send_parts(graded, ("divert", REVIEW))
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
    assert graded.rig.swing_count() == 0


def test_a_casting_at_the_belts_eyes_ends_the_servo_command_of_an_additional_gate(graded: ProtocolHost) -> None:
    assert graded.ok("SERVO", REVIEW, 1500)["told"] == "done"
    graded.wait(60)
    assert graded.rig.pulse_us(REVIEW) == 1500
    graded.rig.set_eye(1, True)
    graded.rig.wait(40)
    assert graded.rig.pulse_us(REVIEW) == 1000
    assert graded.error_code("SERVO", REVIEW, 1500) == 9, "a casting blocks an eye of the belt"
    graded.rig.set_eye(1, False)
    graded.rig.wait(10)
    graded.send_verdict(1, "divert", REVIEW)
    graded.carry_to_eye2(graded.rig.now_ms() - 60)
    graded.wait(250)
    assert gate_actions(graded) == [(1, "divert", "verdict", 1, REVIEW)]


def test_parts_too_close_for_two_gates_fall_at_the_belts_own(graded: ProtocolHost) -> None:
    first, at_ms = graded.count_part()
    graded.rig.wait(max(0, 45 - (graded.rig.now_ms() - at_ms)))
    second, then_ms = graded.count_part()
    assert then_ms - at_ms < 60, "the test itself was too slow"
    graded.send_verdict(first, "divert", REVIEW)
    graded.send_verdict(second, "divert", 1)
    graded.wait_until(at_ms + 300)
    graded.block(2)
    graded.wait_until(then_ms + 300)
    graded.block(2)
    graded.wait(200)
    assert gate_actions(graded) == [(1, "divert", "spacing", 1, 0), (2, "divert", "verdict", 0, 0)]


def test_parts_too_close_for_a_change_fall_together_at_a_further_gate(graded: ProtocolHost) -> None:
    first, at_ms = graded.count_part()
    graded.rig.wait(max(0, 45 - (graded.rig.now_ms() - at_ms)))
    second, then_ms = graded.count_part()
    for part in (first, second):
        graded.send_verdict(part, "divert", REVIEW)
    graded.wait_until(at_ms + 300)
    graded.block(2)
    graded.wait_until(then_ms + 300)
    graded.block(2)
    graded.wait(250)
    assert gate_actions(graded) == [(1, "divert", "verdict", 1, REVIEW), (2, "divert", "verdict", 0, REVIEW)]


def test_an_uncounted_part_close_behind_another_falls_at_the_same_gate(graded: ProtocolHost) -> None:
    (at_ms,) = send_parts(graded, ("divert", REVIEW))
    graded.wait_until(at_ms + 300)
    graded.block(2, 10)
    graded.rig.wait(max(0, at_ms + 345 - graded.rig.now_ms()))
    graded.block(2, 10)
    graded.wait(250)
    assert gate_actions(graded) == [(1, "divert", "verdict", 1, REVIEW), (0, "divert", "spacing", 0, REVIEW)]


def test_a_verdict_for_another_gate_is_another_verdict(graded: ProtocolHost) -> None:
    part, _ = graded.count_part()
    assert graded.send_verdict(part, "divert", REVIEW).fields == ("accepted",)
    assert graded.send_verdict(part, "divert", REVIEW).fields == ("same",)
    assert graded.send_verdict(part, "divert", 1).fields[0] == "23"
    assert graded.send_verdict(part, "divert", 3).fields[0] == "10", "no gate of this belt"
    assert graded.ok("CANCEL", 1, graded.rig.run, part)["told"] == "cancelled"
    assert graded.send_verdict(part, "divert", 1).fields == ("accepted",)


def test_more_parts_are_on_their_way_to_a_far_gate_than_to_a_near_one(graded: ProtocolHost) -> None:
    graded.configure(1, eye_gap_mm=1000)
    graded.configure(REVIEW, **FAR | {"gate_mm": 1000})
    for at_ms in send_parts(graded, *[("divert", REVIEW)] * 8):
        graded.wait_until(at_ms + 1000)
        graded.block(2)
    assert gate_actions(graded) == [], "the first part is at the gate before the last is at photo-eye 2"
    graded.wait(1300)
    assert [(part, gate) for part, _, _, _, gate in gate_actions(graded)] == [(part, REVIEW) for part in range(1, 9)]
    assert graded.faults() == []


def test_a_fault_holds_all_gates_of_the_belt(graded: ProtocolHost) -> None:
    send_parts(graded, ("divert", REVIEW))
    graded.rig.set_estop(True)
    graded.wait(100)
    assert graded.rig.pulse_us(1) == graded.rig.pulse_us(REVIEW) == 2000
    assert gate_actions(graded) == [(1, "divert", "safe", 0, 0)]
    assert graded.error_code("TEST", REVIEW, 5, "gate") == 12
    graded.rig.set_estop(False)
    graded.wait(20)
    graded.ok("CLEAR", 1, 45)
    graded.wait(200)
    assert graded.rig.pulse_us(1) == graded.rig.pulse_us(REVIEW) == 1000


def test_parts_on_their_way_to_a_far_gate_are_reported_when_a_fault_begins(graded: ProtocolHost) -> None:
    (at_ms,) = send_parts(graded, ("divert", REVIEW))
    graded.wait_until(at_ms + 300)
    graded.block(2)
    graded.wait(40)
    assert gate_actions(graded) == []
    graded.rig.set_estop(True)
    graded.wait(100)
    assert gate_actions(graded) == [(1, "divert", "safe", 0, 0)]


def test_the_supply_of_a_further_servo_is_the_belts(graded: ProtocolHost) -> None:
    graded.rig.set_servo_power(True, REVIEW)
    graded.configure(REVIEW, **FAR | {"use_servo_power": 1})
    graded.wait(50)
    assert graded.faults() == []
    graded.rig.set_servo_power(False, REVIEW)
    graded.wait(50)
    assert graded.status("line")["code"] == 44
    assert graded.error_code("CLEAR", 1, 44) == 12
    graded.rig.set_servo_power(True, REVIEW)
    graded.wait(20)
    assert graded.ok("CLEAR", 1, 44)["told"] == "cleared"


@pytest.mark.parametrize(
    ("lane", "settings"),
    [(3, {"lane_of": 3}), (3, {"lane_of": 4}), (3, {"lane_of": REVIEW}), (1, {"lane_of": 3})],
    ids=["of itself", "of a lane not in force", "of an additional gate", "of another, having one itself"],
)
def test_a_further_gate_is_at_one_belt_that_is_in_force(graded: ProtocolHost, lane: int, settings: dict[str, SettingValue]) -> None:
    graded.configure_uncommitted(lane, **settings)
    assert graded.error_code("COMMIT", lane) == 8


def test_a_belt_with_parts_lets_none_of_its_gates_be_changed(graded: ProtocolHost) -> None:
    graded.count_part()
    graded.ok("CONFIGURE", REVIEW, "dwell_mm", 70)
    assert graded.error_code("COMMIT", REVIEW) == 9
    assert graded.error_code("TEST", REVIEW, 5, "gate") == 9


def test_a_further_gate_counts_nothing_and_swings_for_a_test(graded: ProtocolHost) -> None:
    assert graded.ok("STATUS", REVIEW, "line")["state"] == "running"
    assert graded.error_code("VERDICT", REVIEW, graded.rig.run, 1, "keep", 0) == 22
    assert graded.ok("TEST", REVIEW, 5, "gate")["told"] == "done"
    graded.rig.wait(100)
    assert (graded.rig.pulse_us(1), graded.rig.pulse_us(REVIEW)) == (1000, 2000)


def test_a_lane_can_be_given_back_to_a_belt_of_its_own(graded: ProtocolHost) -> None:
    graded.configure(REVIEW)
    part, _ = graded.count_part()
    assert graded.send_verdict(part, "divert", REVIEW).fields[0] == "10"
    assert graded.error_code("VERDICT", REVIEW, graded.rig.run, 1, "keep", 0) == 22


def test_after_a_reset_grades_wait_for_the_host_like_everything_else(graded: ProtocolHost) -> None:
    graded.rig.reset("power")
    graded.rig.wait(100)
    assert graded.rig.pulse_us(REVIEW) == 2000, "safe is divert"
    graded.greet()
    part, _ = graded.count_part()
    assert graded.send_verdict(part, "divert", REVIEW).fields[0] == "10", "its lane has not been committed since the reset"
