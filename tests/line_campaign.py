"""Runs a line for a thousand castings with restarts of the sorter, an outage of Kafka, and resets of the board, and counts what is lost.

    castings -> firmware in the AVR simulator, with the stock boot loader -> sorter -> real Kafka -> this program counts the records

`make campaign-line` runs two parts. In the first part the sorter is restarted 20 times, and Kafka is away for two minutes. In the second
part the board is reset ten times while the sorter runs. The exit status is 1 if a casting was lost, recorded twice or moved twice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from kafka import KafkaAdminClient

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from deploy.supervisor.priority import raise_priority
from firmware import toolchain
from firmware.board.line import PseudoTerminal, TruthLog, run_in_real_time
from firmware.board.plant import Belt, CastingFeed, Plant
from firmware.fault_table import code_of
from firmware.protocol import Frame
from firmware.simulator.avr import SimulatedBoard, start_mega
from firmware.simulator.avr_line import AvrBelt, AvrLine
from streams.records import Label, Sorting
from streams.settings import Settings
from streams.topic_creation import create_topics
from tests.fake_inspector import TOKEN, FakeInspector, SortedReader, every_third_is_defect
from tests.processes import CastlineProcess

LINE = "line-1"
TRAVEL_S = 5.0
SPEED_MM_S = 500.0
# A reset by DTR costs the time of the boot loader. A casting that passes a photo-eye so close to a reset may be counted or not.
NEAR_RESET_US = 150_000


class StockTerminal(PseudoTerminal):
    """A serial port whose opening raises DTR, which resets the board. Closing the port lowers DTR if the port's flag HUPCL is set."""

    def __init__(self, link: Path, mega: SimulatedBoard) -> None:
        super().__init__(link)
        self._mega = mega
        self._is_open = False
        settings = termios.tcgetattr(self._slave)
        settings[2] |= termios.HUPCL
        termios.tcsetattr(self._slave, termios.TCSANOW, settings)
        self._name = os.ttyname(self._slave)
        # With the slave closed, the master notices when a program opens and closes the port.
        os.close(self._slave)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.link.unlink(missing_ok=True)
        os.close(self._master)

    def read(self, timeout_s: float) -> bytes:
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        events = dict(poll.poll(timeout_s * 1000)).get(self._master, 0)
        is_open = not events & select.POLLHUP
        if is_open != self._is_open:
            self._is_open = is_open
            if is_open or termios.tcgetattr(self._master)[2] & termios.HUPCL:
                self._mega.set_dtr(is_open)
        if not is_open:
            time.sleep(timeout_s)
        return os.read(self._master, 4096) if events & select.POLLIN else b""

    def write(self, data: bytes) -> None:
        if self._is_open:
            super().write(data)


# The board's process


class FreeBelt(AvrBelt):
    """A belt that runs on while the board is reset, because its relay is not wired."""

    is_relay_closed = True


class ObservedLine(AvrLine):
    """A line that also logs resets, the begin of counting, castings at photo-eye 2, and the frames PART and GATE of the board."""

    def __init__(self, board: SimulatedBoard, plant: Plant, log: TruthLog) -> None:
        super().__init__(board, plant, log)
        belt = FreeBelt(board, plant, 1, self._servos_us)
        self.belts, self._belts_by_green = {1: belt}, {belt.pins.green.port: belt}
        self._log = log
        self._reported_eye2 = self._reported_resets = self._reported_changes = 0

    def _read_frame(self, frame: Frame) -> None:
        super()._read_frame(frame)
        if frame.name in ("PART", "GATE"):
            self._log(frame.name, {"fields": frame.fields, "at_us": self.now_us})

    def run_until(self, to_us: int) -> None:
        super().run_until(to_us)
        for reset in self.board.resets[self._reported_resets :]:
            self._log("reset", {"at_us": round(reset.at_us), "cause": reset.cause})
        self._reported_resets = len(self.board.resets)
        for change in self.board.changes[self._reported_changes :]:
            if change.level and change.pin == self.belt.pins.green.port:
                self._log("green", {"at_us": round(change.at_us)})
        self._reported_changes = len(self.board.changes)
        for at_us in self.belt.eye2_us[self._reported_eye2 :]:
            self._log("eye2", {"at_us": at_us})
        self._reported_eye2 = len(self.belt.eye2_us)


