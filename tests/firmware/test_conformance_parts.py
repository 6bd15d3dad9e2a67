"""Every board follows parts and moves its gate as firmware/PROTOCOL.md says."""

from __future__ import annotations

import pytest

from firmware.lane_settings import SettingValue
from tests.firmware.protocol_host import PART_MS, ProtocolHost


def test_a_counted_part_is_announced_until_it_is_seen_and_fires_the_camera_once(host: ProtocolHost) -> None:
    host.greet()
    at_ms = host.rig.now_ms()
    host.block(1)
    host.rig.wait(10)
    numbers = [part.number("part") for part in host.events("PART")]
    assert numbers in ([1], [1, 1]), "the board sends PART at once, and again when the 300 ms of all lanes are over"
    assert abs(host.events("PART")[0].number("at_ms") - at_ms) <= 3
    assert host.rig.trigger_count() == 1
    host.greet(eye_gap_mm=300)
    host.ok("SEEN", 1, host.rig.run, 1)
    known = len(host.events("PART"))
    host.wait(250)
    assert len(host.events("PART")) == known


def test_an_unseen_part_is_announced_again_but_counted_once(host: ProtocolHost) -> None:
    host.greet(eye_gap_mm=2000)
    host.block(1)
    host.wait(1000)
    announced = [(part.number("run"), part.number("part"), part.number("at_ms")) for part in host.events("PART")]
    assert len(announced) >= 3
    assert len(set(announced)) == 1
    assert host.rig.trigger_count() == 1


@pytest.mark.parametrize(
    ("verdict", "action", "moved", "swings"),
    [("divert", "divert", 1, 1), ("keep", "pass", 0, 0)],
)
def test_a_part_is_treated_as_its_verdict_says(host: ProtocolHost, verdict: str, action: str, moved: int, swings: int) -> None:
    host.greet()
    part, at_ms = host.count_part()
    assert host.send_verdict(part, verdict).fields == ("accepted",)
    host.carry_to_eye2(at_ms)
    assert host.gate_actions() == [(part, action, "verdict", moved)]
    host.wait(300)
    assert host.rig.swing_count() == swings
    assert host.rig.pulse_us() == 1000


def test_the_gate_moves_at_the_parts_moment_dwells_and_returns(host: ProtocolHost) -> None:
    host.greet(gate_mm=50, dwell_mm=100, servo_ms=40)
    part, at_ms = host.count_part()
    host.send_verdict(part, "divert")
    host.wait_until(at_ms + 300)
    host.rig.set_eye(2, True)
    host.rig.wait(47)
    assert host.rig.pulse_us() == 1000, "it moved before the part's moment"
    host.rig.wait(6)
    assert host.rig.pulse_us() == 2000, "it did not move at the part's moment"
    host.rig.wait(90)
    assert host.rig.pulse_us() == 2000, "it returned before the dwell was over"
    host.rig.wait(14)
    assert host.rig.pulse_us() == 1000, "it stayed after the dwell was over"
    host.rig.set_eye(2, False)


@pytest.mark.parametrize(("policy", "action", "closed"), [("divert", "divert", True), ("pass", "pass", True), ("stop", "stop", False)])
def test_a_part_without_verdict_is_treated_as_the_lines_owner_chose(host: ProtocolHost, policy: str, action: str, closed: bool) -> None:
    host.greet(no_verdict=policy)
    part, at_ms = host.count_part()
    host.carry_to_eye2(at_ms)
    assert host.gate_actions() == [(part, action, "no-verdict", int(action == "divert"))]
    assert host.rig.is_relay_closed() is closed
    if not closed:
        assert (49, 1, part) in host.faults()
        assert host.status("line").word("state") == "stopped"
        assert host.status("line").word("lamp") == "red"
        assert host.ok("CLEAR", 1, 49)["told"] == "cleared"
        assert host.rig.is_relay_closed()
        assert host.status("line").word("state") == "running"


