"""The interlock, the bypass key and the plant interface work on every board as firmware/PROTOCOL.md and docs/plant-interface.md say."""

from __future__ import annotations

from itertools import pairwise

import pytest

from firmware.lane_settings import SettingValue
from tests.firmware.protocol_host import ProtocolHost
from tests.firmware.rigs import STORING_MS

REJECTS_IN_A_ROW, BYPASS = 57, 58


def greet_with_plant(host: ProtocolHost, **settings: SettingValue) -> None:
    """Configures lane 1 with its plant interface. The key is off and the button is free."""
    host.rig.set_bypass(False)
    host.rig.set_reset_button(False)
    host.greet(use_plant=1, **settings)


def turn_key(host: ProtocolHost, is_on: bool) -> None:
    host.rig.set_bypass(is_on)
    host.wait(60)


def send_part(host: ProtocolHost, verdict: str | None) -> int:
    """Lets a part with a verdict pass both photo-eyes. With None, the part gets no verdict. Returns its number."""
    part, at_ms = host.count_part()
    if verdict is not None:
        host.send_verdict(part, verdict)
    host.carry_to_eye2(at_ms)
    return part


# The interlock


@pytest.mark.parametrize("verdict", ["divert", None])
def test_the_line_stops_after_rejects_in_a_row(host: ProtocolHost, verdict: str | None) -> None:
    host.greet(reject_limit=3, no_verdict="pass", run_down_mm=100)
    for _ in range(2):
        send_part(host, verdict)
    assert host.rig.is_relay_closed()
    last = send_part(host, verdict)
    host.wait(150)
    assert (REJECTS_IN_A_ROW, 1, 3) in host.faults()
    line = host.status("line")
    assert (line["state"], line["code"], line["lamp"]) == ("stopped", REJECTS_IN_A_ROW, "red")
    assert not host.rig.is_relay_closed()
    if verdict == "divert":
        # The belt runs down, so the gate still diverts the last part.
        assert host.gate_actions()[-1][:3] == (last, "divert", "verdict")


def test_a_good_part_begins_the_count_again(host: ProtocolHost) -> None:
    host.greet(reject_limit=3)
    for verdict in ("divert", None, "keep", None, "divert", "keep"):
        send_part(host, verdict)
    host.wait(100)
    assert host.faults() == []
    assert host.status("plant")["rejects"] == 0


def test_a_stopped_line_waits_for_a_person_even_over_a_reset(host: ProtocolHost) -> None:
    host.greet(reject_limit=2)
    for _ in range(2):
        send_part(host, "divert")
    host.wait(100)
    host.ok("HELLO", 1)
    host.wait(300)
    assert host.status("line")["state"] == "stopped", "a host must not end the fault"
    host.rig.reset("power")
    host.received.clear()
    host.greet(reject_limit=2)
    host.wait(100)
    assert host.status("line")["code"] == REJECTS_IN_A_ROW
    assert not host.rig.is_relay_closed()
    assert host.ok("CLEAR", 1, REJECTS_IN_A_ROW)["told"] == "cleared"
    host.wait(100)
    assert host.rig.is_relay_closed()
    send_part(host, "divert")
    host.wait(100)
    assert host.status("line")["state"] == "running", "the count must begin again"


def test_without_a_limit_no_number_of_rejects_stops_the_line(host: ProtocolHost) -> None:
    host.greet()
    for _ in range(6):
        send_part(host, "divert")
    host.wait(100)
    assert host.faults() == []
    assert host.rig.is_relay_closed()


# The bypass key


def test_with_the_key_all_parts_pass_and_are_reported(host: ProtocolHost) -> None:
    greet_with_plant(host)
    turn_key(host, True)
    assert (BYPASS, 1, 0) in host.faults()
    line, plant = host.status("line"), host.status("plant")
    assert (line["state"], line["code"], line["lamp"]) == ("safe", BYPASS, "yellow")
    assert (plant["bypass"], plant["ready"]) == (1, 0)
    parts = [send_part(host, verdict) for verdict in ("divert", None)]
    host.wait(100)
    assert host.gate_actions() == [(part, "pass", "safe", 0) for part in parts]
    assert host.rig.swing_count() == 0
    assert host.error_code("CLEAR", 1, BYPASS) == 13
    assert host.error_code("TEST", 1, 1, "gate") == 12
    turn_key(host, False)
    assert (BYPASS, 0, 0) in host.faults()
    assert host.status("line")["state"] == "running"
    assert send_part(host, "divert") == 3
    host.wait(100)
    assert host.gate_actions()[-1] == (3, "divert", "verdict", 1)