def run_board(port: Path, log: Path, rate_per_s: float, parts: int) -> None:
    """Runs the board at `port` until SIGTERM. SIGUSR1 resets it."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    raise_priority()
    belt = Belt(speed_mm_s=SPEED_MM_S, eye_gap_mm=TRAVEL_S * SPEED_MM_S, blade_mm=20 + 0.08 * SPEED_MM_S)
    plant = Plant(belt, CastingFeed(rate_per_s=rate_per_s, parts=parts))
    with start_mega(toolchain.build_firmware(), port.with_suffix(".eeprom"), has_boot_loader=True) as mega, log.open("a") as file:
        signal.signal(signal.SIGUSR1, lambda *_: mega.reset("button"))
        line = ObservedLine(mega, plant, TruthLog(file))
        line.boot()
        with StockTerminal(port, mega) as terminal:
            run_in_real_time(line, terminal, stopping)


# The campaign's process


@dataclass
class BoardLog:
    """What the board has sent and what has happened on the belt, from the log of the board's process."""

    facts: list[dict[str, Any]]

    @classmethod
    def read(cls, file: Path) -> BoardLog:
        return cls([json.loads(line) for line in file.read_text().splitlines()])

    def frames(self, name: str) -> Iterator[tuple[str, ...]]:
        """Yields the fields of the frames `name` that the board has sent. A repeated frame comes again."""
        return (tuple(fact["fields"]) for fact in self.facts if fact["what"] == name)

    @property
    def counted(self) -> set[tuple[int, int]]:
        """Run and part of the castings that the board has announced to the host."""
        return {(int(fields[1]), int(fields[2])) for fields in self.frames("PART")}

    @property
    def reported(self) -> set[tuple[int, int]]:
        """Run and part of the castings whose sorting the board has reported."""
        return {(int(fields[2]), int(fields[3])) for fields in self.frames("GATE") if fields[3] != "0"}

    @property
    def unmatched(self) -> set[tuple[int, int]]:
        """Run and event of the castings that reached photo-eye 2 without a count."""
        return {(int(fields[2]), int(fields[0])) for fields in self.frames("GATE") if fields[3] == "0"}

    @property
    def swings(self) -> int:
        return sum(fact["what"] == "servo" and fact["to_us"] == 2000 for fact in self.facts)

    @property
    def resets_us(self) -> list[int]:
        return [fact["at_us"] for fact in self.facts if fact["what"] == "reset"]

    @property
    def moves(self) -> int:
        """The number of moves that the board has reported."""
        return len({(fields[2], fields[0]) for fields in self.frames("GATE") if fields[6] == "1"})

    def starts_us(self) -> list[int]:
        """Returns the times at which the board began to count castings, one for each reset. It begins when a host has sent the settings."""
        greens = sorted(fact["at_us"] for fact in self.facts if fact["what"] == "green")
        bounds = [0, *self.resets_us, 1 << 62]
        found = [next((green for green in greens if begin < green < end), None) for begin, end in itertools.pairwise(bounds)]
        return [start for start in found if start is not None]

    def unmatched_range(self) -> tuple[int, int]:
        """Returns the least and the largest number of castings that can be unmatched.

        A casting is unmatched if a later run of the board than that of its count sees the casting at photo-eye 2. A casting that passes a
        photo-eye near a reset may belong to either run.
        """
        starts, resets = self.starts_us(), self.resets_us
        ranges = []
        for margin_us in (NEAR_RESET_US, -NEAR_RESET_US):
            number = 0
            for fact in self.facts:
                if fact["what"] != "eye2":
                    continue
                second_us, first_us = fact["at_us"], fact["at_us"] - TRAVEL_S * 1e6
                start_us = max((start for start in starts if start < second_us), default=0)
                end_us = min((reset for reset in resets if reset > start_us), default=1 << 62)
                number += start_us + margin_us < second_us < end_us - margin_us and first_us < start_us - margin_us
            ranges.append(number)
        return min(ranges), max(ranges)