def test_a_cancelled_verdict_is_no_verdict_until_a_new_one_is_sent(host: ProtocolHost) -> None:
    host.greet()
    part, at_ms = host.count_part()
    assert host.ok("CANCEL", 1, host.rig.run, part)["told"] == "none"
    host.send_verdict(part, "keep")
    assert host.ok("CANCEL", 1, host.rig.run, part)["told"] == "cancelled"
    assert host.ok("CANCEL", 1, host.rig.run, part)["told"] == "none"
    host.carry_to_eye2(at_ms)
    assert host.gate_actions() == [(part, "divert", "cancelled", 1)]
    host.wait(300)
    second, at_ms = host.count_part()
    host.send_verdict(second, "divert")
    host.ok("CANCEL", 1, host.rig.run, second)
    assert host.send_verdict(second, "keep").fields == ("accepted",)
    host.carry_to_eye2(at_ms)
    assert host.gate_actions()[-1] == (second, "pass", "verdict", 0)


def test_a_verdict_is_answered_by_what_the_part_is(host: ProtocolHost) -> None:
    host.greet()
    run = host.rig.run
    part, at_ms = host.count_part()
    assert host.send_verdict(part, "divert").fields == ("accepted",)
    assert host.send_verdict(part, "divert").fields == ("same",)
    assert host.send_verdict(part, "keep").fields[0] == "23"
    assert host.error_code("VERDICT", 1, run, part + 1, "keep", 0) == 22
    assert host.error_code("VERDICT", 1, run, 0, "keep", 0) == 22
    assert host.error_code("VERDICT", 1, run + 1, part, "keep", 0) == 21
    assert host.error_code("VERDICT", 1, run, part, "keep", 1) == 2
    assert host.error_code("VERDICT", 1, run, part, "divert", 0) == 2
    assert host.error_code("VERDICT", 1, run, part, "divert", 2) == 10
    host.carry_to_eye2(at_ms)
    assert host.gate_actions() == [(part, "divert", "verdict", 1)]
    assert host.error_code("VERDICT", 1, run, part, "divert", 1) == 20
    assert host.error_code("CANCEL", 1, run, part) == 20
    assert host.rig.swing_count() == 1


def test_verdicts_come_in_any_order(host: ProtocolHost) -> None:
    host.greet()
    parts = []
    for _ in range(3):
        parts.append(host.count_part())
        host.wait(60)
    for (part, _), verdict in zip(reversed(parts), ("keep", "divert", "keep"), strict=True):
        assert host.send_verdict(part, verdict).fields == ("accepted",)
    for _, at_ms in parts:
        host.carry_to_eye2(at_ms)
    assert [(action[1], action[2]) for action in host.gate_actions()] == [("pass", "verdict"), ("divert", "verdict"), ("pass", "verdict")]


def test_consecutive_rejects_keep_the_gate_out(host: ProtocolHost) -> None:
    host.greet(dwell_mm=100)
    parts = []
    for _ in range(3):
        parts.append(host.count_part())
        host.rig.wait(40)
    for part, _ in parts:
        host.send_verdict(part, "divert")
    for _, at_ms in parts:
        host.carry_to_eye2(at_ms)
    assert [(action[1], action[3]) for action in host.gate_actions()] == [("divert", 1), ("divert", 0), ("divert", 0)]
    host.wait(300)
    assert host.rig.swing_count() == 1
    assert host.rig.pulse_us() == 1000


@pytest.mark.parametrize(
    ("verdicts", "policy", "actions", "reasons"),
    [
        (("keep", "keep"), "divert", ("pass", "pass"), ("verdict", "verdict")),
        (("keep", "divert"), "divert", ("divert", "divert"), ("spacing", "verdict")),
        (("divert", "keep"), "divert", ("divert", "divert"), ("verdict", "spacing")),
        (("keep", "divert"), "pass", ("pass", "pass"), ("verdict", "spacing")),
        (("keep", None), "divert", ("divert", "divert"), ("spacing", "no-verdict")),
    ],
)
def test_parts_too_close_for_the_gate_get_one_decision(
    host: ProtocolHost, verdicts: tuple[str | None, ...], policy: str, actions: tuple[str, ...], reasons: tuple[str, ...]
) -> None:
    host.greet(no_verdict=policy, eye_gap_mm=600)
    parts = []
    for _ in verdicts:
        parts.append(host.count_part())
        host.rig.wait(max(0, 45 - (host.rig.now_ms() - parts[-1][1])))
    for (part, _), verdict in zip(parts, verdicts, strict=True):
        if verdict:
            host.send_verdict(part, verdict)
    host.wait_until(parts[0][1] + 600)
    gap = parts[1][1] - parts[0][1]
    assert gap < 60, "the test itself was too slow"
    host.block(2)
    late = host.send_verdict(parts[1][0], "keep")
    assert late.fields[0] == "20", "the cluster is decided when its first part is"
    host.wait_until(parts[1][1] + 600)
    host.block(2)
    host.rig.wait(60)
    assert [(action[1], action[2]) for action in host.gate_actions()] == list(zip(actions, reasons, strict=True))


