"""Faults at the real firmware: each ends in the state of firmware/PROTOCOL.md, is ended as that page says, and moves no gate twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from firmware import toolchain
from firmware.board.plant import EYE1, EYE2, STEPS, Belt, CastingFeed, Plant
from firmware.lane_settings import LaneSettings, SettingValue
from firmware.pins import LANES
from firmware.simulator.avr import SimulatedBoard, start_mega
from firmware.simulator.avr_line import AvrLine
from tests.firmware.line_host import DelayedVerdict, LineHost, VerdictRule

pytestmark = pytest.mark.real

BELT = Belt(speed_mm_s=1000, eye_gap_mm=500, blade_mm=66, servo_s=0.04)
BASE: dict[str, SettingValue] = {
    "step_um": 1000,
    "eye_gap_mm": 500,
    "window_mm": 30,
    "spacing_mm": 66,
    "gate_mm": 20,
    "dwell_mm": 66,
    "servo_ms": 40,
    "lost_limit": 3,
    "stuck_mm": 600,
}
PINS = LANES[0]


def divert_every_other(part: int) -> DelayedVerdict:
    return ("divert" if part % 2 else "keep", 100_000)


@dataclass
class Scene:
    """A running line with a simulated Mega and a host."""

    mega: SimulatedBoard
    line: AvrLine
    host: LineHost

    @property
    def plant(self) -> Plant:
        return self.line.plant

    def state(self) -> tuple[str, int, str]:
        """Returns state, oldest fault and lamp of the lane."""
        answer = self._status("line")
        return answer[0], int(answer[1]), answer[2]

    def moves(self) -> int:
        return int(self._status("gate")[2])

    def swing_count(self) -> int:
        """Returns how often the measured servo pulse has left its rest value since the last reset."""
        since = self.mega.resets[-1].at_us if self.mega.resets else 0
        widths = [round(pulse.width_us) for pulse in self.mega.pulses if pulse.compare == PINS.compare and pulse.at_us >= since]
        return sum(before == 1000 and after == 2000 for before, after in pairwise(widths))

    def ask(self, name: str, *fields: object) -> tuple[str, ...]:
        """Sends a command, and returns name and fields of the answer."""
        self.host.answers.clear()
        self.host.ask(name, *fields)
        for _ in range(200):
            self.host.run_for(4000)
            for asked, frame in self.host.answers:
                if asked == name:
                    return (frame.name, *frame.fields)
        raise AssertionError(f"no answer to {name} within 0.8 s")

    def _status(self, page: str) -> tuple[str, ...]:
        answer = self.ask("STATUS", 1, page)
        assert answer[0] == "OK", answer
        return answer[2:]

    def feed_for(self, us: int) -> None:
        """Feeds castings for `us` microseconds."""
        self.plant.is_feeding = True
        self.host.run_for(us)

    def run_empty(self) -> None:
        self.plant.is_feeding = False
        self.host.run_for(1_500_000)

    def check_sorting_again(self) -> None:
        """Checks that castings fall as their verdicts say after the recovery, and that the reports agree."""
        self.run_empty()
        before = len(self.plant.exits)
        known = set(self.host.gates)
        self.feed_for(2_000_000)
        self.run_empty()
        reports = [gate for event, gate in sorted(self.host.gates.items()) if event not in known]
        assert len(reports) >= 5
        for report, casting in zip(reports, self.plant.exits[before:], strict=True):
            assert report["reason"] == "verdict", report
            assert casting.side == ("diverted" if report.number("part") % 2 else "passed"), (casting, report)
        assert [casting for casting in self.plant.exits[before:] if casting.struck] == []
        assert self.state() == ("running", 0, "green")
        self.check_moves()

    def check_moves(self) -> None:
        """Checks that no part is reported twice, and that the servo has left its rest position as often as the board reports."""
        self.host.gates_by_part()
        assert self.swing_count() == self.moves()


@contextmanager
def scene(
    tmp_path: Path, verdict_of: VerdictRule = divert_every_other, belt: Belt = BELT, elf: Path | None = None, **settings: SettingValue
) -> Iterator[Scene]:
    with start_mega(elf or toolchain.build_firmware(), tmp_path / "eeprom") as mega:
        line = AvrLine(mega, Plant(belt, CastingFeed(rate_per_s=4, jitter=0.2, least_gap_mm=80, seed=5)))
        host = LineHost(line, LaneSettings(BASE | settings), verdict_of)
        host.run_until(600_000)
        yield Scene(mega, line, host)


# The gate and the chute


def test_a_gate_that_jams_while_it_sorts_stops_the_line(tmp_path: Path) -> None:
    with scene(tmp_path, use_end_switch=1) as now:
        now.feed_for(2_000_000)
        assert now.host.fault_codes() == []
        now.plant.jammed_gates.add(0)
        now.feed_for(1_500_000)
        assert now.host.fault_codes() == [(54, 1)]
        assert now.state() == ("stopped", 54, "red")
        assert not now.line.is_relay_closed


def test_a_casting_that_falls_beside_the_chute_is_reported_and_stops_the_line(tmp_path: Path) -> None:
    # A diverted casting leaves the belt 66 mm behind the place at which its gate moves, and falls for 100 ms.
    with scene(tmp_path, chute_mm=166, chute_window_mm=60) as now:
        now.feed_for(3_000_000)
        assert now.host.fault_codes() == []
        now.plant.to_lose = 1
        now.feed_for(1_500_000)
        assert now.host.fault_codes() == [(55, 1)]
        assert now.state() == ("stopped", 55, "red")
        confirmed = {part: report.get("confirmed") for part, report in sorted(now.host.gates_by_part().items())}
        lost = next(int(fault["detail"]) for fault in now.host.faults.values())
        assert confirmed == {part: 0 if part == lost else 1 if part % 2 else None for part in confirmed}
        assert len(confirmed) >= 6


# The wire and the host


def test_a_cable_pulled_in_mid_frame_and_put_back(tmp_path: Path) -> None:
    with scene(tmp_path) as now:
        now.feed_for(1_500_000)
        now.line.receive(b">77 VERDICT 1 1 9 div")
        now.host.is_alive = False
        now.host.run_for(3_000_000)
        now.line.transmit()
        # Without verdicts, parts are treated as for a silent host. The line keeps running.
        assert now.line.is_relay_closed
        assert now.mega.levels[PINS.yellow.port]
        now.host.is_alive = True
        now.host.greet()
        now.host.run_for(1_500_000)
        assert {(40, 1), (40, 0)} <= set(now.host.fault_codes())
        assert "safe" in {gate["reason"] for gate in now.host.gates.values()}
        now.check_sorting_again()


def test_a_host_killed_and_started_again_hears_what_it_missed(tmp_path: Path) -> None:
    with scene(tmp_path) as now:
        now.feed_for(1_500_000)
        first, now.host.is_alive = now.host, False
        first.run_for(1_000_000)  # Within host_timeout_ms.
        now.line.transmit()
        now.host = LineHost(now.line, first.settings, divert_every_other)
        now.host.greet()
        now.run_empty()
        parts = set(first.gates_by_part()) | set(now.host.gates_by_part())
        assert parts == set(range(1, max(parts) + 1)), "a report was lost with the host"
        now.check_sorting_again()


@pytest.mark.parametrize(("share", "name"), [(1 / 800, "a byte in a hundred"), (1 / 100, "a bit in a hundred")])
def test_bits_flipped_both_ways_move_nothing_wrongly(tmp_path: Path, share: float, name: str) -> None:
    chance = random.Random(11)

    def flip(data: bytes) -> bytes:
        return bytes(byte ^ sum(1 << bit for bit in range(8) if chance.random() < share) for byte in data)

    with scene(tmp_path) as now:
        now.host.damage = flip
        now.feed_for(6_000_000)
        now.plant.is_feeding = False
        now.host.damage = lambda data: data
        now.host.greet()
        now.run_empty()
        assert int(now.ask("STATUS", 0, "link")[3]) > 0, name
        reports = now.host.gates_by_part()
        for casting in now.plant.exits:
            report = reports[casting.counted]
            assert casting.side == {"divert": "diverted", "pass": "passed"}[report.word("action")]
            # Only a verdict can keep a casting on the belt. A casting without verdict is diverted.
            assert casting.side == "diverted" or casting.counted % 2 == 0
        assert now.mega.resets == []
        now.check_sorting_again()


def test_a_flood_of_garbage_at_line_rate_starves_nothing(tmp_path: Path) -> None:
    chance = random.Random(12)
    with scene(tmp_path) as now:
        now.plant.is_feeding = True
        now.host.is_alive = False
        for _ in range(1000):
            now.line.receive(chance.randbytes(46))  # 11,500 bytes a second
            now.line.run_until(now.line.now_us + 4000)
        now.line.transmit()
        assert now.mega.resets == [], "the watchdog bit"
        assert len(now.plant.exits) >= 10
        assert {casting.side for casting in now.plant.exits} == {"diverted"}
        now.host.is_alive = True
        now.host.greet()
        now.run_empty()
        assert int(now.ask("STATUS", 0, "link")[3]) > 10
        now.check_sorting_again()


# The plant


def test_a_stopped_encoder_holds_the_gate_until_cleared(tmp_path: Path) -> None:
    belt = Belt(speed_mm_s=1000, eye_gap_mm=500, blade_mm=66, servo_s=0.04, encoder_um=500)
    with scene(tmp_path, belt=belt, encoder=1, step_um=500, encoder_timeout_ms=300) as now:
        now.feed_for(2_000_000)
        assert {gate["reason"] for gate in now.host.gates.values()} == {"verdict"}
        now.line.belt.broken.add(STEPS)
        now.feed_for(1_500_000)
        assert now.state() == ("safe", 43, "red")
        assert now.mega.pulses[-1].width_us == pytest.approx(2000, abs=1)
        now.line.belt.broken.clear()
        now.run_empty()
        assert now.ask("CLEAR", 1, 43) == ("OK", "cleared")
        now.host.run_for(700_000)
        now.check_sorting_again()


FaultCause = Callable[[Scene], None]


def blocked(which: int) -> FaultCause:
    def cause_fault(now: Scene) -> None:
        now.plant.is_feeding = False
        now.host.run_for(900_000)
        now.mega.set_pin((PINS.eye1 if which == 1 else PINS.eye2).port, False)
        now.host.run_for(900_000)

    return cause_fault


def blind(which: int) -> FaultCause:
    """The eye's output does not change any more, so it does not see the parts."""

    def cause_fault(now: Scene) -> None:
        now.mega.set_pin((PINS.eye1 if which == 1 else PINS.eye2).port, True)
        now.line.belt.broken.add(EYE1 if which == 1 else EYE2)
        now.feed_for(2_500_000)
        now.plant.is_feeding = False
        now.host.run_for(900_000)
        now.line.belt.broken.clear()

    return cause_fault