@dataclass
class Findings:
    """The counts of one part of the campaign, and the sentences about what is wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def check(self, sentence: str, found: object) -> None:
        """Adds `sentence` to what is wrong, if `found` is not empty."""
        if found:
            self.wrong.append(f"{sentence}: {found}")


def judge_records(board: BoardLog, records: list[Sorting]) -> Findings:
    """Compares the records of Kafka with what the board has sent and with what has happened on the belt."""
    findings = Findings()
    by_part: dict[tuple[int, int], list[Sorting]] = defaultdict(list)
    for record in records:
        by_part[record.run, record.part].append(record)
    lost = sorted(board.counted - board.reported)
    restarted = sorted(part for part, found in by_part.items() if any(record.reason == "board-restarted" for record in found))
    moved = {(record.run, record.event) for record in records if record.gate_moved}
    least, most = board.unmatched_range()
    findings.counts = {
        "castings counted": len(board.counted),
        "castings reported by the board": len(board.reported),
        "castings with a record": len(by_part),
        "records": len(records),
        "records sent twice": len(records) - len({(record.run, record.part, record.event, record.late) for record in records}),
        "castings forgotten in a reset": len(lost),
        "records board-restarted": len(restarted),
        "moves": board.swings,
        "moves reported by the board": board.moves,
        "moves of recorded castings": len(moved),
        "resets": len(board.resets_us),
        "unmatched events": len(board.unmatched),
        "unmatched events expected, at least": least,
        "unmatched events expected, at most": most,
    }
    findings.check("castings without a record", sorted(board.counted - set(by_part)))
    findings.check("records of castings that the board has not counted", sorted(set(by_part) - board.counted))
    findings.check(
        "castings with different records", sorted(part for part, found in by_part.items() if len({each.event for each in found}) > 1)
    )
    findings.check("castings with a wrong record board-restarted", sorted(set(restarted) ^ set(lost)))
    # If a reset interrupts a move, the board does not report this move.
    if not 0 <= board.swings - board.moves <= len(board.resets_us):
        findings.wrong.append(f"the gate moved {board.swings} times, but the board reported {board.moves} moves")
    fell = {(fact["run"], fact["counted"]): fact["side"] for fact in board.facts if fact["what"] == "fell"}
    if len(board.starts_us()) == 1:
        findings.check("moves without a recorded casting", board.moves - len(moved) - len(board.unmatched))
        sides = {part: found[0].action for part, found in by_part.items()}
        findings.check("castings on another side than recorded", sorted(part for part in fell if sides.get(part) != fell[part]))
    if not least <= len(board.unmatched) <= most:
        findings.wrong.append(f"unmatched events: {len(board.unmatched)}, but {least} to {most} castings were unmatched")
    return findings


class Campaign:
    """A broker, a board and a sorter in `folder`."""

    def __init__(self, folder: Path, rate_per_s: float, castings: int) -> None:
        self.folder = folder
        self.castings = castings
        self.rate_per_s = rate_per_s
        self.truth = folder / "board.jsonl"
        gate = {"port": str(folder / "board"), "travel_mm": round(TRAVEL_S * SPEED_MM_S)}
        self.settings = Settings.model_validate(
            {
                "broker": {"port": free_ports(2), "data_dir": folder / "kafka", "access": "open"},
                "service": {"run_dir": folder / "run", "log_format": "text"},
                "gateway": {"port": free_ports()},
                "sorter": {"journal_dir": folder / "journal"},
                "kafka": {"session_timeout_s": 6},
                "lines": [{"name": LINE, "gate": gate}],
            }
        )
        self.broker = EmbeddedBroker(self.settings)
        self.is_kafka_away = False

    @contextmanager
    def run(self) -> Iterator[tuple[CastlineProcess, subprocess.Popen[bytes]]]:
        """Runs everything until the block ends. Yields the sorter and the board's process."""
        secrets = self.folder / "secrets.toml"
        secrets.write_text(f'[gateway]\ntoken = "{TOKEN}"\n')
        self.broker.start()
        admin = KafkaAdminClient(bootstrap_servers=self.settings.bootstrap)
        create_topics(admin, self.settings)
        admin.close()
        arguments = [str(self.folder / "board"), str(self.truth), str(self.rate_per_s), str(self.castings)]
        board = subprocess.Popen(bound_command([sys.executable, "-m", "tests.line_campaign", "--board", *arguments]))
        try:
            while not (self.folder / "board").is_symlink():
                assert board.poll() is None, "the simulated board has not started"
                time.sleep(0.1)
            with (
                FakeInspector(self.settings, self._label_of),
                CastlineProcess(self.settings, self.folder / "sorter.log", "--settings", str(secrets), "sorter", "--line", LINE) as sorter,
            ):
                sorter.wait_ready()
                yield sorter, board
        finally:
            board.terminate()
            board.wait(30)
            self.broker.stop(20)

    def _label_of(self, part: int) -> Label | None:
        return None if self.is_kafka_away or part % 20 == 0 else every_third_is_defect(part)

    def log(self) -> BoardLog:
        return BoardLog.read(self.truth)

    def wait_for_castings(self, count: int) -> None:
        """Waits until `count` castings have left the belt."""
        while sum(fact["what"] == "fell" for fact in self.log().facts) < count:
            time.sleep(0.5)

    @contextmanager
    def without_kafka(self) -> Iterator[None]:
        """Stops the broker for the time of the block. Pictures are not judged in the meantime."""
        self.is_kafka_away = True
        self.broker.stop(20)
        yield
        self.broker = EmbeddedBroker(self.settings)
        self.broker.start()
        self.is_kafka_away = False

    def read_records(self, within_s: float = 120) -> list[Sorting]:
        """Returns all records, when each counted casting has one and no further record comes."""
        reader = SortedReader(self.settings, LINE)
        counted = self.log().counted
        deadline_s = time.monotonic() + within_s
        while counted - {(record.run, record.part) for record in reader.read()} and time.monotonic() < deadline_s:
            time.sleep(0.1)
        time.sleep(3)
        records = reader.read()
        reader.close()
        return records


