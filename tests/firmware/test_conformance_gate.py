"""The chute's eye confirms diverted parts, the end switch confirms the gate, and a person at the lane ends faults with a push-button."""

from __future__ import annotations

import pytest

from firmware.lane_settings import SettingValue
from firmware.protocol import Fields, read_event
from tests.firmware.protocol_host import ProtocolHost

# The belt travels 150 mm from the moment of the gate until the casting blocks the eye in the chute.
CHUTE: dict[str, SettingValue] = {"chute_mm": 150, "chute_window_mm": 30}
TRAVEL_MS = 300 + 20 + 150


def put_parts(host: ProtocolHost, *distances_ms: int, verdict: str = "divert") -> list[tuple[int, int]]:
    """Lets a part pass photo-eye 1 for each distance to the previous part. Returns the numbers, and the times of the leading edges."""
    parts = []
    at_ms = host.rig.now_ms()
    for distance_ms in distances_ms:
        host.wait_until(at_ms + distance_ms)
        number, at_ms = host.count_part()
        assert host.send_verdict(number, verdict).name == "OK"
        parts.append((number, at_ms))
    return parts


def pass_chute(host: ProtocolHost, at_ms: int) -> None:
    """Blocks the eye in the chute at a time, as a casting does that falls through it."""
    host.wait_until(at_ms)
    host.rig.set_gate_input("chute_eye", True)
    host.rig.wait(15)
    host.rig.set_gate_input("chute_eye", False)
    host.rig.wait(10)


def confirmations(host: ProtocolHost) -> dict[int, int | str | None]:
    """Returns the field `confirmed` of the GATE event of each part, or None if the event does not have the field."""
    return {gate.number("part"): gate.get("confirmed") for gate in host.gate_events()}


def settle(host: ProtocolHost) -> None:
    """Waits until the chute can no longer see the parts of `put_parts`, and the events have been sent."""
    host.wait(400)


def test_a_part_that_the_chutes_eye_sees_is_confirmed(host: ProtocolHost) -> None:
    host.greet(**CHUTE)
    ((part, at_ms),) = put_parts(host, 0)
    host.carry_to_eye2(at_ms)
    host.wait_until(at_ms + TRAVEL_MS - 20)
    assert host.gate_events() == [], "the report waits for the chute's eye"
    pass_chute(host, at_ms + TRAVEL_MS)
    settle(host)
    assert confirmations(host) == {part: 1}
    assert host.gate_actions() == [(part, "divert", "verdict", 1)]
    assert host.faults() == []
    assert (host.status("chute")["seen"], host.status("chute")["unexpected"]) == (1, 0)


def test_the_chutes_eye_switches_like_the_photo_eyes(host: ProtocolHost) -> None:
    for eye in (1, 2):
        host.rig.set_eye(eye, True)
    host.rig.set_gate_input("chute_eye", True)
    host.greet(**CHUTE, eye_light_on=1)
    host.rig.reset("power")
    host.greet(**CHUTE, eye_light_on=1)
    host.wait(400)
    assert host.status("chute")["chute_eye"] == 0
    at_ms = host.rig.now_ms()
    for eye in (1, 2):
        host.wait_until(at_ms + 300 * (eye - 1))
        host.rig.set_eye(eye, False)
        host.rig.wait(20)
        host.rig.set_eye(eye, True)
    host.wait_until(at_ms + TRAVEL_MS)
    host.rig.set_gate_input("chute_eye", False)
    host.rig.wait(15)
    assert host.status("chute")["chute_eye"] == 1
    host.rig.set_gate_input("chute_eye", True)
    settle(host)
    assert confirmations(host) == {1: 1}
    assert (host.status("chute")["seen"], host.status("chute")["unexpected"]) == (1, 0)
    assert host.faults() == []


def test_a_change_of_how_the_eyes_switch_is_no_casting_in_the_chute(host: ProtocolHost) -> None:
    host.greet(**CHUTE)
    for light_on in (1, 0, 1):
        host.configure(1, **CHUTE, eye_light_on=light_on)
        host.wait(100)
        assert host.status("chute")["chute_eye"] == light_on
    assert (host.status("chute")["seen"], host.status("chute")["unexpected"]) == (0, 0)