@pytest.mark.parametrize(
    ("cause_fault", "code", "detail"),
    [(blocked(1), 41, 1), (blocked(2), 42, 1), (blind(1), 41, 2), (blind(2), 42, 2)],
    ids=["eye 1 blocked", "eye 2 blocked", "eye 1 dead", "eye 2 dead"],
)
def test_an_eye_stuck_either_way_holds_the_gate_until_cleared(tmp_path: Path, cause_fault: FaultCause, code: int, detail: int) -> None:
    with scene(tmp_path) as now:
        now.feed_for(2_000_000)
        cause_fault(now)
        assert now.state() == ("safe", code, "red")
        assert [fault["detail"] for fault in now.host.faults.values() if fault["code"] == code and fault["raised"]] == [detail]
        assert now.mega.pulses[-1].width_us == pytest.approx(2000, abs=1), "safe is divert: the gate is out"
        for eye in (PINS.eye1, PINS.eye2):
            now.mega.set_pin(eye.port, True)
        now.host.run_for(100_000)
        assert now.ask("CLEAR", 1, code) == ("OK", "cleared")
        now.host.run_for(700_000)
        now.check_sorting_again()


@pytest.mark.parametrize(("safe", "closed", "pulse_us"), [("divert", True, 2000), ("pass", True, 1000), ("stop", False, 1000)])
def test_an_emergency_stop_ends_as_the_lines_owner_chose(tmp_path: Path, safe: str, closed: bool, pulse_us: int) -> None:
    with scene(tmp_path, safe=safe) as now:
        now.mega.set_pin(PINS.estop.port, True)
        now.host.run_for(300_000)
        assert now.state() == ("safe", 45, "red")
        assert now.line.is_relay_closed is closed
        assert now.mega.levels[PINS.red.port]
        assert now.line.pulse_us == pytest.approx(pulse_us, abs=1)
        assert now.ask("CLEAR", 1, 45)[:2] == ("ERR", "12")
        now.mega.set_pin(PINS.estop.port, False)
        now.host.run_for(50_000)
        assert now.ask("CLEAR", 1, 45) == ("OK", "cleared")
        now.host.run_for(300_000)
        now.check_sorting_again()


