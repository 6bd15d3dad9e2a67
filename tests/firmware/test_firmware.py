"""The firmware as it is built by hand and by the Arduino IDE: pins of all four lanes, sizes, and a real serial port in real time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import serial

from firmware import toolchain
from firmware.lane_settings import LaneSettings
from firmware.pins import LANES, LanePins
from firmware.protocol import Deframer, Frame
from firmware.simulator.avr import RealTimeBoard, SimulatedBoard, start_core, start_mega

pytestmark = pytest.mark.real

QUICK = LaneSettings({"step_um": 1000, "eye_gap_mm": 100, "window_mm": 40, "servo_ms": 20})


class StepHost:
    """Sends commands to a simulated board and returns the answers. Time passes only in `wait`."""

    def __init__(self, mega: SimulatedBoard) -> None:
        self.mega = mega
        self.events: list[Frame] = []
        self._deframer = Deframer("<!")
        for pins in LANES:
            mega.set_pin(pins.estop.port, False)
        mega.run_until(60_000)

    def ask(self, name: str, *fields: object) -> Frame:
        self.mega.send(Frame(">", 7, name, tuple(str(field) for field in fields)).encode())
        for _ in range(60):
            self.wait(1)
            for frame in self._answers:
                return frame
        raise AssertionError(f"no answer to {name} {fields}")

    def wait(self, ms: float) -> None:
        self.mega.run_until(self.mega.now_us + ms * 1000)
        frames = [frame for said in self.mega.take_sent() for frame in self._deframer.feed(said.data)]
        self.events += [frame for frame in frames if frame.start == "!"]
        self._answers = [frame for frame in frames if frame.start == "<"]

    def configure(self, lane: int, settings: LaneSettings) -> None:
        for key, value in settings.values.items():
            assert self.ask("CONFIGURE", lane, key, value).name == "OK"
        assert self.ask("COMMIT", lane).fields == (settings.digest,)


def block(host: StepHost, pin: str, ms: float) -> None:
    host.mega.set_pin(pin, False)
    host.wait(ms)
    host.mega.set_pin(pin, True)
    host.wait(1)


Make = Callable[[], SimulatedBoard]
BOARDS: dict[str, Make] = {
    "plain": lambda: start_mega(toolchain.build_firmware()),
    "arduino": lambda: start_mega(toolchain.build_arduino_firmware()),
    "core": start_core,
}


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("lane", [1, 2, 3, 4])
def test_each_lane_has_its_own_eyes_servo_trigger_and_relay(board: str, lane: int) -> None:
    pins: LanePins = LANES[lane - 1]
    with BOARDS[board]() as mega:
        host = StepHost(mega)
        assert host.ask("HELLO", 1).name == "OK"
        host.configure(lane, QUICK)
        host.wait(5)
        assert mega.levels[pins.relay.port]
        before = len(mega.changes)
        block(host, pins.eye1.port, 20)
        lanes = [event.fields[0] for event in host.events if event.name == "PART"]
        assert lanes in ([str(lane)], [str(lane)] * 2), "the board sends PART at once, and again when the 300 ms of all lanes are over"
        host.wait(79)
        block(host, pins.eye2.port, 30)
        host.wait(20)
        gates = [event.fields for event in host.events if event.name == "GATE"]
        assert [gate[1] for gate in gates] == [str(lane)]
        assert gates[0][4:7] == ("divert", "no-verdict", "1")
        assert [change.pin for change in mega.changes[before:] if change.level and change.pin.startswith("F")] == [pins.trigger.port]
        assert {pulse.compare for pulse in mega.pulses if round(pulse.width_us) == 2000} == {pins.compare}


def test_a_command_that_arrives_just_before_a_gate_moves_is_answered_before_the_report_of_the_move() -> None:
    """Shortly before a gate moves, the firmware reads no bytes. The report of the move takes 5 ms on the serial line."""
    pins = LANES[0]
    with start_mega(toolchain.build_firmware()) as mega:
        host = StepHost(mega)
        host.ask("HELLO", 1)
        host.configure(1, LaneSettings({"step_um": 1000, "eye_gap_mm": 100, "window_mm": 40, "gate_mm": 40, "servo_ms": 20}))
        block(host, pins.eye1.port, 20)
        host.wait(79)
        block(host, pins.eye2.port, 30)
        # The gate moves 40 ms after the casting has reached photo-eye 2, and is silent in the last 4.5 ms of this time.
        host.wait(5.5)
        mega.take_sent()
        mega.send(Frame(">", 8, "PING", ("1",)).encode())
        mega.run_until(mega.now_us + 30_000)
        frames = Deframer("<!").feed(b"".join(sent.data for sent in mega.take_sent()))
    assert [frame.name for frame in frames if frame.name in ("OK", "GATE")] == ["OK", "GATE"]


@pytest.mark.parametrize("lane", [1, 2, 3, 4])
def test_each_lane_has_its_own_encoder_inputs_and_lamp(lane: int) -> None:
    pins = LANES[lane - 1]
    with start_mega(toolchain.build_firmware()) as mega:
        host = StepHost(mega)
        mega.turn_encoder(lane, 0)
        host.ask("HELLO", 1)
        host.configure(lane, LaneSettings({"encoder": 1, "use_servo_power": 1, "safe": "stop"}))

        def position() -> int:
            return int(host.ask("STATUS", lane, "eyes").fields[3])

        began = position()
        mega.turn_encoder(lane, 500)
        host.wait(100)
        forward = position() - began
        mega.turn_encoder(lane, 500, forward=False)
        host.wait(50)
        assert 190 <= forward <= 215
        assert 80 <= began + forward - position() <= 115
        mega.turn_encoder(lane, 0)

        host.wait(20)
        # The input for the servo's supply is high, because nothing pulls it down here.
        assert mega.levels[pins.green.port]
        mega.set_pin(pins.servo_power.port, False)
        host.wait(30)
        assert mega.levels[pins.red.port]
        assert not mega.levels[pins.green.port]
        assert not mega.levels[pins.relay.port]
        assert host.ask("STATUS", lane, "line").fields[1:4] == ("safe", "44", "red")
        mega.set_pin(pins.servo_power.port, True)
        host.wait(20)
        assert host.ask("CLEAR", lane, 44).fields == ("cleared",)
        mega.set_pin(pins.estop.port, True)
        host.wait(30)
        assert host.ask("STATUS", lane, "line").fields[1:4] == ("safe", "45", "red")
        # The lamp test also works during a fault: green, yellow and red for a second each.
        seen = len(mega.changes)
        assert host.ask("TEST", lane, 1, "lamp").fields == ("done",)
        host.wait(3200)
        lit = [
            change.pin
            for change in mega.changes[seen:]
            if change.level and change.pin in (pins.green.port, pins.yellow.port, pins.red.port)
        ]
        assert lit == [pins.green.port, pins.yellow.port, pins.red.port]


def test_an_edge_of_both_phases_at_once_is_noise_and_counts_nothing() -> None:
    with start_mega(toolchain.build_firmware()) as mega:
        host = StepHost(mega)
        assert host.ask("HELLO", 1).name == "OK"
        for lane, pins in enumerate(LANES, 1):
            before = host.ask("STATUS", lane, "eyes").fields[3]
            for number in range(20):
                at_us = mega.now_us + 500
                mega.set_pin_at(at_us, pins.encoder_a.port, number % 2 == 0)
                mega.set_pin_at(at_us, pins.encoder_b.port, number % 2 == 0)
                host.wait(1)
            assert host.ask("STATUS", lane, "eyes").fields[3] == before, f"lane {lane}"


def test_a_servo_pulse_in_progress_is_finished_before_its_pin_gets_a_level() -> None:
    """The setting `use_solenoid` gets in force at different times of the servo's period. A shortened pulse would move the servo."""
    pin = LANES[0].servo.port
    servo = {"rest_us": 2000, "out_us": 1000}
    with start_mega(toolchain.build_firmware()) as mega:
        mega.watch_pin(pin)
        host = StepHost(mega)
        host.ask("HELLO", 1)
        lengths = []
        for early_us in range(0, 20_000, 500):
            host.configure(1, LaneSettings(servo))
            host.wait(60)
            assert host.ask("CONFIGURE", 1, "use_solenoid", 1).name == "OK"
            seen = len(mega.changes)
            host.wait(45)
            rise_us = next(change.at_us for change in mega.changes[seen:] if change.pin == pin and change.level)
            mega.run_until(rise_us + 60_000 - early_us)
            assert host.ask("COMMIT", 1).name == "OK"
            host.wait(60)
            edges = [change for change in mega.changes[seen:] if change.pin == pin]
            assert not mega.levels[pin]
            lengths += [round(down.at_us - up.at_us, -2) for up, down in pairwise(edges) if up.level]
        assert len(lengths) >= 40
        assert set(lengths) == {2000}


