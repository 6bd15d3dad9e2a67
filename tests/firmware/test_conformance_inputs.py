"""Short pulses at the inputs change nothing, camera pulses are not lost, settings are exact, and a line without encoder survives stops."""

from __future__ import annotations

import pytest

from firmware.lane_settings import SettingValue
from firmware.pins import LANES, PLANT, inputs_of
from firmware.protocol import Frame
from tests.firmware.protocol_host import ProtocolHost

PULSES_US = (20, 50, 300, 1000, 3000, 5000)
# A belt on which a pulse of 5 ms is 1 mm of travel.
SLOW: dict[str, SettingValue] = {"step_um": 200, "eye_gap_mm": 300, "spacing_mm": 20, "dwell_mm": 20, "use_belt": 1}
# The settings that make a lane use its optional inputs.
ALL_INPUTS: dict[str, SettingValue] = {
    "use_end_switch": 1,
    "chute_mm": 100,
    "chute_full_ms": 1,
    "use_button": 1,
    "use_plant": 1,
    "safe": "stop",
}


def send_pulses(host: ProtocolHost, what: str) -> None:
    host.received.clear()
    for us in PULSES_US:
        for _ in range(5):
            host.rig.disturb(what, us)
            host.rig.wait(7)
        host.ok("PING", 0)
    host.wait(50)


@pytest.mark.parametrize("what", [*inputs_of(LANES[0]), *inputs_of(PLANT[0])])
def test_pulses_up_to_5_ms_trip_nothing(host: ProtocolHost, what: str) -> None:
    """The lane uses all of its inputs. The pulses come while the line runs, and while a fault waits for a person."""
    host.rig.set_bypass(False)
    host.rig.set_reset_button(False)
    host.greet(**SLOW, **ALL_INPUTS, encoder=int(what.startswith("encoder")))
    host.wait(100)
    send_pulses(host, what)
    assert [frame.body for frame in host.received if frame.name in ("FAULT", "PART", "GATE")] == []
    assert host.status("line")["state"] == "running"
    assert host.status("eyes").number("eye1") == host.status("eyes").number("eye2") == 0
    assert host.status("chute")["seen"] == 0
    host.rig.set_estop(True)
    host.wait(50)
    host.rig.set_estop(False)
    host.wait(50)
    assert host.status("line")["code"] == 45
    send_pulses(host, what)
    assert [frame.body for frame in host.received if frame.name == "FAULT" and frame.fields[3] == "0"] == []
    assert host.status("line")["code"] == 45


@pytest.mark.parametrize("what", ["eye1", "eye2"])
def test_a_change_at_a_photo_eye_counts_when_it_has_lasted(host: ProtocolHost, what: str) -> None:
    """Both pulses are longer than part_min_mm. Only the second pulse is longer than debounce_us."""
    host.greet(debounce_us=6000, part_min_mm=1)
    for us in (20, 1000, 5000):
        host.rig.disturb(what, us)
        host.rig.wait(20)
    host.wait(100)
    assert host.status("count").number("parts") == host.status("count").number("unmatched") == 0
    host.rig.disturb(what, 8000)
    host.wait(100)
    counts = host.status("count")
    assert (counts["parts"], counts["unmatched"]) == ((1, 0) if what == "eye1" else (0, 1))


@pytest.mark.parametrize("contact_ms", [5, 20])
def test_an_open_emergency_stop_trips_after_the_set_time(host: ProtocolHost, contact_ms: int) -> None:
    host.greet(contact_ms=contact_ms, safe="stop")
    host.wait(20)
    host.rig.set_estop(True)
    host.rig.wait(contact_ms - 2)
    assert host.rig.is_relay_closed()
    host.rig.wait(4)
    assert not host.rig.is_relay_closed()
    host.wait(30)
    assert (45, 1, 0) in host.faults()


def test_a_part_with_a_short_gap_is_one_part(host: ProtocolHost) -> None:
    host.greet()
    at_ms = host.rig.now_ms()
    for eye in (1, 2):
        host.wait_until(at_ms + 300 * (eye - 1))
        host.rig.set_eye(eye, True)
        host.rig.wait(10)
        host.rig.disturb("eye1" if eye == 1 else "eye2", 3000)
        host.rig.wait(10)
        host.rig.set_eye(eye, False)
    host.wait(200)
    assert {part.number("part") for part in host.events("PART")} == {1}
    assert host.gate_actions() == [(1, "divert", "no-verdict", 1)]


def test_each_casting_gets_its_camera_pulse(host: ProtocolHost) -> None:
    """Castings follow each other every 100 ms, and the camera is triggered 400 ms later."""
    host.greet(trigger_ms=400, eye_gap_mm=5000)
    for _ in range(10):
        host.block(1, 20)
        host.rig.wait(78)
    host.wait(500)
    assert host.rig.trigger_count() == 10
    assert [fault for fault in host.faults() if fault[0] == 53] == []