def test_the_lamp_blinks_while_the_key_is_on(host: ProtocolHost) -> None:
    greet_with_plant(host)
    turn_key(host, True)
    lit = []
    for _ in range(24):
        host.wait(100)
        lit.append(host.rig.is_lamp_lit("yellow"))
        assert not host.rig.is_lamp_lit("green")
    assert 8 <= sum(lit) <= 16
    turn_key(host, False)
    for _ in range(10):
        host.wait(100)
        assert host.rig.is_lamp_lit("green")


@pytest.mark.parametrize("safe", ["divert", "stop"])
def test_the_key_releases_a_line_that_a_fault_holds(host: ProtocolHost, safe: str) -> None:
    """The supply of the servo fails, so the belt stands or the gate is out. With the key, the belt runs and the gate is at rest."""
    greet_with_plant(host, safe=safe)
    host.rig.set_servo_power(False)
    host.wait(100)
    turn_key(host, True)
    host.wait(60)
    assert host.rig.is_relay_closed()
    assert host.rig.pulse_us() == 1000
    turn_key(host, False)
    host.wait(60)
    assert host.rig.is_relay_closed() is (safe != "stop")
    assert host.rig.pulse_us() == (2000 if safe == "divert" else 1000)
    assert host.status("line")["code"] == 44


def test_the_key_does_not_release_the_emergency_stop(host: ProtocolHost) -> None:
    greet_with_plant(host, safe="stop")
    turn_key(host, True)
    host.rig.set_estop(True)
    host.wait(100)
    assert not host.rig.is_relay_closed()


def test_the_key_works_without_a_host(host: ProtocolHost) -> None:
    """After a power cut nothing greets the board, because the computer is broken."""
    greet_with_plant(host, safe="divert")
    host.rig.set_bypass(True)
    host.rig.reset("power")
    host.rig.wait(150)
    assert host.rig.pulse_us() == 1000
    assert host.rig.is_relay_closed()
    host.rig.set_bypass(False)
    host.rig.wait(150)
    assert host.rig.pulse_us() == 2000, "without key, the gate is held as the setting safe says"
    host.received.clear()
    host.ok("HELLO", 1)
    host.wait(100)
    assert [fault[:2] for fault in host.faults()] == [(BYPASS, 1), (BYPASS, 0)]


def test_the_key_stops_the_diversion_of_parts_before_the_gate(host: ProtocolHost) -> None:
    greet_with_plant(host, gate_mm=150)
    part, at_ms = host.count_part()
    host.send_verdict(part, "divert")
    host.carry_to_eye2(at_ms)
    turn_key(host, True)
    host.wait(150)
    assert host.gate_actions() == [(part, "pass", "safe", 0)]


def test_the_key_also_holds_a_further_gate_at_rest(host: ProtocolHost) -> None:
    greet_with_plant(host, safe="divert")
    host.configure(2, lane_of=1, gate_mm=120, safe="divert")
    host.rig.set_estop(True)
    host.wait(100)
    assert host.rig.pulse_us(2) == 2000
    turn_key(host, True)
    host.wait(60)
    assert host.rig.pulse_us(2) == 1000


def test_a_part_on_its_way_to_an_additional_gate_passes_and_is_reported_so(host: ProtocolHost) -> None:
    greet_with_plant(host)
    host.configure(2, lane_of=1, gate_mm=200)
    part, at_ms = host.count_part()
    assert host.send_verdict(part, "divert", gate=2).fields == ("accepted",)
    host.carry_to_eye2(at_ms)
    turn_key(host, True)
    host.wait(200)
    assert host.gate_actions() == [(part, "pass", "safe", 0)]
    assert "gate" not in host.gate_events()[0]
    counts = host.status("count")
    assert (counts["diverted"], counts["passed"]) == (0, 1)