# Resets


@pytest.mark.parametrize(("cause", "detail"), [("brown-out", 1), ("watchdog", 2)])
def test_a_reset_with_the_gate_out_starts_from_rest_and_holds_until_configured(tmp_path: Path, cause: str, detail: int) -> None:
    with scene(tmp_path) as now:
        now.plant.is_feeding = True
        while now.line.pulse_us < 1900:
            now.host.run_for(4000)
        now.plant.is_feeding = False
        now.host.is_alive = False
        if cause == "watchdog":
            now.mega.hang()
        else:
            now.mega.reset(cause)
        now.line.run_until(now.line.now_us + 400_000)
        (reset,) = now.mega.resets
        assert reset.cause == cause
        after = [round(pulse.width_us) for pulse in now.mega.pulses if pulse.compare == PINS.compare and pulse.at_us > reset.at_us]
        assert after == [1000, 2000], "rest first, then as the stored settings want it without a host"
        assert now.line.is_relay_closed
        now.host.is_alive = True
        now.host.run_for(1_500_000)
        assert now.host.runs == [1, 2]
        assert now.host.fault_codes() == [(46, 1), (46, 0)]
        assert now.host.faults[0]["detail"] == detail
        now.run_empty()
        now.host.run_for(200_000)
        now.check_sorting_again()


