"""What a restarted sorter knows about the parts of its line. The journal is on a real disk, and a list stands for each topic of Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndTimestamp

from agents.gate.lane import RunBegan
from agents.sorter.decisions import make_sorting
from agents.sorter.journal import SortingJournal
from agents.sorter.part_states import PartState, PartStates, restore_states
from streams.records import Sorting, Verdict
from streams.settings import Settings
from tests.agents.sorter.test_sorter_records import GATE, LINE, report, running
from tests.fake_inspector import make_verdict

SETTINGS = Settings.model_validate({"lines": [{"name": LINE, "gate": GATE}]})
BEGAN_AT = datetime.now(UTC) - timedelta(hours=3)


@dataclass(frozen=True)
class Stored:
    topic: str
    key: bytes
    value: bytes
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


class Topics:
    """Stands for the Kafka consumer of a restarted sorter. From each topic, Kafka has removed `removed` older records."""

    def __init__(self, verdicts: Sequence[Verdict], sortings: Sequence[Sorting], removed: int) -> None:
        self._logs = {"verdicts": [self._store(verdict, verdict.decided_at) for verdict in verdicts]}
        self._logs["sorted"] = [self._store(sorting, sorting.sorted_at) for sorting in sortings]
        self._removed = removed
        self._positions: dict[TopicPartition, int] = {}

    def _store(self, record: Verdict | Sorting, at: datetime) -> Stored:
        return Stored("topic", record.part_id.key, record.encode(), int(at.timestamp() * 1000))

    def _log(self, place: TopicPartition) -> list[Stored]:
        return self._logs["sorted" if "sorted" in place.topic else "verdicts"]

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._positions = dict.fromkeys(places, 0)

    def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: self._removed + len(self._log(place)) for place in places}

    def beginning_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, self._removed)

    def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        return {place: self._find(place, time_ms) for place, time_ms in times.items()}

    def _find(self, place: TopicPartition, time_ms: int) -> OffsetAndTimestamp | None:
        offsets = (offset for offset, stored in enumerate(self._log(place), self._removed) if stored.timestamp >= time_ms)
        return next((OffsetAndTimestamp(offset, time_ms, -1) for offset in offsets), None)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    def position(self, place: TopicPartition) -> int:
        return self._positions[place]

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Stored]]:
        (place,) = self._positions
        records = self._log(place)[self._positions[place] - self._removed :]
        self._positions[place] += len(records)
        return {place: records}

    def close(self) -> None: ...


def restore(
    folder: Path, verdicts: Sequence[Verdict], sortings: Sequence[Sorting], unsent: Sequence[Sorting] = (), removed: int = 0
) -> PartStates:
    journal = SortingJournal(folder / "restored", LINE)
    journal.append(unsent)
    try:
        return restore_states(SETTINGS, LINE, journal, lambda *_, **__: Topics(verdicts, sortings, removed))
    finally:
        journal.close()


def counted_at(part: int) -> datetime:
    return BEGAN_AT + timedelta(seconds=part)


def judge(part: int) -> Verdict:
    return make_verdict(LINE, 7, part, "ok", counted_at(part))


def record(part: int) -> Sorting:
    at = counted_at(part)
    event = replace(report(part, part, run=7), counted_at=at, at_gate_at=at + timedelta(seconds=2))
    return make_sorting(event, PartState(), LINE, GATE.board_name, 0, at + timedelta(seconds=2))


async def find_lost(folder: Path, states: PartStates, next_part: int) -> list[int]:
    """Starts a sorter with `states`. Returns the parts that count as lost after the board has reported `next_part`."""
    async with running(folder, states) as rig:
        rig.sorter.handle_event(RunBegan(7, "power"))
        rig.sorter.handle_event(report(next_part, next_part, run=7))
        await rig.wait_for_records(1)
        lost: list[int] = []
        while found := rig.sorter._lost_reports.take_lost(time.monotonic() + 60):
            lost += [part for _, part in found]
        return lost


def test_a_restarted_sorter_takes_no_part_for_lost_whose_record_it_does_not_remember(tmp_path: Path) -> None:
    """The camera failed after part 5000. So the states hold the judged parts until 5000, and the newest parts without a verdict."""
    verdicts = [judge(part) for part in range(1, 5001)]
    sortings = [record(part) for part in range(1, 9001) if part not in (6000, 8999)]
    states = restore(tmp_path, verdicts, sortings)
    assert states.last_sorting(7, 6500) is None
    assert asyncio.run(find_lost(tmp_path, states, 9001)) == [6000, 8999]


@pytest.mark.real
def test_a_restarted_sorter_with_a_large_journal_takes_no_part_for_lost_whose_record_it_has_not_read(tmp_path: Path) -> None:
    """Kafka was away for hours: it has the records until part 1000, and the journal has more than the sorter reads. Part 19000 is lost."""
    sortings = [record(part) for part in range(1, 1001)]
    unsent = [record(part) for part in range(1001, 20_001) if part != 19_000]
    states = restore(tmp_path, [judge(part) for part in range(1, 1001)], sortings, unsent)
    assert asyncio.run(find_lost(tmp_path, states, 20_001)) == [19_000]


def test_a_part_that_was_recorded_late_does_not_make_the_unread_records_look_lost(tmp_path: Path) -> None:
    """Kafka has removed the older records. The oldest remaining one is about part 80, which an additional gate sorted late."""
    late = record(80).model_copy(update={"sorted_at": record(101).sorted_at})
    states = restore(tmp_path, [], [late, *(record(part) for part in range(101, 200) if part not in (102, 150))], removed=100)
    assert asyncio.run(find_lost(tmp_path, states, 200)) == [150]


def test_a_full_journal_does_not_displace_the_verdicts_on_the_castings_on_the_belt(tmp_path: Path) -> None:
    states = restore(tmp_path, [judge(part) for part in range(5001, 5010)], [], [record(part) for part in range(1, 5001)])
    assert [states.get(7, part).label for part in range(5001, 5010)] == ["ok"] * 9
