"""Three lines at once, with a real Kafka, sorters at serial ports, and the Mega's firmware in the AVR simulator at each port."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.sorter.command_socket import ask_sorter
from deploy.supervisor.ports import free_ports
from firmware import toolchain
from streams.records import CommandAction, Label, Sorting, make_command
from tests.conftest import MakeSettings
from tests.fake_inspector import TOKEN, FakeInspector, SortedReader, every_third_is_defect
from tests.processes import CastlineProcess

LINES = ("line-1", "line-2", "line-3")
PARTS = 24
RATE = 3
# A machine that is busy with other tests may stand still for a second or two. Late verdicts are the subject of another test.
TRAVEL_S = 6
SILENT = {7}
READING: tuple[CommandAction, ...] = ("monitor", "acknowledge")


class LabelLog:
    """Labels parts, and stores when each part was labelled."""

    def __init__(self) -> None:
        self.labelled_at: dict[int, list[datetime]] = {}
        self._lock = threading.Lock()

    def __call__(self, part: int) -> Label | None:
        with self._lock:
            self.labelled_at.setdefault(part, []).append(datetime.now(UTC))
        return None if part in SILENT else every_third_is_defect(part)


def test_three_lines_sort_over_kafka_with_the_real_firmware(
    make_settings: MakeSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toolchain.build_firmware()  # Built before the test measures times.
    toolchain.build_runner()
    settings = make_settings(
        lines=tuple({"name": line, "gate": {"port": str(tmp_path / line), "travel_mm": TRAVEL_S * 500}} for line in LINES),
        gateway={"port": free_ports()},
        kafka={"session_timeout_s": 6},
    )
    secrets = tmp_path / "secrets.toml"
    secrets.write_text(f'[gateway]\ntoken = "{TOKEN}"\n')
    labels = LabelLog()
    with ExitStack() as stack:
        stack.enter_context(FakeInspector(settings, labels))
        for number, line in enumerate(LINES):
            log = str(tmp_path / f"{line}.jsonl")
            feed = ("--rate", str(RATE), "--parts", str(PARTS), "--seed", str(number), "--log", log)
            stack.enter_context(CastlineProcess(settings, tmp_path / f"{line}.board", "board", "simulate", "--line", line, *feed, "--avr"))
        sorters = [
            stack.enter_context(
                CastlineProcess(settings, tmp_path / f"{line}.sorter", "--settings", str(secrets), "sorter", "--line", line)
            )
            for line in LINES
        ]
        for sorter in sorters:
            sorter.wait_ready()
        records: dict[str, list[Sorting]] = {}
        for line in LINES:
            reader = SortedReader(settings, line)
            reader.wait_for(lambda found: len({record.part for record in found}) >= PARTS, within_s=90)
            time.sleep(1)
            records[line] = reader.read()
            reader.close()
        monitored, acknowledged = (ask_sorter(settings.service.run_dir, make_command("line-1", action, "anna", 10)) for action in READING)
        for line in LINES:
            seen = Counter(record.part for record in records[line])
            assert seen == dict.fromkeys(range(1, PARTS + 1), 1), [record for record in records[line] if seen[record.part] > 1]

    assert monitored is not None
    assert monitored.answer is not None
    assert (monitored.answer.values["count"]["parts"], len(monitored.answer.recent_parts)) == (PARTS, 20)
    assert acknowledged is not None
    assert acknowledged.answer is not None
    assert acknowledged.answer.message == "Faults that have ended: none."

    delays_ms = []
    for line in LINES:
        facts = [json.loads(text) for text in (tmp_path / f"{line}.jsonl").read_text().splitlines()]
        sides = {fact["counted"]: fact["side"] for fact in facts if fact["what"] == "fell"}
        assert not any(fact["struck"] for fact in facts if fact["what"] == "fell")
        swings = sum(fact["what"] == "servo" and fact["to_us"] == 2000 for fact in facts)
        assert sum(record.gate_moved for record in records[line]) == swings
        for record in records[line]:
            expected = "diverted" if record.part in SILENT or every_third_is_defect(record.part) == "defect" else "passed"
            assert sides[record.part] == record.action == expected
            if record.told_at is not None:
                labelled = min(labels.labelled_at[record.part], key=lambda at, told_at=record.told_at: abs(told_at - at))  # type: ignore[misc]
                delays_ms.append((record.told_at - labelled).total_seconds() * 1000)
    delays_ms.sort()
    with capsys.disabled():
        print(
            f"\nverdict on its way to Kafka until the board has it, {len(delays_ms)} parts on three lines: "
            f"p50 {delays_ms[len(delays_ms) // 2]:.1f} ms, p99 {delays_ms[int(len(delays_ms) * 0.99)]:.1f} ms; "
            f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
        )
    assert len(delays_ms) == len(LINES) * (PARTS - len(SILENT))
    assert delays_ms[-1] < TRAVEL_S * 1000