def test_pulses_that_would_run_together_stay_apart(host: ProtocolHost) -> None:
    host.greet(trigger_ms=0, trigger_pulse_ms=100, eye_gap_mm=5000)
    for _ in range(5):
        host.block(1, 20)
        host.rig.wait(38)
    host.wait(200)
    assert host.rig.trigger_count() == 5


def test_a_camera_pulse_without_room_is_reported(host: ProtocolHost) -> None:
    """With an encoder, the pulses wait while the belt stands."""
    host.greet(encoder=1, step_um=1000, eye_gap_mm=20000, trigger_mm=20000, lost_limit=50, part_min_mm=1, gate_mm=1)
    for _ in range(host.ok("HELLO", 1).number("parts")):
        host.rig.set_eye(1, True)
        host.rig.add_steps(4)
        host.rig.wait(4)
        host.rig.set_eye(1, False)
        host.rig.add_steps(4)
        host.rig.wait(4)
        host.ok("PING", 0)
    assert host.rig.trigger_count() == 0
    assert host.status("line")["code"] == 0, "there is room for as many pulses as parts"
    host.rig.set_estop(True)
    host.wait(100)
    host.rig.set_estop(False)
    host.wait(100)
    host.wait(1500)
    # The reports about the removed parts make room for further events.
    host.gate_events()
    assert host.ok("CLEAR", 1, 45)["told"] == "cleared"
    for _ in range(2):
        host.rig.set_eye(1, True)
        host.rig.add_steps(4)
        host.rig.wait(4)
        host.rig.set_eye(1, False)
        host.rig.add_steps(4)
        host.rig.wait(4)
    host.wait(500)
    assert (53, 1, 1) in host.faults()
    assert host.ok("CLEAR", 1, 53)["told"] == "cleared"


def test_the_camera_is_triggered_after_a_length_of_travel(host: ProtocolHost) -> None:
    host.greet(encoder=1, step_um=1000, trigger_mm=100)
    host.rig.set_eye(1, True)
    host.rig.add_steps(20)
    host.rig.wait(20)
    host.rig.set_eye(1, False)
    host.rig.add_steps(75)
    host.rig.wait(75)
    host.wait(1000)
    assert host.rig.trigger_count() == 0, "the belt stands before the camera"
    host.rig.add_steps(10)
    host.rig.wait(20)
    assert host.rig.trigger_count() == 1


def test_a_speed_with_a_fraction_is_exact(host: ProtocolHost) -> None:
    """The belt runs at 12.4 mm/s. After 1.5 m, a speed of 12 mm/s would be wrong by 48 mm."""
    host.greet(step_um=12, step_nm=400, eye_gap_mm=62, window_mm=5, gate_mm=5, spacing_mm=0, host_timeout_ms=60000)
    at_ms = host.rig.now_ms()
    host.block(1, 900)
    host.wait_until(at_ms + 5000 + 380)
    host.block(2, 900)
    host.wait(100)
    assert host.gate_actions() == [(1, "divert", "no-verdict", 1)]


def test_commit_warns_of_a_gate_that_is_too_far(host: ProtocolHost) -> None:
    host.greet(gate_mm=180, spacing_mm=60)
    assert "warning" not in host.ok("COMMIT", 1)
    host.greet(gate_mm=181, spacing_mm=60)
    assert host.ok("COMMIT", 1)["warning"] == "gate-far"


@pytest.mark.parametrize(("run_up_mm", "run_down_mm"), [(0, 0), (30, 50)])
def test_a_belt_stop_loses_no_casting(host: ProtocolHost, run_up_mm: int, run_down_mm: int) -> None:
    """Twenty castings are on a belt of 1 m/s without encoder. The belt stops for 200 ms again and again."""
    host.greet(use_belt=1, run_up_mm=run_up_mm, run_down_mm=run_down_mm, eye_gap_mm=2000, window_mm=20)
    # The belt runs up after the COMMIT has closed its relay.
    host.wait(400)
    belt = StoppingBelt(host, run_up_mm, run_down_mm)
    for casting in range(20):
        belt.castings.append(-80.0 * casting)
    belt.run(until_mm=2000 + 80 * 20 + 60, stop_at_mm=(500, 1200, 1900, 2500))
    counts = host.status("count")
    assert (counts["parts"], counts["missing"], counts["unmatched"]) == (20, 0, 0)
    assert host.faults() == []


