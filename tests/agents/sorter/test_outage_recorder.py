"""The recorder of a board's reports during an outage of Kafka, with a journal on a real disk. The test makes the events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from agents.gate.lane import BoardClock, GateLane, PartCounted, PartSorted
from agents.gate.requests import RequestWindow
from agents.sorter import outage_recorder
from agents.sorter.journal import CountedPart, JournalError, SortingJournal
from agents.sorter.outage_recorder import _LaneRecorder
from streams.settings import GateSettings

LINE = "line-1"
NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SortingJournal]:
    journal = SortingJournal(tmp_path, LINE)
    yield journal
    journal.close()


def recorder_of(journal: SortingJournal, reports_parts: bool = True, requests: RequestWindow | None = None) -> _LaneRecorder:
    recorder = _LaneRecorder(LINE, GateSettings(port="board"), journal, reports_parts)
    recorder.lane = GateLane(LINE, 1, None, {}, BoardClock(), RequestWindow() if requests is None else requests, lambda event: None)
    recorder.lane.run = 1
    return recorder


def report(event: int) -> PartSorted:
    return PartSorted(event, 1, event, "divert", "no-verdict", True, 1, NOW, NOW)


def refuse(*_: object, **__: object) -> None:
    raise JournalError("The disk is full.")


def events_of(journal: SortingJournal) -> list[int]:
    return [entry.sorting.event for entry in journal.read_after(0, 1000)]


def test_a_report_that_the_full_disk_refused_is_recorded_when_the_board_repeats_it(
    journal: SortingJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recorder_of(journal)
    assert recorder.lane._is_new(5)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(journal, "append", refuse)
        recorder.record(report(5))
    assert recorder.lane._is_new(5), "the lane must pass on the repetition"
    recorder.record(report(5))
    assert events_of(journal) == [5]


class WatchedJournal(SortingJournal):
    """A journal that notes, before each write, how many commands wait for the board. Its disk is full while `is_full` is True."""

    requests: RequestWindow
    is_full = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, LINE)
        self.waiting_commands: list[int] = []

    def append(self, *arguments: Any, **options: Any) -> None:
        self.waiting_commands.append(len(self.requests))
        if self.is_full:
            refuse()
        super().append(*arguments, **options)


def test_a_report_is_acknowledged_only_when_its_record_is_in_the_journal(tmp_path: Path) -> None:
    journal = WatchedJournal(tmp_path)
    journal.requests = RequestWindow()
    recorder = recorder_of(journal, requests=journal.requests)
    journal.is_full = True
    recorder.record(report(5))
    assert len(journal.requests) == 0, "the disk has refused the record, so the board must keep the report"
    journal.is_full = False
    recorder.record(report(5))
    assert journal.waiting_commands == [0, 0], "the board is told before the record is written"
    assert len(journal.requests) == 1
    assert events_of(journal) == [5]
    journal.close()


def test_the_newest_reports_are_recognised_after_a_long_outage(journal: SortingJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_recorder, "_MAX_RECOGNISED", 4)
    first = recorder_of(journal)
    for event in range(1, 11):
        first.record(report(event))
    assert list(first._recorded) == [(1, event) for event in (7, 8, 9, 10)], "the memory is bounded"
    recorder_of(journal).record(report(10))
    assert events_of(journal) == list(range(1, 11)), "the report is not recorded twice"


@pytest.mark.parametrize("reports_parts", [True, False])
def test_counted_parts_wait_for_the_gateway_if_the_board_triggers_the_camera(journal: SortingJournal, reports_parts: bool) -> None:
    recorder_of(journal, reports_parts).record(PartCounted(1, 3, NOW, 0.0))
    part = CountedPart(1, 3, NOW)
    assert journal.counted_parts() == [part]
    assert journal.unreported_parts() == ([part] if reports_parts else [])


def test_castings_of_an_outage_are_counted_once_and_those_without_a_part_number_too(tmp_path: Path) -> None:
    """The alerts about castings use these counters."""

    def count(reason: str) -> float:
        return REGISTRY.get_sample_value("castline_parts_sorted_total", {"line": LINE, "action": "diverted", "reason": reason}) or 0.0

    before = [count("no-verdict"), count("unmatched")]
    journal = WatchedJournal(tmp_path)
    journal.requests = RequestWindow()
    recorder = recorder_of(journal, requests=journal.requests)
    for event in (report(5), replace(report(6), part=0, reason="unmatched")):
        journal.is_full = event.part != 0
        recorder.record(event)
        journal.is_full = False
        recorder.record(event)
        recorder.record(event)
    journal.close()
    assert [count("no-verdict"), count("unmatched")] == [before[0] + 1, before[1] + 1]