def test_rejects_during_the_bypass_do_not_stop_the_line(host: ProtocolHost) -> None:
    greet_with_plant(host, reject_limit=2)
    turn_key(host, True)
    for _ in range(3):
        send_part(host, None)
    turn_key(host, False)
    assert [fault[0] for fault in host.faults()] == [BYPASS, BYPASS]


def test_a_lane_without_plant_interface_has_no_key(host: ProtocolHost) -> None:
    host.greet()
    turn_key(host, True)
    assert host.faults() == []
    assert send_part(host, "divert") == 1
    host.wait(100)
    assert host.gate_actions() == [(1, "divert", "verdict", 1)]


def test_pulses_at_the_key_change_nothing(host: ProtocolHost) -> None:
    greet_with_plant(host)
    for ms in (1, 5, 20):
        for is_on in (True, False):
            host.rig.set_bypass(is_on)
            host.rig.set_reset_button(is_on)
            host.rig.wait(ms if is_on else ms + 5)
    host.wait(100)
    assert host.faults() == []


# The pins


def test_the_plant_interface_and_the_lane_whose_pins_it_takes_exclude_each_other(host: ProtocolHost) -> None:
    greet_with_plant(host)
    host.configure_uncommitted(3)
    assert host.error_code("COMMIT", 3) == 8
    host.greet(use_plant=0)
    host.configure_uncommitted(3)
    host.ok("COMMIT", 3)
    host.configure_uncommitted(1, use_plant=1)
    assert host.error_code("COMMIT", 1) == 8


def test_a_stored_plant_interface_keeps_its_pins(host: ProtocolHost) -> None:
    greet_with_plant(host)
    host.rig.reset("power")
    host.ok("HELLO", 1)
    host.configure_uncommitted(3)
    assert host.error_code("COMMIT", 3) == 8


@pytest.mark.parametrize("lane", [3, 4])
def test_lanes_3_and_4_have_no_plant_interface(host: ProtocolHost, lane: int) -> None:
    host.greet()
    host.configure_uncommitted(lane, use_plant=1)
    assert host.error_code("COMMIT", lane) == 8


# The signals of the handshake


def watch(host: ProtocolHost, ms: int) -> list[dict[str, bool]]:
    """Returns the levels of the outputs in each of the next milliseconds."""
    levels = []
    for _ in range(ms):
        host.rig.wait(1)
        levels.append({signal: host.rig.plant_level(signal) for signal in ("ready", "busy", "result_valid", "reject", "heartbeat")})
    return levels


def edges(levels: list[dict[str, bool]], signal: str) -> list[int]:
    """Returns the milliseconds at which a signal changes."""
    return [ms for ms in range(1, len(levels)) if levels[ms][signal] != levels[ms - 1][signal]]


@pytest.mark.parametrize(("verdict", "is_reject"), [("divert", True), ("keep", False)])
def test_a_result_lasts_for_its_time_and_reject_is_stable_around_it(host: ProtocolHost, verdict: str, is_reject: bool) -> None:
    host.rig.watch_servo_levels()
    greet_with_plant(host, result_ms=40)
    part, at_ms = host.count_part()
    host.send_verdict(part, verdict)
    assert host.rig.plant_level("busy")
    host.wait_until(at_ms + 300)
    host.rig.set_eye(2, True)
    levels = watch(host, 120)
    host.rig.set_eye(2, False)
    rise, fall = edges(levels, "result_valid")
    assert levels[rise]["result_valid"]
    # The part is at its gate 20 ms after photo-eye 2. The result is valid 5 ms later.
    assert 24 <= rise <= 28
    assert 39 <= fall - rise <= 41
    assert [level["reject"] for level in levels[rise - 4 : fall + 4]] == [is_reject] * (fall - rise + 8)
    assert not levels[-1]["reject"]
    host.wait(60)
    assert not host.rig.plant_level("busy")