def test_a_part_that_the_chutes_eye_does_not_see_stops_the_line(host: ProtocolHost) -> None:
    host.greet(**CHUTE)
    ((part, at_ms),) = put_parts(host, 0)
    host.carry_to_eye2(at_ms)
    host.wait_until(at_ms + TRAVEL_MS)
    settle(host)
    assert confirmations(host) == {part: 0}
    assert host.faults() == [(55, 1, part)]
    assert host.status("line")["state"] == "stopped"
    assert not host.rig.is_relay_closed()
    assert host.status("chute")["unconfirmed"] == 1
    assert host.ok("CLEAR", 1, 55)["told"] == "cleared"
    assert host.rig.is_relay_closed()


def test_the_casting_that_is_lost_between_two_others_is_the_one_without_confirmation(host: ProtocolHost) -> None:
    host.greet(chute_mm=300, chute_window_mm=60)
    parts = put_parts(host, 0, 80, 80)
    for _, at_ms in parts:
        host.carry_to_eye2(at_ms)
    pass_chute(host, parts[0][1] + TRAVEL_MS + 150 + 20)
    pass_chute(host, parts[2][1] + TRAVEL_MS + 150 - 35)
    settle(host)
    assert confirmations(host) == {1: 1, 2: 0, 3: 1}
    assert host.faults() == [(55, 1, 2)]


@pytest.mark.parametrize(("steps", "confirmed"), [(439, 0), (440, 1), (500, 1), (501, 0)])
def test_the_window_at_the_chute_is_exact_to_one_step(host: ProtocolHost, steps: int, confirmed: int) -> None:
    """The part is expected at the chute's eye 470 steps behind photo-eye 1. The window is 30 steps to each side."""
    host.greet(encoder=1, encoder_timeout_ms=5000, **CHUTE)

    def travel(count: int) -> None:
        host.rig.add_steps(count)
        host.rig.wait(count)

    host.rig.set_eye(1, True)
    host.rig.wait(1)
    travel(20)
    host.rig.set_eye(1, False)
    host.send_verdict(1, "divert")
    travel(280)
    host.rig.set_eye(2, True)
    host.rig.wait(5)
    travel(15)
    host.rig.set_eye(2, False)
    travel(steps - 315)
    host.rig.set_gate_input("chute_eye", True)
    host.wait(20)
    host.rig.set_gate_input("chute_eye", False)
    host.wait(20)
    travel(100)
    host.wait(20)
    assert confirmations(host) == {1: confirmed}


def test_a_part_that_passes_and_a_line_without_the_eye_have_no_confirmation(host: ProtocolHost) -> None:
    host.greet(**CHUTE)
    ((part, at_ms),) = put_parts(host, 0, verdict="keep")
    host.carry_to_eye2(at_ms)
    settle(host)
    host.greet()
    ((other, at_ms),) = put_parts(host, 0)
    host.carry_to_eye2(at_ms)
    settle(host)
    assert confirmations(host) == {part: None, other: None}
    assert host.faults() == []


def test_a_lost_report_is_sent_again_although_older_reports_wait_for_the_chute(host: ProtocolHost) -> None:
    host.acknowledges = False
    host.greet(chute_mm=9000, chute_window_mm=30, spacing_mm=0)
    for _ in range(4):
        ((_, at_ms),) = put_parts(host, 0)
        host.carry_to_eye2(at_ms)
    ((part, at_ms),) = put_parts(host, 0, verdict="keep")
    host.carry_to_eye2(at_ms)
    host.wait(2300)
    reported = [gate.number("part") for gate in host.events("GATE")]
    assert len(reported) >= 2
    assert set(reported) == {part}


def test_a_host_that_does_not_know_the_field_gets_frames_without_it(host: ProtocolHost) -> None:
    host.greet(**CHUTE)
    host.ok("HELLO", 1)
    ((part, at_ms),) = put_parts(host, 0)
    host.carry_to_eye2(at_ms)
    pass_chute(host, at_ms + TRAVEL_MS)
    settle(host)
    frames = [frame for frame in host.received if frame.name == "GATE"]
    assert {len(frame.fields) for frame in frames} == {10}
    assert confirmations(host) == {part: None}


def test_a_casting_in_the_chute_that_nobody_diverted_is_counted(host: ProtocolHost) -> None:
    host.greet(**CHUTE)
    put_parts(host, 0, verdict="keep")
    host.carry_to_eye2(host.rig.now_ms() - 22)
    pass_chute(host, host.rig.now_ms() + 50)
    chute = host.status("chute")
    assert (chute["seen"], chute["unexpected"], chute["unconfirmed"]) == (1, 1, 0)
    assert host.faults() == []