# Counters that wrap


def test_the_wrap_of_the_32_bit_clock_changes_nothing(tmp_path: Path) -> None:
    start_us = 2**32 - 4_000_000
    with scene(tmp_path, elf=toolchain.build_firmware(f"CASTLINE_CLOCK_START_US={start_us}UL")) as now:
        now.feed_for(6_000_000)
        assert now.line.now_us > 4_500_000
        now.plant.is_feeding = False
        now.run_empty()
        reports = now.host.gates_by_part()
        assert len(reports) >= 20
        times = [reports[part].number("at_ms") for part in sorted(reports)]
        assert times == sorted(times)
        assert times[-1] < 8000
        assert {report["reason"] for report in reports.values()} == {"verdict"}
        assert all(abs(report.number("travel_ms") - 500) <= 2 for report in reports.values())
        now.check_sorting_again()


def test_sequence_numbers_wrap_in_both_directions(tmp_path: Path) -> None:
    with scene(tmp_path) as now:
        for _ in range(300):
            now.ask("SYNC")
        now.host.acknowledges = False
        now.feed_for(8_000_000)
        now.run_empty()
        while len(now.host.received) < 280:
            now.host.greet()  # All unacknowledged events are sent again.
            now.host.run_for(500_000)
        now.host.acknowledges = True
        now.host.greet()
        now.host.run_for(1_000_000)
        seqs = [frame.seq for frame in now.host.received]
        assert any(before == 255 and after == 0 for before, after in pairwise(seqs))
        assert all((after - before) % 256 == 1 for before, after in pairwise(seqs)), "an event was lost on a sound wire"
        now.check_sorting_again()