def test_results_of_close_parts_follow_each_other_in_order(host: ProtocolHost) -> None:
    """The parts of a cluster follow each other every 30 ms, and each result takes 110 ms."""
    host.rig.watch_servo_levels()
    greet_with_plant(host, result_ms=100, spacing_mm=0)
    begin_ms = host.rig.now_ms()
    verdicts = ("divert", "keep", "divert")
    for number in range(3):
        host.wait_until(begin_ms + 30 * number)
        host.block(1, 12)
    for number, verdict in enumerate(verdicts, 1):
        host.send_verdict(number, verdict)
    for number in range(3):
        host.wait_until(begin_ms + 300 + 30 * number)
        host.block(2, 12)
    levels = watch(host, 400)
    found = edges(levels, "result_valid")
    rises = [ms for ms in found if levels[ms]["result_valid"]]
    first = [levels[0]["reject"]] if levels[0]["result_valid"] else []
    assert [*first, *(levels[ms]["reject"] for ms in rises)] == [True, False, True]


def test_missing_parts_and_removed_parts_give_no_result(host: ProtocolHost) -> None:
    greet_with_plant(host)
    host.count_part()
    levels = watch(host, 400)
    assert edges(levels, "result_valid") == []
    host.count_part()
    host.rig.set_estop(True)
    levels = watch(host, 400)
    assert edges(levels, "result_valid") == []


def test_ready_says_that_castline_sorts(host: ProtocolHost) -> None:
    greet_with_plant(host)
    host.wait(60)
    assert host.rig.plant_level("ready")
    assert not host.rig.plant_level("fault")
    host.rig.wait(2100)
    assert not host.rig.plant_level("ready"), "the host is silent"
    assert not host.rig.plant_level("fault")
    host.ok("HELLO", 1)
    host.wait(60)
    assert host.rig.plant_level("ready")
    host.rig.set_estop(True)
    host.wait(60)
    assert not host.rig.plant_level("ready")
    assert host.rig.plant_level("fault")


def test_the_heartbeat_has_a_period_of_a_second_and_stands_without_a_host(host: ProtocolHost) -> None:
    greet_with_plant(host, host_timeout_ms=10000)
    levels = watch(host, 2600)
    changes = edges(levels, "heartbeat")
    assert len(changes) == 5
    # The firmware changes slow outputs every 16 ms.
    assert all(480 <= later - earlier <= 520 for earlier, later in pairwise(changes))
    greet_with_plant(host, host_timeout_ms=300)
    host.rig.wait(400)
    assert edges(watch(host, 1200), "heartbeat") == []
    assert not host.rig.plant_level("heartbeat")


def test_the_reset_button_ends_faults_whose_causes_are_gone(host: ProtocolHost) -> None:
    greet_with_plant(host)
    host.rig.set_estop(True)
    host.wait(100)
    press_reset(host)
    assert host.status("line")["code"] == 45, "the emergency stop is still open"
    host.rig.set_estop(False)
    host.wait(100)
    press_reset(host)
    host.wait(60)
    assert host.status("line")["state"] == "running"
    assert (45, 0, 1) in host.faults(), "the detail must say that a person has ended the fault"


def press_reset(host: ProtocolHost) -> None:
    host.rig.set_reset_button(True)
    host.wait(150)
    host.rig.set_reset_button(False)
    host.wait(150)


def test_the_buzzer_sounds_until_a_person_has_pressed_the_button(host: ProtocolHost) -> None:
    greet_with_plant(host)
    assert count_buzzes(host) == 0
    host.rig.set_estop(True)
    host.wait(60)
    assert 7 <= count_buzzes(host) <= 13
    press_reset(host)
    assert host.status("line")["code"] == 45
    assert count_buzzes(host) == 0
    host.rig.set_servo_power(False)
    host.wait(60)
    assert 7 <= count_buzzes(host) <= 13, "a new fault sounds again"


def test_a_reset_button_that_is_stuck_since_the_start_ends_no_fault(host: ProtocolHost) -> None:
    greet_with_plant(host)
    host.rig.set_estop(True)
    host.wait(STORING_MS)
    host.rig.set_estop(False)
    host.wait(50)
    host.rig.set_reset_button(True)
    host.rig.reset_at_once("power")
    host.received.clear()
    host.greet(use_plant=1)
    host.wait(200)
    assert (host.status("line")["code"], host.status("plant")["reset"]) == (45, 1)
    host.rig.set_reset_button(False)
    host.wait(150)
    assert host.status("line")["code"] == 45
    press_reset(host)
    assert host.status("line")["code"] == 0