def test_touching_parts_count_as_one_and_do_not_pass(host: ProtocolHost) -> None:
    host.greet(part_max_mm=50)
    at_ms = host.rig.now_ms()
    host.block(1, 90)
    host.send_verdict(1, "keep")
    host.wait_until(at_ms + 300)
    host.block(2, 90)
    host.rig.wait(40)
    assert host.gate_actions() == [(1, "divert", "touching", 1)]


@pytest.mark.parametrize("length_ms", [1, 3])
def test_what_is_too_short_is_no_part(host: ProtocolHost, length_ms: int) -> None:
    host.greet(part_min_mm=5)
    host.block(1, length_ms)
    host.wait(100)
    assert host.events("PART") == []
    assert host.rig.trigger_count() == 0


def test_a_part_taken_off_is_missing_and_shifts_nothing_behind_it(host: ProtocolHost) -> None:
    host.greet()
    parts = []
    for verdict in ("keep", "divert", "keep"):
        parts.append(host.count_part())
        host.send_verdict(parts[-1][0], verdict)
        host.wait(60)
    host.carry_to_eye2(parts[0][1])
    host.carry_to_eye2(parts[2][1])
    assert [action[:3] for action in host.gate_actions()] == [(1, "pass", "verdict"), (2, "none", "missing"), (3, "pass", "verdict")]
    assert host.rig.swing_count() == 0
    assert host.send_verdict(2, "divert").fields[0] == "20"


def test_a_missing_last_part_is_reported_when_its_window_closes(host: ProtocolHost) -> None:
    host.greet()
    host.count_part()
    host.wait(450)
    assert host.gate_actions() == [(1, "none", "missing", 0)]
    assert host.status("count").number("missing") == 1


def test_an_extra_part_is_unmatched_and_shifts_nothing_behind_it(host: ProtocolHost) -> None:
    host.greet()
    part, at_ms = host.count_part()
    host.send_verdict(part, "keep")
    host.wait_until(at_ms + 150)
    host.block(2)
    host.carry_to_eye2(at_ms)
    assert [action[:3] for action in host.gate_actions()] == [(0, "divert", "unmatched"), (1, "pass", "verdict")]


def test_sixty_four_parts_fit_between_the_eyes_and_one_more_is_a_fault(host: ProtocolHost) -> None:
    host.greet(eye_gap_mm=20000, lost_limit=50)
    room = host.ok("HELLO", 1).number("parts")
    assert room >= 64
    for part in range(1, room + 1):
        host.block(1, 10)
        host.rig.wait(60)
        host.ok("SEEN", 1, host.rig.run, part)
    assert host.status("line").number("tracked") == room
    assert host.send_verdict(room, "keep").fields == ("accepted",)
    host.block(1, 10)
    assert (47, 1, room) in host.faults()


def test_a_report_is_repeated_until_it_is_acknowledged_and_never_after(host: ProtocolHost) -> None:
    host.acknowledges = False
    host.greet()
    _, at_ms = host.count_part()
    host.carry_to_eye2(at_ms)
    host.wait(2300)
    reports = host.events("GATE")
    assert len(reports) >= 3
    assert len({tuple(report.items()) for report in reports}) == 1
    host.ok("ACK", reports[0].number("event"))
    host.ok("ACK", reports[0].number("event"))
    host.received.clear()
    host.wait(2300)
    assert host.events("GATE") == []