class StoppingBelt:
    """A belt of 1 m/s that stops for 100 ms. `castings` has the places of the leading edges, in mm after photo-eye 1."""

    def __init__(self, host: ProtocolHost, run_up_mm: int, run_down_mm: int) -> None:
        self.host = host
        self.castings: list[float] = []
        self._ramps_mm = {True: run_up_mm, False: run_down_mm}
        self._speed = 1.0

    def run(self, until_mm: float, stop_at_mm: tuple[int, ...]) -> None:
        travelled, stops, restart_ms, ms = 0.0, list(stop_at_mm), 0, 0
        blocked = {1: False, 2: False}
        is_on = True
        while travelled < until_mm:
            ms += 1
            if is_on and stops and travelled >= stops[0]:
                stops.pop(0)
                is_on, restart_ms = False, ms + 200
                self.host.rig.set_belt(False)
            if not is_on and ms >= restart_ms:
                is_on = True
                self.host.rig.set_belt(True)
            before, ramp_ms = self._speed, 2 * self._ramps_mm[is_on]
            target = float(is_on)
            change = 1 / ramp_ms if ramp_ms else 1.0
            self._speed = min(target, before + change) if is_on else max(target, before - change)
            travelled += (before + self._speed) / 2 if ramp_ms else target
            for eye, at_mm in ((1, 0.0), (2, 2000.0)):
                now = any(lead + travelled - 20 < at_mm <= lead + travelled for lead in self.castings)
                if now != blocked[eye]:
                    blocked[eye] = now
                    self.host.rig.set_eye(eye, now)
            self.host.rig.wait(1)
            if ms % 100 == 0:
                self.host.rig.send(Frame(">", 0xFF, "PING", ("0",)).encode())


def test_short_pulses_of_the_belt_signal_move_no_casting(host: ProtocolHost) -> None:
    """Without integration, 20 pulses of 4 ms would be a stop of 80 ms. The casting would then come too early for its window of 40 mm."""
    host.greet(use_belt=1)
    host.wait(40)
    _, at_ms = host.count_part()
    for _ in range(20):
        host.rig.disturb("belt", 4000)
        host.rig.wait(5)
    host.carry_to_eye2(at_ms)
    host.wait(100)
    assert [action[:3] for action in host.gate_actions()] == [(1, "divert", "no-verdict")]


def test_castings_at_a_belt_that_seems_to_stand_are_a_fault(host: ProtocolHost) -> None:
    host.greet(use_belt=1, lost_limit=3)
    host.rig.set_belt(False)
    host.rig.wait(40)
    for _ in range(3):
        host.block(1)
        host.rig.wait(40)
    host.wait(50)
    assert (43, 1, 0) in host.faults()


def test_an_uncommitted_lane_shows_its_eyes_and_counts_its_encoder(host: ProtocolHost) -> None:
    before = host.status("eyes").number("position_steps")
    host.rig.set_eye(1, True)
    host.rig.add_steps(30)
    host.rig.wait(30)
    eyes = host.status("eyes")
    assert (eyes["eye1"], eyes["eye2"], eyes["position_steps"], eyes["belt"]) == (1, 0, before + 30, 1)
    host.rig.set_eye(1, False)
    host.rig.set_belt(False)
    host.rig.wait(30)
    eyes = host.status("eyes")
    assert (eyes["eye1"], eyes["belt"]) == (0, 0)


def test_edges_are_stored_with_time_and_encoder_before_the_first_commit_and_during_a_fault(host: ProtocolHost) -> None:
    before = host.status("edge1"), host.status("edge2")
    first_ms = host.rig.now_ms()
    length_ms = pass_eye(host, 1, steps=20)
    first = host.status("edge1")
    host.rig.add_steps(40)
    host.rig.wait(50)
    second_ms = host.rig.now_ms()
    pass_eye(host, 2, steps=20)
    second = host.status("edge2")
    assert (first["edges"], second["edges"]) == (before[0].number("edges") + 1, before[1].number("edges") + 1)
    assert (first["length_steps"], second["length_steps"]) == (20, 20)
    assert second.number("edge_steps") - first.number("edge_steps") == 60
    assert abs(first.number("length_ms") - length_ms) <= 1
    assert abs(second.number("edge_ms") - first.number("edge_ms") - (second_ms - first_ms)) <= 1
    # The emergency stop holds the gate, but edges are still stored. The belt now runs backwards.
    host.greet()
    host.rig.set_estop(True)
    host.wait(50)
    pass_eye(host, 1, steps=-20)
    after = host.status("edge1")
    assert after.number("edges") == first.number("edges") + 1
    assert after.number("length_steps") == 2**32 - 20


def pass_eye(host: ProtocolHost, eye: int, steps: int) -> int:
    """Lets an object pass a photo-eye while the encoder makes `steps` edges. Returns how long the object has blocked the eye, in ms."""
    began_ms = host.rig.now_ms()
    host.rig.set_eye(eye, True)
    # The Mega reads most photo-eyes only every 0.2 ms.
    host.rig.wait(1)
    host.rig.add_steps(steps)
    host.rig.wait(25)
    assert host.status(f"edge{eye}")["length_ms"] == 0, "an object that still blocks the eye has a length"
    host.rig.set_eye(eye, False)
    length_ms = host.rig.now_ms() - began_ms
    host.rig.wait(5)
    return length_ms