def test_a_host_that_sends_too_much_at_once_gets_the_first_answers_and_is_told_of_the_loss() -> None:
    """The answers take longer than the commands. So the receive buffer of 256 bytes fills up, and the rest is lost."""
    with start_mega(toolchain.build_firmware()) as mega:
        host = StepHost(mega)
        assert host.ask("HELLO", 1).name == "OK"
        commands = [Frame(">", number, "STATUS", ("1", "count")) for number in range(100)]
        mega.send(b"".join(command.encode() for command in commands))
        answered: list[int] = []
        for _ in range(500):
            host.wait(1)
            answered += [frame.seq for frame in host._answers]
        assert answered[:10] == list(range(10))
        assert answered == sorted(set(answered))
        overrun = int(host.ask("STATUS", 1, "link").fields[3])
        assert overrun > 0
        assert len(answered) < len(commands)


def test_both_builds_leave_half_of_the_flash_and_a_quarter_of_the_ram_free(capsys: pytest.CaptureFixture[str]) -> None:
    for name, elf in (("plain avr-g++", toolchain.build_firmware()), ("with the Arduino core", toolchain.build_arduino_firmware())):
        flash, ram = toolchain.memory_use(elf)
        with capsys.disabled():
            print(f"\n{name}: flash {flash} of 262144 bytes ({flash / 262144:.1%}), RAM {ram} of 8192 bytes ({ram / 8192:.1%})", end="")
        assert flash <= 131_072
        assert ram <= 6144


