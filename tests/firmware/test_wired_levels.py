"""The levels at the pins that docs/wiring.md and docs/plant-interface.md name, as the real firmware makes them in the AVR simulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from firmware.pins import PLANT_OUTPUTS
from tests.firmware.protocol_host import ProtocolHost
from tests.firmware.rigs import STORING_MS, AvrRig

pytestmark = pytest.mark.real

# The pin of the heartbeat is only pulled up while the board does not use the plant interface. The circuit then makes the signal low.
PULLED_UP = "heartbeat"


@pytest.fixture
def host() -> Iterator[ProtocolHost]:
    rig = AvrRig()
    rig.watch_servo_levels()
    yield ProtocolHost(rig)
    rig.close()


def high_signals(host: ProtocolHost, duration_ms: int = 1200) -> dict[str, float]:
    """Returns how much of the time each output of the plant interface is high. Outputs that stay low are left out."""
    count = dict.fromkeys(PLANT_OUTPUTS, 0)
    for _ in range(duration_ms):
        host.rig.wait(1)
        for signal in PLANT_OUTPUTS:
            count[signal] += host.rig.plant_level(signal)
    return {signal: high / duration_ms for signal, high in count.items() if high}


def test_a_new_board_sounds_the_buzzer_and_makes_servo_pulses_at_reject(host: ProtocolHost) -> None:
    for is_configured in (False, True):
        if is_configured:
            host.greet()
        high = high_signals(host)
        assert high.keys() == {"buzzer", "reject", PULLED_UP}
        assert high["buzzer"] == high[PULLED_UP] == 1
        assert 0.04 < high["reject"] < 0.11, "1.5 ms in 20 ms, which are one or two samples"


def test_a_board_that_has_settings_of_lane_3_can_say_ready_before_use_plant(host: ProtocolHost) -> None:
    host.greet()
    host.configure(3, safe="pass")
    host.rig.reset("power")
    high = high_signals(host)
    assert high["ready"] == 1
    assert {"busy", "result_valid"}.isdisjoint(high)
    assert high[PULLED_UP] == 1, "the heartbeat does not change, so the controller knows that nothing is sorted"


def test_a_board_that_has_stored_use_plant_starts_with_low_signals(host: ProtocolHost) -> None:
    host.rig.set_bypass(False)
    host.rig.set_reset_button(False)
    host.greet(use_plant=1)
    host.rig.reset("power")
    assert high_signals(host) == {}


def test_a_stored_fault_is_shown_and_heard_before_the_first_commit(host: ProtocolHost) -> None:
    host.rig.set_bypass(False)
    host.rig.set_reset_button(False)
    host.greet(use_plant=1)
    host.rig.set_estop(True)
    host.wait(100)
    host.rig.reset("power")
    high = high_signals(host)
    assert high.keys() == {"fault", "buzzer"}
    assert high["fault"] == 1
    assert high["buzzer"] < 1


@pytest.mark.parametrize("safe", ["divert", "pass"])
def test_a_valve_follows_the_setting_safe_as_soon_as_the_board_has_started(host: ProtocolHost, safe: str) -> None:
    host.greet(use_solenoid=1, safe=safe)
    host.rig.wait(STORING_MS)
    assert not host.rig.solenoid_level()
    host.rig.reset("power")
    for _ in range(200):
        host.rig.wait(1)
        assert host.rig.solenoid_level() is (safe == "divert")


def test_a_broken_wire_of_the_belt_contact_lets_castings_pass_until_fault_43(host: ProtocolHost) -> None:
    host.rig.set_belt(True)
    host.greet(use_belt=1, lost_limit=5, safe="divert")
    host.rig.set_belt(False)
    host.wait(100)
    for eye in (1, 2, 1, 2):
        host.block(eye)
        host.wait(200)
    assert host.faults() == []
    assert host.status("line")["tracked"] == 0
    assert (host.rig.trigger_count(), host.rig.swing_count(), host.gate_actions()) == (0, 0, [])
    host.block(1)
    host.wait(200)
    assert (43, 1, 0) in host.faults()
    assert host.rig.swing_count() == 1


def test_a_gate_that_is_out_stays_out_when_the_wire_of_the_belt_contact_breaks(host: ProtocolHost) -> None:
    host.rig.set_belt(True)
    host.greet(use_belt=1, dwell_mm=60)
    part, at_ms = host.count_part()
    host.send_verdict(part, "divert")
    host.carry_to_eye2(at_ms)
    while host.rig.pulse_us() != 2000:
        host.wait(5)
    host.rig.set_belt(False)
    host.wait(3000)
    assert host.rig.pulse_us() == 2000
    host.rig.set_belt(True)
    host.wait(500)
    assert host.rig.pulse_us() == 1000


def test_the_push_button_does_not_silence_the_buzzer_but_the_acknowledge_button_does(host: ProtocolHost) -> None:
    host.rig.set_bypass(False)
    host.rig.set_reset_button(False)
    host.greet(use_plant=1, use_button=1)
    host.rig.set_estop(True)
    host.wait(100)
    host.rig.set_gate_input("button", True)
    host.wait(200)
    host.rig.set_gate_input("button", False)
    host.wait(100)
    assert "buzzer" in high_signals(host)
    host.rig.set_reset_button(True)
    host.wait(100)
    assert "buzzer" not in high_signals(host)
    assert host.status("line")["code"] == 45, "the emergency stop is still open"
    host.rig.set_estop(False)
    host.rig.set_reset_button(False)
    host.wait(100)
    host.rig.set_reset_button(True)
    host.wait(100)
    assert host.status("line")["code"] == 0


def test_ready_and_fault_are_never_high_together(host: ProtocolHost) -> None:
    """So at most six of the seven signals are high, and the current of the plant interface is that of the wiring guide."""
    host.rig.set_bypass(False)
    host.rig.set_reset_button(False)
    host.greet(use_plant=1)
    for is_open in (False, True, False):
        host.rig.set_estop(is_open)
        for _ in range(100):
            host.rig.wait(1)
            assert not (host.rig.plant_level("ready") and host.rig.plant_level("fault"))