def test_a_host_that_comes_back_receives_all_events_that_it_has_not_acknowledged(host: ProtocolHost) -> None:
    host.acknowledges = False
    host.greet()
    for _ in range(3):
        _, at_ms = host.count_part()
        host.carry_to_eye2(at_ms)
        host.wait(200)
    host.ok("ACK", host.events("GATE")[0].number("event"))
    host.received.clear()
    host.ok("HELLO", 1)
    host.rig.wait(100)
    # The board may have repeated the oldest event just before it received HELLO.
    assert list(dict.fromkeys(gate.number("part") for gate in host.events("GATE"))) == [2, 3]


def test_a_full_event_memory_reports_how_many_events_were_lost(host: ProtocolHost) -> None:
    host.acknowledges = False
    host.greet()
    room = host.ok("HELLO", 1).number("events")
    for _ in range(room + 3):
        host.block(2, 10)
        host.rig.wait(60)
        if host.status("line").number("code") == 41:
            host.ok("CLEAR", 1, 41)
    lost = host.status("link").number("lost")
    assert lost >= 3
    host.wait(3000)
    # Acknowledge the newest event, because every acknowledged event must make room, not only the oldest one.
    newest = max(gate.number("event") for gate in host.events("GATE"))
    host.ok("ACK", newest)
    host.ok("HELLO", 1)
    host.wait(3000)
    assert (48, 1, lost) in host.faults()
    assert host.status("link").number("pending") <= room


def test_a_test_swing_is_made_once_for_each_token(host: ProtocolHost) -> None:
    host.greet()
    assert host.ok("TEST", 1, 7, "gate")["told"] == "done"
    assert host.ok("TEST", 1, 7, "gate")["told"] == "same"
    assert host.error_code("TEST", 1, 8, "gate") == 9
    host.wait(1500)
    assert host.rig.swing_count() == 1
    assert host.rig.pulse_us() == 1000
    assert host.ok("TEST", 1, 8, "trigger")["told"] == "done"
    host.rig.wait(30)
    assert host.rig.trigger_count() == 1
    assert host.ok("TEST", 1, 9, "relay")["told"] == "done"
    assert not host.rig.is_relay_closed()
    host.wait(1200)
    assert host.rig.is_relay_closed()
    host.count_part()
    assert host.error_code("TEST", 1, 10, "gate") == 9


@pytest.mark.parametrize("what", ["lamp", "relay"])
def test_a_test_of_the_lane_excludes_other_tests_and_the_command_servo(host: ProtocolHost, what: str) -> None:
    host.greet()
    assert host.ok("TEST", 1, 1, what)["told"] == "done"
    assert host.error_code("TEST", 1, 2, "gate") == 9
    assert host.error_code("SERVO", 1, 1500) == 9
    host.wait(3200)
    assert host.ok("SERVO", 1, 1500)["told"] == "done"


def test_the_encoder_carries_the_parts_where_there_is_one(host: ProtocolHost) -> None:
    host.greet(encoder=1, step_um=500)

    def travel(mm: int) -> None:
        for _ in range(mm):
            host.rig.add_steps(2)
            host.rig.wait(1)

    def pass_eye(which: int) -> None:
        host.rig.set_eye(which, True)
        travel(PART_MS)
        host.rig.set_eye(which, False)

    travel(10)
    pass_eye(1)
    host.send_verdict(1, "divert")
    travel(150)
    host.wait(1000)
    assert host.gate_actions() == []
    travel(130)
    pass_eye(2)
    travel(10)
    assert host.gate_actions() == [(1, "divert", "verdict", 1)]


@pytest.mark.parametrize(("steps", "is_matched"), [(259, False), (260, True), (340, True), (341, False)])
def test_the_window_of_a_part_is_exact_to_one_step(host: ProtocolHost, steps: int, is_matched: bool) -> None:
    """Photo-eye 2 is 300 steps behind photo-eye 1, and the window is 40 steps to each side."""
    host.greet(encoder=1, step_um=1000, eye_gap_mm=300, window_mm=40, part_max_mm=200, encoder_timeout_ms=5000)
    host.rig.set_eye(1, True)
    # A Mega reads its photo-eyes every 0.2 ms.
    host.rig.wait(1)
    host.rig.add_steps(20)
    host.rig.wait(20)
    host.rig.set_eye(1, False)
    host.rig.add_steps(steps - 20)
    host.rig.wait(steps - 20)
    host.rig.set_eye(2, True)
    host.wait(20)
    host.rig.add_steps(200)
    host.rig.wait(200)
    host.wait(20)
    first = host.gate_actions()[0]
    assert (first[0] == 1 and first[2] == "no-verdict") == is_matched