def test_a_fault_that_holds_the_gate_reports_the_parts_before_the_chute(host: ProtocolHost) -> None:
    host.greet(**CHUTE)
    ((part, at_ms),) = put_parts(host, 0)
    host.carry_to_eye2(at_ms)
    host.rig.set_estop(True)
    host.wait(100)
    assert confirmations(host) == {part: 0}
    assert [code for code, _, _ in host.faults()] == [45]


def test_a_casting_that_left_the_chutes_eye_before_the_commit_hides_no_other(host: ProtocolHost) -> None:
    """The encoder counts only from the `COMMIT` on, so the place of the belt then jumps back."""
    host.rig.set_gate_input("chute_eye", True)
    host.rig.wait(20)
    host.rig.set_gate_input("chute_eye", False)
    host.rig.wait(20)
    travel(host, -800)
    host.greet(encoder=1, encoder_timeout_ms=5000, **CHUTE)
    host.rig.set_eye(1, True)
    travel(host, 20)
    host.rig.set_eye(1, False)
    host.send_verdict(1, "divert")
    travel(host, 280)
    host.rig.set_eye(2, True)
    travel(host, 20)
    host.rig.set_eye(2, False)
    travel(host, 150)
    host.rig.set_gate_input("chute_eye", True)
    travel(host, 20)
    host.rig.set_gate_input("chute_eye", False)
    travel(host, 60)
    host.wait(50)
    assert confirmations(host) == {1: 1}
    assert host.faults() == []