def test_the_arduino_build_has_the_flags_of_the_arduino_core_with_all_warnings() -> None:
    lines = (toolchain.ARDUINO / "platform.txt").read_text().splitlines()
    platform = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    own = f"{platform['compiler.cpp.flags']} {platform['compiler.c.elf.flags']}".replace(
        "{compiler.warning_flags}", platform["compiler.warning_flags.all"]
    )
    # `-c` and `-MMD` only say which files the compiler writes.
    assert set(own.split()) - {"-c", "-MMD"} == set(toolchain.ARDUINO_FLAGS)


@pytest.mark.parametrize("build", [toolchain.build_firmware, toolchain.build_arduino_firmware])
def test_no_build_accepts_a_warning(build: Callable[..., Path], tmp_path: Path) -> None:
    sketch = tmp_path / "sorter"
    shutil.copytree(toolchain.SORTER, sketch)
    with (sketch / "text.cpp").open("a") as file:
        file.write("int unused_parameter(int number) { return 1; }\n")
    with pytest.raises(toolchain.ToolchainError, match="-Werror=unused-parameter"):
        build(sketch=sketch)


def test_a_serial_port_opens_on_the_simulated_board_in_real_time(tmp_path: Path) -> None:
    link = tmp_path / "ttyMEGA"
    with RealTimeBoard(toolchain.build_firmware(), link, tmp_path / "eeprom") as mega:
        mega.poll_for(0.2)
        with serial.Serial(str(link), 115200, timeout=2, exclusive=True) as port:
            deframer = Deframer("<!")
            answers: list[Frame] = []
            until = time.monotonic() + 10
            while not answers and time.monotonic() < until:
                port.write(Frame(">", 1, "HELLO", ("1",)).encode())
                answers = [frame for frame in deframer.feed(port.read_until(b"\n")) if frame.start == "<"]
            assert answers
            assert answers[0].fields[:2] == ("1", "1")
            # Board time runs as fast as real time.
            times = []
            for _ in range(2):
                port.write(Frame(">", 2, "SYNC").encode())
                while not (answers_to_sync := [f for f in deframer.feed(port.read_until(b"\n")) if f.start == "<" and f.seq == 2]):
                    pass
                times.append((time.monotonic(), int(answers_to_sync[0].fields[0])))
                time.sleep(0.5)
            passed_ms = (times[1][0] - times[0][0]) * 1000
            assert times[1][1] - times[0][1] == pytest.approx(passed_ms, abs=250)
    assert not link.exists()