def restart_sorter(folder: Path, rate_per_s: float, castings: int, restarts: int, outage_s: float) -> Findings:
    """Restarts the sorter again and again, half of the times by SIGKILL. In the middle Kafka is away for `outage_s` seconds.

    A fifth of the restarts is in this time.
    """
    campaign = Campaign(folder, rate_per_s, castings)
    numbers = itertools.count(1)
    in_outage = max(1, restarts // 5)
    with campaign.run() as (sorter, _):
        left = max(1, castings - round(outage_s * rate_per_s))
        before = (restarts - in_outage) // 2
        after = restarts - in_outage - before
        for number in range(1, before + 1):
            campaign.wait_for_castings(round(left / 2 * number / (before + 1)))
            _restart(sorter, next(numbers))
            sorter.wait_ready()
        campaign.wait_for_castings(round(left / 2))
        with campaign.without_kafka():
            for _ in range(in_outage):
                time.sleep(outage_s / (in_outage + 1))
                _restart(sorter, next(numbers))
            time.sleep(outage_s / (in_outage + 1))
        sorter.wait_ready()
        begun = len(campaign.log().counted)
        for number in range(1, after + 1):
            campaign.wait_for_castings(begun + round((castings - begun) * number / (after + 1)))
            _restart(sorter, next(numbers))
            sorter.wait_ready()
        campaign.wait_for_castings(castings)
        findings = judge_records(campaign.log(), campaign.read_records())
        findings.counts |= {
            "restarts of the sorter": restarts,
            "restarts without Kafka": in_outage,
            "seconds without Kafka": round(outage_s),
        }
        findings.check("events that the board lost", _faults(folder / "sorter.log").count(code_of("events-lost")))
        findings.check("resets of the board by restarts of the sorter", len(campaign.log().resets_us) - 1)
        return findings


def _restart(sorter: CastlineProcess, number: int) -> None:
    """Ends the sorter, by SIGKILL if `number` is odd, and starts it again."""
    if number % 2:
        sorter.kill()
    else:
        sorter.stop()
    sorter.start()


def _faults(log: Path) -> list[int]:
    return [int(line.split("fault ")[1].split()[0]) for line in log.read_text().splitlines() if ": fault " in line and " began" in line]


def reset_board(folder: Path, rate_per_s: float, castings: int, resets: int) -> Findings:
    """Resets the board again and again, at random times, while the sorter runs."""
    campaign = Campaign(folder, rate_per_s, castings)
    chance = random.Random(5)
    with campaign.run() as (_, board):
        for number in range(1, resets + 1):
            campaign.wait_for_castings(round(castings * number / (resets + 1)))
            time.sleep(chance.random())
            board.send_signal(signal.SIGUSR1)
        campaign.wait_for_castings(castings)
        return judge_records(campaign.log(), campaign.read_records())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--castings", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=3.0, help="castings a second")
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--outage-s", type=float, default=120.0)
    parser.add_argument("--resets", type=int, default=10)
    parser.add_argument("--reset-castings", type=int, default=300)
    parser.add_argument("--only", choices=("restarts", "resets"))
    parser.add_argument("--keep", type=Path, help="folder for logs and topics; the default is a temporary folder")
    parser.add_argument("--board", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.board:
        port, log, rate, parts = options.board
        run_board(Path(port), Path(log), float(rate), int(parts))
        return 0
    toolchain.build_firmware()
    toolchain.build_runner()
    is_wrong = False
    with tempfile.TemporaryDirectory(prefix="castline-line-") as name:
        folder = options.keep or Path(name)
        parts = {
            "restarts": lambda: restart_sorter(folder / "restarts", options.rate, options.castings, options.restarts, options.outage_s),
            "resets": lambda: reset_board(folder / "resets", options.rate, options.reset_castings, options.resets),
        }
        for title, run_part in parts.items():
            if options.only in (None, title):
                (folder / title).mkdir(parents=True)
                findings = run_part()
                is_wrong |= bool(findings.wrong)
                print(
                    "\n".join([title, *(f"  {count:6}  {what}" for what, count in findings.counts.items()), *findings.wrong, ""]),
                    flush=True,
                )
    print("something is wrong" if is_wrong else "nothing was lost, recorded twice or moved twice")
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