def test_a_reset_button_that_is_pressed_when_the_interface_is_set_ends_no_fault(host: ProtocolHost) -> None:
    """Without plant interface, the pin of the button is the emergency stop of lane 3, whose closed contact looks like a pressed button."""
    host.rig.set_bypass(False)
    host.rig.set_reset_button(False)
    host.greet()
    host.rig.set_estop(True)
    host.wait(100)
    host.rig.set_estop(False)
    host.rig.set_reset_button(True)
    host.wait(100)
    assert host.status("plant")["reset"] == 0, "there is no such button"
    host.greet(use_plant=1)
    host.wait(150)
    assert (host.status("line")["code"], host.status("plant")["reset"]) == (45, 1)


def test_a_key_that_was_turned_back_without_the_interface_is_off(host: ProtocolHost) -> None:
    greet_with_plant(host)
    turn_key(host, True)
    host.greet(use_plant=0)
    turn_key(host, False)
    host.greet(use_plant=1)
    host.wait(150)
    assert host.faults() == [(BYPASS, 1, 0), (BYPASS, 0, 0)]


def count_buzzes(host: ProtocolHost) -> int:
    """Returns in how many of the next 20 tenths of a second the buzzer sounds."""
    heard = 0
    for _ in range(20):
        host.wait(100)
        heard += host.rig.plant_level("buzzer")
    return heard


def test_status_shows_the_signals(host: ProtocolHost) -> None:
    greet_with_plant(host)
    host.wait(60)
    page = host.status("plant")
    assert page["ready"] == 1
    assert [page[name] for name in ("busy", "valid", "reject", "fault", "buzzer", "reset", "bypass")] == [0] * 7
    host.rig.set_reset_button(True)
    host.count_part()
    host.rig.wait(40)
    page = host.status("plant")
    assert (page["busy"], page["reset"]) == (1, 1)


# The solenoid valve


def test_a_solenoid_gets_a_level_instead_of_pulses(host: ProtocolHost) -> None:
    host.rig.watch_servo_levels()
    host.greet(use_solenoid=1)
    part, at_ms = host.count_part()
    host.send_verdict(part, "divert")
    host.wait_until(at_ms + 300)
    host.rig.set_eye(2, True)
    levels = []
    for _ in range(200):
        host.rig.wait(1)
        levels.append(host.rig.solenoid_level())
    host.rig.set_eye(2, False)
    changes = [ms for ms in range(1, len(levels)) if levels[ms] != levels[ms - 1]]
    out, back = changes
    assert levels[out]
    # The part is at its gate 20 ms after photo-eye 2, and the gate returns 60 mm later.
    assert 18 <= out <= 23
    assert 57 <= back - out <= 63
    assert host.gate_actions()[-1] == (part, "divert", "verdict", 1)


def test_a_servo_instead_of_a_solenoid_gets_pulses_of_the_right_width(host: ProtocolHost) -> None:
    host.greet(use_solenoid=1)
    host.rig.reset("power")
    host.greet(use_solenoid=0, rest_us=1000)
    host.wait(100)
    assert host.rig.pulse_us() == 1000


def test_a_solenoid_is_at_rest_after_a_reset_and_held_by_safe(host: ProtocolHost) -> None:
    host.rig.watch_servo_levels()
    host.greet(use_solenoid=1, safe="pass")
    host.rig.set_estop(True)
    host.wait(100)
    assert not host.rig.solenoid_level()
    host.rig.reset("power")
    assert not host.rig.solenoid_level()
    host.rig.set_estop(False)
    host.greet(use_solenoid=1, safe="divert")
    host.wait(60)
    assert host.rig.solenoid_level(), "the stored fault holds the gate out"
    host.ok("CLEAR", 1, 45)
    host.wait(60)
    assert not host.rig.solenoid_level()
