"""What a board keeps over a reset: faults that wait for a person, and the setting that says whether a lane starts by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from firmware.board.faults import ENDS_BY, KEPT
from firmware.lane_settings import SettingValue
from tests.firmware.protocol_host import ProtocolHost
from tests.firmware.test_conformance_faults import keep_blocked, open_estop, repair, stop_encoder

pytestmark = pytest.mark.stock_mega


def cut_servo_power(host: ProtocolHost) -> None:
    host.rig.set_servo_power(False)
    host.wait(100)


def stop_line(host: ProtocolHost) -> None:
    """Lets a part without verdict arrive at a lane whose setting `no_verdict` is stop."""
    _, at_ms = host.count_part()
    host.carry_to_eye2(at_ms)


def overfill(host: ProtocolHost) -> None:
    """Counts more parts than the board can follow."""
    for _ in range(65):
        host.block(1, 10)
        host.rig.wait(10)
    host.wait(100)


def push_gate_off_its_end(host: ProtocolHost) -> None:
    host.rig.set_gate_input("end_switch", False)
    host.wait(300)


def fill_chute(host: ProtocolHost) -> None:
    host.rig.set_gate_input("chute_full", True)
    host.wait(300)


# The faults that stop the line. The other faults of CAUSES hold the gate.
STOPPING = {49, 54, 56}
CAUSES: list[tuple[int, Callable[[ProtocolHost], None], dict[str, SettingValue]]] = [
    (41, keep_blocked(1), {}),
    (42, keep_blocked(2), {}),
    (43, stop_encoder, {"encoder": 1, "encoder_timeout_ms": 500}),
    (44, cut_servo_power, {}),
    (45, open_estop, {}),
    (47, overfill, {"eye_gap_mm": 2000, "stuck_mm": 2000}),
    (49, stop_line, {"no_verdict": "stop"}),
    (52, lambda host: None, {"autostart": 0}),
    (54, push_gate_off_its_end, {"use_end_switch": 1}),
    (56, fill_chute, {"chute_full_ms": 200}),
]


def reset(host: ProtocolHost, cause: str = "power") -> None:
    host.rig.reset(cause)
    host.received.clear()


def line_state(host: ProtocolHost) -> tuple[str, int, str]:
    line = host.status("line")
    return line.word("state"), line.number("code"), line.word("lamp")


@pytest.mark.parametrize(("code", "cause_fault", "settings"), CAUSES, ids=[str(code) for code, *_ in CAUSES])
def test_a_fault_stays_over_resets_until_a_person_ends_it(
    host: ProtocolHost, code: int, cause_fault: Callable[[ProtocolHost], None], settings: dict[str, SettingValue]
) -> None:
    host.greet(**settings)
    cause_fault(host)
    repair(host)
    held = ("stopped" if code in STOPPING else "safe", code, "red")
    assert line_state(host) == held
    for cause in ("power", "button"):
        reset(host, cause)
        host.rig.wait(100)
        assert host.rig.is_relay_closed() is (code not in STOPPING)
        if code != 52:
            assert line_state(host) == ("waiting", code, "red")
        host.greet(**settings)
        host.wait(200)
        assert line_state(host) == held
        assert [fault for fault in host.faults() if fault[0] == code] == [(code, 1, 0)]
        if code not in STOPPING:
            assert host.rig.pulse_us() == 2000
            host.block(1)
            assert host.events("PART") == [], "a held lane counts"
    assert host.ok("CLEAR", 1, code)["told"] == "cleared"
    host.wait(200)
    assert line_state(host) == ("running", 0, "green")
    assert host.rig.is_relay_closed()
    if "encoder" not in settings:
        assert host.count_part()[0] == 1
    if code == 52:
        return
    reset(host)
    host.greet(**settings)
    assert line_state(host) == ("running", 0, "green")


def test_every_fault_that_a_person_must_end_is_kept() -> None:
    # Tests of the chute's eye and of the interlock reset the board during the faults 55 and 57.
    assert {code for code, *_ in CAUSES} | {55, 57} == set(KEPT)
    assert {code for code, end in ENDS_BY.items() if end == "CLEAR"} - set(KEPT) == {48, 53}, "a warning holds nothing"


def test_a_fault_may_be_ended_before_the_host_has_configured_the_lane(host: ProtocolHost) -> None:
    host.greet()
    open_estop(host)
    reset(host)
    host.ok("HELLO", 1)
    host.rig.wait(50)
    assert host.error_code("CLEAR", 1, 45) == 12, "the emergency stop is still open"
    host.rig.set_estop(False)
    host.rig.wait(50)
    assert host.ok("CLEAR", 1, 45)["told"] == "cleared"
    assert line_state(host) == ("waiting", 0, "yellow")
    host.greet()
    assert line_state(host) == ("running", 0, "green")


def test_several_faults_stay_and_each_must_be_ended(host: ProtocolHost) -> None:
    host.greet()
    open_estop(host)
    cut_servo_power(host)
    reset(host)
    repair(host)
    host.greet()
    host.wait(100)
    assert {fault for fault in host.faults() if fault[0] in (44, 45)} == {(44, 1, 0), (45, 1, 0)}
    host.ok("CLEAR", 1, 45)
    assert line_state(host) == ("safe", 44, "red")
    reset(host)
    host.greet()
    assert line_state(host) == ("safe", 44, "red")
    host.ok("CLEAR", 1, 44)
    assert line_state(host) == ("running", 0, "green")


def test_a_fault_concerns_its_lane_only_also_after_a_reset(host: ProtocolHost) -> None:
    host.greet()
    host.configure(2, use_estop=0, use_servo_power=0)
    open_estop(host)
    reset(host)
    repair(host)
    host.greet()
    host.configure(2, use_estop=0, use_servo_power=0)
    assert [host.ok("STATUS", lane, "line")["state"] for lane in (1, 2)] == ["safe", "running"]


def test_a_fault_is_kept_although_the_power_goes_at_once(host: ProtocolHost) -> None:
    """A Mega needs 14 ms until the fault is in both copies in its EEPROM."""
    host.greet()
    host.rig.wait(250)
    host.rig.set_estop(True)
    host.rig.wait(25)
    host.rig.reset_at_once("power")
    repair(host)
    host.greet()
    assert line_state(host) == ("safe", 45, "red")


@pytest.mark.parametrize("autostart", [0, 1])
def test_a_lane_starts_by_itself_only_with_autostart(host: ProtocolHost, autostart: int) -> None:
    running, waiting = ("running", 0, "green"), ("safe", 52, "red")
    host.greet(autostart=1)
    host.configure(1, autostart=autostart)
    assert line_state(host) == running, "a lane that runs is not stopped by the setting"
    for cause in ("power", "watchdog"):
        reset(host, cause)
        host.greet(autostart=autostart)
        host.wait(100)
        assert line_state(host) == (running if autostart else waiting)
        assert host.rig.pulse_us() == (1000 if autostart else 2000)
        assert host.ok("CLEAR", 1, 52)["told"] == ("none" if autostart else "cleared")
        host.configure(1, autostart=autostart)
        assert line_state(host) == running, "a second COMMIT of the same run does not stop the lane again"


def test_a_lane_that_becomes_a_further_gate_keeps_no_fault(host: ProtocolHost) -> None:
    host.greet()
    host.configure(2, use_estop=0)
    host.rig.set_servo_power(False, 2)
    host.wait(100)
    assert host.ok("STATUS", 2, "line")["code"] == 44
    host.rig.set_servo_power(True, 2)
    host.configure(2, lane_of=1)
    reset(host)
    host.greet()
    host.configure(2, lane_of=1)
    assert line_state(host) == ("running", 0, "green")
    assert [fault for fault in host.faults() if fault[0] != 46] == []


def test_a_raised_run_holds_for_parts_and_events_and_over_resets(host: ProtocolHost) -> None:
    host.greet()
    host.acknowledges = False
    first, at_ms = host.count_part()
    host.carry_to_eye2(at_ms)
    second, _ = host.count_part()
    assert host.ok("RAISE", 40000).number("run") == 40000
    assert host.ok("RAISE", 40000).number("run") == 40000
    assert host.ok("RAISE", 7).number("run") == 40000, "a lower run changes nothing"
    old_run, host.rig.run = host.rig.run, 40000
    assert host.send_verdict(second, "keep").fields == ("accepted",)
    assert host.error_code("VERDICT", 1, old_run, second, "keep", 0) == 21
    host.received.clear()
    # HELLO alone: while all settings are sent, the second part would arrive at photo-eye 2 too.
    host.ok("HELLO", 1)
    host.wait(100)
    assert [(gate.number("run"), gate.number("part")) for gate in host.events("GATE")] == [(40000, first)]
    for run in (40001, 40002):
        reset(host)
        assert host.ok("HELLO", 1).number("run") == run