def test_a_simulated_line_runs_on_the_real_firmware_from_the_command_line(tmp_path: Path) -> None:
    toolchain.build_firmware()
    toolchain.build_runner()
    link, log = tmp_path / "ttyMEGA", tmp_path / "truth.jsonl"
    settings = tmp_path / "castline.toml"
    settings.write_text(f'[[lines]]\nname = "line-1"\n[lines.gate]\nport = "{link}"\n')
    call = [str(Path(sys.executable).with_name("castline")), "--settings", str(settings), "board"]
    board = subprocess.Popen(
        [*call, "simulate", "--line", "line-1", "--rate", "2", "--avr", "--log", str(log)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert board.stdout is not None
        assert board.stdout.readline().strip() == f"board ready at {link}, run 1, firmware in the AVR simulator"
        # The host configures the board and ends. Castings are fed, and are diverted because they have no verdicts.
        subprocess.run([*call, "configure", "--line", "line-1"], check=True, capture_output=True, timeout=60)
        until = time.monotonic() + 60
        while sum('"fell"' in line for line in log.read_text().splitlines()) < 5 and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        board.terminate()
        assert board.wait(30) == 0
        assert board.stdout is not None
        board.stdout.close()
    facts = [json.loads(line) for line in log.read_text().splitlines()]
    exits = [fact for fact in facts if fact["what"] == "fell"]
    assert len(exits) >= 5
    assert {fact["side"] for fact in exits} == {"diverted"}
    assert {fact["struck"] for fact in exits} == {False}
    assert [fact["counted"] for fact in exits] == list(range(1, len(exits) + 1))
    assert [fact for fact in facts if fact["what"] == "camera"]
    assert next(fact for fact in facts if fact["what"] == "servo")["from_us"] == 1500


def test_missing_tools_are_named_in_one_sentence() -> None:
    """Runs in a process with an empty PATH, so that there is neither a compiler nor apt-get."""
    code = "from firmware import toolchain\ntoolchain.ensure_installed()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/nonexistent", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert (
        "the tools that build the firmware are missing; on Debian or Ubuntu, install them with: sudo apt-get install --yes" in done.stderr
    )
    assert "gcc-avr" in done.stderr


def test_the_runner_answers_for_a_moment_that_has_passed() -> None:
    """The runner once waited for ever: a sleep of the firmware went past the requested time, and the next request lay before it."""
    with start_mega(toolchain.build_firmware()) as board:
        for step_us in range(2000):
            board.run_until(50_000 + step_us / 100)
        board.run_until(10_000)
        assert board.now_us >= 50_000