def travel(host: ProtocolHost, steps: int) -> None:
    """Turns the encoder, which gives 20 steps in a millisecond, and waits until the board has read the inputs."""
    host.rig.add_steps(steps)
    host.rig.wait(abs(steps) // 20 + 20)


def test_more_parts_before_the_chute_than_the_board_can_follow_are_a_fault(host: ProtocolHost) -> None:
    host.greet(chute_mm=5000, chute_window_mm=30, spacing_mm=0)
    for number in range(1, 10):
        ((_, at_ms),) = put_parts(host, 0)
        assert [fault[:2] for fault in host.faults()] == [], f"there is room for part {number}"
        host.carry_to_eye2(at_ms)
    settle(host)
    assert host.faults() == [(47, 1, 9)]
    assert confirmations(host) == dict.fromkeys(range(1, 10), 0)


def test_commit_warns_of_a_chute_that_is_too_far(host: ProtocolHost) -> None:
    host.greet(chute_mm=450, chute_window_mm=30, spacing_mm=60)
    assert "warning" not in host.ok("COMMIT", 1)
    host.greet(chute_mm=451, chute_window_mm=30, spacing_mm=60)
    assert host.ok("COMMIT", 1)["warning"] == "chute-far"


def test_a_further_gate_has_a_chute_of_its_own(host: ProtocolHost) -> None:
    host.greet(**CHUTE)
    host.configure(2, lane_of=1, gate_mm=120, use_servo_power=0, **CHUTE)
    ((part, at_ms),) = put_parts(host, 0)
    ((other, other_at_ms),) = put_parts(host, 100, verdict="keep")
    host.ok("CANCEL", 1, host.rig.run, part)
    assert host.send_verdict(part, "divert", gate=2).name == "OK"
    host.carry_to_eye2(at_ms)
    host.carry_to_eye2(other_at_ms)
    host.wait_until(at_ms + 300 + 120 + 150)
    host.rig.set_gate_input("chute_eye", True, lane=2)
    host.rig.wait(15)
    host.rig.set_gate_input("chute_eye", False, lane=2)
    settle(host)
    assert confirmations(host) == {other: None, part: 1}
    assert {gate.number("part"): gate.get("gate") for gate in host.gate_events()} == {other: None, part: 2}
    assert host.faults() == []


# Chute full


def test_a_full_chute_stops_the_line_until_it_has_room(host: ProtocolHost) -> None:
    host.greet(chute_full_ms=200)
    host.rig.set_gate_input("chute_full", True)
    host.wait(150)
    host.rig.set_gate_input("chute_full", False)
    host.wait(150)
    assert host.faults() == [], "castings that fall past the sensor are no full chute"
    host.rig.set_gate_input("chute_full", True)
    host.wait(300)
    assert host.faults() == [(56, 1, 0)]
    assert host.status("line")["state"] == "stopped"
    assert host.error_code("CLEAR", 1, 56) == 12
    host.rig.set_gate_input("chute_full", False)
    host.wait(50)
    assert host.ok("CLEAR", 1, 56)["told"] == "cleared"


def test_inputs_that_the_settings_do_not_name_change_nothing(host: ProtocolHost) -> None:
    host.greet()
    for what in ("end_switch", "chute_eye", "chute_full", "button"):
        host.rig.set_gate_input(what, what != "end_switch")
    host.wait(600)
    assert host.faults() == []
    chute = host.status("chute")
    assert tuple(chute[name] for name in ("at_end", "chute_eye", "chute_full", "button")) == (0, 1, 1, 1)


# End switch. Its limit is 2 x 40 ms and 100 ms.


def test_a_gate_that_reaches_both_ends_is_no_fault(host: ProtocolHost) -> None:
    host.greet(use_end_switch=1)
    host.wait(50)
    host.ok("TEST", 1, 1, "gate")
    for still_ms in (900, 300):
        host.rig.set_gate_input("end_switch", False)
        host.rig.wait(60)
        host.rig.set_gate_input("end_switch", True)
        host.wait(still_ms)
    assert host.faults() == []


@pytest.mark.parametrize("leaves", [False, True])
def test_a_gate_that_does_not_reach_the_other_end_stops_the_line(host: ProtocolHost, leaves: bool) -> None:
    host.greet(use_end_switch=1)
    host.wait(50)
    host.ok("TEST", 1, 1, "gate")
    if leaves:
        host.rig.set_gate_input("end_switch", False)
    host.wait(300)
    assert host.faults() == [(54, 1, 2 if leaves else 1)]
    assert host.status("line")["state"] == "stopped"
    if leaves:
        assert host.error_code("CLEAR", 1, 54) == 12
        host.rig.set_gate_input("end_switch", True)
        host.wait(50)
    assert host.ok("CLEAR", 1, 54)["told"] == "cleared"


def test_a_short_pulse_at_the_end_switch_hides_no_jammed_gate(host: ProtocolHost) -> None:
    host.greet(use_end_switch=1)
    host.wait(50)
    host.ok("TEST", 1, 1, "gate")
    host.rig.wait(30)
    host.rig.disturb("end_switch", 5000)
    host.wait(300)
    assert host.faults() == [(54, 1, 1)]


@pytest.mark.parametrize("servo_ms", [40, 80])
def test_a_gate_that_never_leaves_its_end_is_found_while_it_sorts(host: ProtocolHost, servo_ms: int) -> None:
    """The gate is told to return before its time limit is over: after `dwell_mm`, or after `servo_ms` if that is longer."""
    host.greet(use_end_switch=1, servo_ms=servo_ms, dwell_mm=60)
    host.wait(50)
    ((_, at_ms),) = put_parts(host, 0)
    host.carry_to_eye2(at_ms)
    host.wait(100)
    assert host.faults() == [(54, 1, 1)]
    assert host.status("line")["state"] == "stopped"


def test_a_gate_that_turns_back_before_it_has_left_its_end_is_no_fault(host: ProtocolHost) -> None:
    """Two diverted parts follow each other so closely that the gate begins to return and goes out again 10 ms later."""
    host.greet(use_end_switch=1, spacing_mm=30, dwell_mm=250, eye_gap_mm=600)
    parts = put_parts(host, 0, 260)
    for number, (_, at_ms) in enumerate(parts, 1):
        host.wait_until(at_ms + 600)
        host.block(2)
        if number == 1:
            leave_end(host)
    # The gate now stays out for longer than its time limit, and its switch has not opened since the first part.
    host.wait_until(parts[1][1] + 600 + 20 + 250 + 2)
    leave_end(host)
    host.wait(400)
    assert [moved for *_, moved in host.gate_actions()] == [1, 1]
    assert host.faults() == []


def leave_end(host: ProtocolHost) -> None:
    """Opens the end switch for the time in which the gate swings."""
    host.rig.set_gate_input("end_switch", False)
    host.rig.wait(30)
    host.rig.set_gate_input("end_switch", True)


# The push-button


def press(host: ProtocolHost, ms: int) -> None:
    host.rig.set_gate_input("button", True)
    for _ in range(ms // 100):
        host.wait(100)
    host.rig.wait(ms % 100 or 1)
    host.rig.set_gate_input("button", False)
    host.wait(150)


def ends(host: ProtocolHost) -> list[tuple[int, int]]:
    """Returns code and detail of each fault that has ended."""
    return [(code, detail) for code, raised, detail in host.faults() if not raised]


def stop_the_line(host: ProtocolHost, **settings: SettingValue) -> None:
    """Raises fault 45, whose cause is then gone."""
    host.greet(use_button=1, **settings)
    host.rig.set_estop(True)
    host.wait(50)
    host.rig.set_estop(False)
    host.wait(50)
    assert [code for code, _, _ in host.faults()] == [45]


def test_a_short_press_ends_the_lanes_faults_and_the_event_says_so(host: ProtocolHost) -> None:
    stop_the_line(host)
    press(host, 200)
    assert ends(host) == [(45, 1)]
    assert host.status("line")["state"] == "running"


def test_the_end_of_a_fault_by_the_host_has_another_detail(host: ProtocolHost) -> None:
    stop_the_line(host)
    host.ok("CLEAR", 1, 45)
    host.wait(100)
    assert ends(host) == [(45, 0)]


@pytest.mark.parametrize("ms", [30, 3500])
def test_a_bounce_and_a_long_press_do_nothing(host: ProtocolHost, ms: int) -> None:
    stop_the_line(host)
    press(host, ms)
    assert ends(host) == []


def test_a_button_that_is_stuck_since_the_reset_does_nothing(host: ProtocolHost) -> None:
    stop_the_line(host)
    host.rig.set_gate_input("button", True)
    host.rig.reset("power")
    host.received.clear()
    host.greet(use_button=1)
    host.rig.set_gate_input("button", False)
    host.wait(200)
    assert ends(host) == []
    assert host.status("line")["code"] == 45
    press(host, 200)
    assert ends(host) == [(45, 1)]


def test_a_press_does_not_end_a_fault_whose_cause_is_still_there(host: ProtocolHost) -> None:
    stop_the_line(host)
    host.rig.set_estop(True)
    host.wait(50)
    press(host, 200)
    assert ends(host) == []


def test_a_button_that_is_not_set_does_nothing(host: ProtocolHost) -> None:
    stop_the_line(host)
    host.ok("CONFIGURE", 1, "use_button", 0)
    host.ok("COMMIT", 1)
    press(host, 200)
    assert ends(host) == []


def test_the_led_at_the_pin_of_a_button_is_no_press(host: ProtocolHost) -> None:
    """Without button, the pin of lane 4 is an output for the LED, which is dark in the first half of each 1024 ms."""
    host.ok("HELLO", 1)
    host.configure_uncommitted(4, use_button=0)
    levels = []
    for _ in range(12):
        host.wait(100)
        levels.append(host.ok("STATUS", 4, "chute")["button"])
    assert levels == [0] * 12
    host.configure_uncommitted(4, use_button=1, autostart=0)
    host.wait_until(host.rig.now_ms() // 1024 * 1024 + 1024 + 300)
    host.ok("COMMIT", 4)
    host.wait(200)
    assert host.faults() == [(52, 1, 0)]
    host.rig.set_gate_input("button", True, lane=4)
    host.wait(200)
    host.rig.set_gate_input("button", False, lane=4)
    host.wait(150)
    assert host.faults() == [(52, 1, 0), (52, 0, 1)]


@pytest.mark.parametrize("lane", [1, 4])
def test_a_button_that_is_pressed_when_it_is_set_counts_only_when_it_is_pressed_again(host: ProtocolHost, lane: int) -> None:
    host.ok("HELLO", 1)
    host.rig.set_gate_input("button", True, lane=lane)
    host.wait(200)
    host.configure(lane, use_button=1, autostart=0)
    host.wait(200)
    host.rig.set_gate_input("button", False, lane=lane)
    host.wait(150)
    assert ends(host) == []
    host.rig.set_gate_input("button", True, lane=lane)
    host.wait(200)
    host.rig.set_gate_input("button", False, lane=lane)
    host.wait(150)
    assert ends(host) == [(52, 1)]


def test_a_missed_casting_waits_for_a_person_over_a_reset(host: ProtocolHost) -> None:
    host.greet(use_button=1, **CHUTE)
    ((_, at_ms),) = put_parts(host, 0)
    host.carry_to_eye2(at_ms)
    host.wait_until(at_ms + TRAVEL_MS)
    settle(host)
    host.rig.reset("power")
    assert not host.rig.is_relay_closed()
    host.received.clear()
    host.greet(use_button=1, **CHUTE)
    host.wait(60)
    assert host.status("line")["code"] == 55
    assert not host.rig.is_relay_closed()
    press(host, 200)
    assert ends(host) == [(55, 1)]
    assert host.rig.is_relay_closed()


def test_the_longest_gate_event_has_the_field(host: ProtocolHost) -> None:
    fields = ("65535", "4", "65535", "99999999", "divert", "no-verdict", "1", "65535", "4294967295", "65535", "0", "1")
    assert read_event("GATE", fields) == Fields(read_event("GATE", fields[:10])) | {"gate": 0, "confirmed": 1}