def walk(host: ProtocolHost, edges: list[tuple[int, int, bool]]) -> None:
    """Turns the encoder step by step. Each edge is the step at which a photo-eye is blocked or becomes free: step, photo-eye, blocked."""
    now = 0
    for step, eye, blocked in sorted(edges):
        host.rig.add_steps(step - now)
        host.rig.wait((step - now) // 20 + 2)
        now = step
        host.rig.set_eye(eye, blocked)
        # The edge is stored before the next step, and counts after debounce_us.
        host.rig.wait(2)
        host.ok("PING", 0)


def passing(eye: int, step: int) -> list[tuple[int, int, bool]]:
    return [(step, eye, True), (step + 20, eye, False)]


SPACED: dict[str, SettingValue] = {
    "encoder": 1,
    "step_um": 1000,
    "eye_gap_mm": 300,
    "window_mm": 10,
    "spacing_mm": 60,
    "encoder_timeout_ms": 5000,
}


@pytest.mark.parametrize(("distance", "reasons"), [(59, ["verdict", "spacing"]), (60, ["verdict", "verdict"])])
def test_the_spacing_of_two_parts_is_exact_to_one_step(host: ProtocolHost, distance: int, reasons: list[str]) -> None:
    host.greet(**SPACED)
    walk(host, passing(1, 10) + passing(1, 10 + distance))
    host.send_verdict(1, "divert")
    host.send_verdict(2, "keep")
    before = 10 + distance + 20
    walk(host, [(step - before, eye, level) for step, eye, level in passing(2, 310) + passing(2, 310 + distance)] + passing(1, 600))
    assert [gate.word("reason") for gate in host.gate_events()] == reasons


@pytest.mark.parametrize(("distance", "decision"), [(59, ("pass", "spacing")), (60, ("divert", "unmatched"))])
def test_the_spacing_of_an_uncounted_part_is_exact_to_one_step(host: ProtocolHost, distance: int, decision: tuple[str, str]) -> None:
    host.greet(**SPACED)
    walk(host, passing(1, 10))
    host.send_verdict(1, "keep")
    walk(host, [(step - 30, eye, level) for step, eye, level in passing(2, 310) + passing(2, 310 + distance)] + passing(1, 600))
    last = host.gate_events()[-1]
    assert (last.word("action"), last.word("reason")) == decision


def stop_and_clear(host: ProtocolHost) -> None:
    """Opens and closes the emergency stop, and ends its fault, while the belt stands."""
    host.rig.set_estop(True)
    host.wait(40)
    host.rig.set_estop(False)
    host.wait(40)
    assert host.ok("CLEAR", 1, 45)["told"] == "cleared"


def test_after_a_fault_the_part_before_it_decides_about_no_other(host: ProtocolHost) -> None:
    host.greet(**SPACED)
    walk(host, passing(1, 10))
    host.send_verdict(1, "keep")
    walk(host, [(step - 30, eye, level) for step, eye, level in passing(2, 310)])
    stop_and_clear(host)
    walk(host, [(step - 330, eye, level) for step, eye, level in passing(2, 369)] + passing(1, 300))
    last = host.gate_events()[-1]
    assert (last.word("action"), last.word("reason")) == ("divert", "unmatched")


def test_after_a_fault_unmatched_parts_are_counted_from_zero(host: ProtocolHost) -> None:
    host.greet(**SPACED, lost_limit=3)
    walk(host, passing(1, 350))
    for _ in range(2):
        walk(host, passing(2, 350))
    stop_and_clear(host)
    walk(host, [(400, 2, False), *passing(2, 500)])
    host.wait(50)
    assert host.status("line")["state"] == "running"
    for _ in range(2):
        walk(host, passing(2, 100))
    host.wait(50)
    assert host.status("line")["code"] == 41