def test_the_servo_holds_a_pulse_only_while_the_lane_sorts_nothing(host: ProtocolHost) -> None:
    assert host.error_code("SERVO", 1, 1200) == 4
    host.ok("HELLO", 1)
    assert host.ok("SERVO", 1, 1200).word("told") == "done"
    host.rig.wait(40)
    assert host.rig.pulse_us() == 1200, "a lane without settings has no pulse"
    host.ok("SERVO", 1, 0)
    host.greet()
    assert [host.error_code("SERVO", 1, pulse_us) for pulse_us in (543, 2401)] == [7, 2]
    moves = host.status("gate").number("moves")
    host.ok("SERVO", 1, 1300)
    host.wait(40)
    assert (host.rig.pulse_us(), host.status("gate").number("pulse_us")) == (1300, 1300)
    assert host.error_code("TEST", 1, 7, "gate") == 9
    host.wait(4000)
    host.ok("SERVO", 1, 1310)
    host.wait(4000)
    assert host.rig.pulse_us() == 1310, "the pulse ended although the host repeated the command"
    host.wait(1100)
    assert host.rig.pulse_us() == 1000, "the pulse stays although the host is silent about it"
    host.ok("SERVO", 1, 1300)
    host.wait(40)
    host.ok("SERVO", 1, 0)
    host.wait(40)
    assert host.rig.pulse_us() == 1000
    assert host.status("gate").number("moves") == moves


def test_a_casting_or_a_fault_ends_the_pulse_of_the_command_servo(host: ProtocolHost) -> None:
    host.greet(safe="pass")
    host.ok("SERVO", 1, 1300)
    host.wait(40)
    host.rig.set_eye(1, True)
    host.wait(40)
    assert host.rig.pulse_us() == 1000
    assert host.error_code("SERVO", 1, 1300) == 9
    host.rig.set_eye(1, False)
    host.wait(20)
    assert host.error_code("SERVO", 1, 1300) == 9, "a part is on the belt"
    host.wait(400)
    host.ok("SERVO", 1, 1300)
    host.wait(40)
    assert host.rig.pulse_us() == 1300
    host.rig.set_estop(True)
    host.wait(60)
    assert host.rig.pulse_us() == 1000
    assert host.error_code("SERVO", 1, 1300) == 12


def test_an_eye_that_switches_when_light_counts_its_parts(host: ProtocolHost) -> None:
    for eye in (1, 2):
        host.rig.set_eye(eye, True)
    host.greet(eye_light_on=1)
    host.wait(20)
    at_ms = host.rig.now_ms()
    for eye in (1, 2):
        host.wait_until(at_ms + 300 * (eye - 1))
        host.rig.set_eye(eye, False)
        host.rig.wait(20)
        host.rig.set_eye(eye, True)
    host.wait(200)
    assert host.gate_actions() == [(1, "divert", "no-verdict", 1)]
    assert host.faults() == []


@pytest.mark.parametrize(("eye_light_on", "blocked", "faults"), [(1, 1, [(41, 1, 1)]), (0, 0, [])])
def test_a_broken_wire_reads_blocked_at_an_eye_that_switches_when_light(
    host: ProtocolHost, eye_light_on: int, blocked: int, faults: list[tuple[int, int, int]]
) -> None:
    for eye in (1, 2):
        host.rig.set_eye(eye, bool(eye_light_on))
    host.greet(eye_light_on=eye_light_on, stuck_mm=100, use_estop=0)
    host.wait(50)
    host.rig.set_eye(1, False)
    host.wait(200)
    assert host.status("eyes").number("eye1") == blocked
    assert host.faults() == faults


@pytest.mark.parametrize("is_low", [True, False])
def test_a_board_knows_after_a_reset_how_its_eyes_switch(host: ProtocolHost, is_low: bool) -> None:
    for eye in (1, 2):
        host.rig.set_eye(eye, True)
    host.greet(eye_light_on=1)
    host.rig.set_eye(2, is_low)
    host.rig.wait(50)
    host.rig.reset("power")
    host.rig.wait(20)
    host.ok("HELLO", 1)
    eyes = host.status("eyes")
    assert (eyes.number("eye1"), eyes.number("eye2")) == (0, int(not is_low))


def test_a_change_of_how_the_eyes_switch_counts_no_part(host: ProtocolHost) -> None:
    host.greet()
    for light_on in (1, 0, 1):
        host.configure(1, eye_light_on=light_on)
        host.rig.wait(50)
        assert host.status("eyes").number("eye1") == light_on
        host.wait(60)
    assert host.events("PART") == []
