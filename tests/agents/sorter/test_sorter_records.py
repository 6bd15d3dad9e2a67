"""The records of a sorter whose board is away for a while, or is reset. The journal is on a real disk. The test makes the events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from agents.gate.lane import BoardClock, GateLane, GateState, PartCounted, PartSorted, RunBegan
from agents.gate.requests import RequestWindow, gate_error
from agents.sorter.decisions import make_sorting
from agents.sorter.journal import SortingJournal
from agents.sorter.journal_sender import JournalSender
from agents.sorter.part_states import PartState, PartStates, join_states
from agents.sorter.sorter import MAX_OPEN_VERDICTS, Sorter, _Refusal
from streams.record_producer import ConsumedRecord, ProducerRecord, RecordProducer
from streams.records import Sorting, Verdict
from streams.settings import GateSettings, Settings
from streams.worker import ReceivedRecord
from tests.fake_inspector import make_verdict

LINE = "line-1"
GATE = GateSettings(port="board")


class AbsentKafka(RecordProducer):
    """Stands for a Kafka that never confirms a record."""

    def __init__(self) -> None:
        """Creates no connection."""

    async def deliver(self, records: Sequence[ProducerRecord]) -> list[ProducerRecord]:
        await asyncio.Event().wait()
        return []


class Rig:
    """A sorter with its journal. `records` are the records in the journal."""

    def __init__(
        self,
        folder: Path,
        states: PartStates | None = None,
        producer: RecordProducer | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.requests = RequestWindow(size=8)
        self.lane = GateLane(LINE, 1, None, {}, BoardClock(), self.requests, lambda event: None)
        self.journal = SortingJournal(folder, LINE)
        settings = settings or Settings.model_validate({"lines": [{"name": LINE, "gate": GATE}]})
        producer = producer or AbsentKafka()
        sender = JournalSender(self.journal, producer, "topic", "sorter", lambda problem: None)
        self.sorter = Sorter(settings, LINE, GATE, self.lane, producer, sender, None, states or PartStates())

    @property
    def records(self) -> list[Sorting]:
        return [entry.sorting for entry in self.journal.read_after(0, 1000)]

    async def wait_for_records(self, count: int) -> list[Sorting]:
        """Returns the records when there are `count` of them."""
        for _ in range(2000):
            if len(self.records) < count:
                await asyncio.sleep(0.005)
        return self.records


@asynccontextmanager
async def running(folder: Path, states: PartStates | None = None) -> AsyncIterator[Rig]:
    rig = Rig(folder, states)
    recording = asyncio.create_task(rig.sorter.record_events())
    try:
        yield rig
    finally:
        recording.cancel()
        rig.journal.close()


def received(verdict: Verdict, event: object = None, stream: object = None) -> ReceivedRecord:
    record = ConsumedRecord("topic", 0, 0, verdict.part_id.key, verdict.encode(), {})
    return ReceivedRecord(record, datetime.now(UTC), cast(Any, event), cast(Any, stream))


def report(part: int, event: int = 7, run: int = 1) -> PartSorted:
    now = datetime.now(UTC)
    return PartSorted(event, run, part, "divert", "no-verdict", True, 1, now, now)


def test_a_part_that_was_sorted_while_the_board_was_away_gets_no_record_before_its_report(tmp_path: Path) -> None:
    """After a restart, a verdict is too late for its part, and the board has not reported the part yet."""

    async def run() -> None:
        async with running(tmp_path) as rig:
            verdict = make_verdict(LINE, 1, 3, "defect", datetime.now(UTC) - timedelta(seconds=30))
            handling = asyncio.create_task(rig.sorter._handle_verdict(received(verdict)))
            while not len(rig.requests):  # noqa: ASYNC110
                await asyncio.sleep(0)
            rig.requests.drop_expired(time.monotonic())
            rig.lane.set_state(GateState.RUNNING)
            await asyncio.sleep(0.1)
            assert rig.records == []
            rig.sorter.handle_event(report(3))
            assert await handling
            records = await rig.wait_for_records(2)
            assert [(record.action, record.event, record.late, record.gate_moved) for record in records] == [
                ("diverted", 7, False, True),
                ("diverted", 7, True, True),
            ]

    asyncio.run(run())


def test_a_report_that_an_earlier_process_has_recorded_gets_no_second_record(tmp_path: Path) -> None:
    """The process ended before the board received the acknowledgement, so the board repeats its report."""

    async def run() -> None:
        async with running(tmp_path) as first:
            first.sorter.handle_event(report(3))
            await first.wait_for_records(1)
        async with running(tmp_path) as second:
            for record in second.records:
                second.sorter._states.add_sorting(record)
            second.sorter.handle_event(report(3))
            second.sorter.handle_event(report(4, event=8))
            records = await second.wait_for_records(2)
            assert [record.part for record in records] == [3, 4]
            for _ in range(2000):
                if len(second.requests) < 2:
                    await asyncio.sleep(0.005)
            assert len(second.requests) == 2, "both reports are acknowledged"

    asyncio.run(run())


def test_a_move_that_the_chutes_eye_did_not_see_is_counted_for_the_alert(tmp_path: Path) -> None:
    """The alert MoveUnconfirmed uses this metric. Parts that a fault removed from the way to the chute are not counted."""

    def count(confirmed: str) -> float:
        return REGISTRY.get_sample_value("castline_moves_confirmed_total", {"line": LINE, "confirmed": confirmed}) or 0.0

    async def run() -> None:
        before = [count(confirmed) for confirmed in ("yes", "no")]
        async with running(tmp_path) as rig:
            rig.sorter.handle_event(replace(report(3), is_confirmed=True))
            rig.sorter.handle_event(replace(report(4, event=8), is_confirmed=False))
            rig.sorter.handle_event(replace(report(5, event=9), is_confirmed=False, reason="safe"))
            records = await rig.wait_for_records(3)
        assert [record.confirmed for record in records] == ["yes", "no", "no"]
        assert [count(confirmed) for confirmed in ("yes", "no")] == [before[0] + 1, before[1] + 1]

    asyncio.run(run())


def test_a_reset_gives_each_counted_and_unreported_part_one_record(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as rig:
            rig.sorter.handle_event(RunBegan(1, "power"))
            for part in (1, 2, 3):
                rig.sorter.handle_event(PartCounted(1, part, datetime.now(UTC), 0.0, time.monotonic()))
            rig.sorter.handle_event(report(1))
            await rig.wait_for_records(1)
            # Both resets are handled together.
            rig.sorter.handle_event(RunBegan(2, "button"))
            rig.sorter.handle_event(PartCounted(2, 1, datetime.now(UTC), 0.0, time.monotonic()))
            rig.sorter.handle_event(RunBegan(3, "button"))
            records = await rig.wait_for_records(4)
            assert [(record.run, record.part, record.action, record.reason) for record in records] == [
                (1, 1, "diverted", "no-verdict"),
                (1, 2, "untracked", "board-restarted"),
                (1, 3, "untracked", "board-restarted"),
                (2, 1, "untracked", "board-restarted"),
            ]
            assert rig.journal.counted_parts() == []

    asyncio.run(run())


def test_a_reset_closes_no_part_that_was_counted_after_it(tmp_path: Path) -> None:
    """If the disk is full and Kafka is away, the sorter handles two resets only after the board has counted parts of the newest run."""

    async def run() -> None:
        async with running(tmp_path) as rig:
            rig.sorter.handle_event(RunBegan(1, "power"))
            rig.sorter.handle_event(PartCounted(1, 1, datetime.now(UTC), 0.0, time.monotonic()))
            rig.sorter.handle_event(RunBegan(2, "power"))
            rig.sorter.handle_event(RunBegan(3, "power"))
            rig.sorter.handle_event(PartCounted(3, 1, datetime.now(UTC), 0.0, time.monotonic()))
            rig.sorter.handle_event(report(1, event=0, run=3))
            records = await rig.wait_for_records(2)
            assert [(record.run, record.part, record.reason) for record in records] == [(1, 1, "board-restarted"), (3, 1, "no-verdict")]

    asyncio.run(run())


@pytest.mark.parametrize("error", ["unknown-run", "deadline"])
def test_a_refused_verdict_is_not_recorded_before_the_report_of_its_part(tmp_path: Path, error: str) -> None:
    """If the disk is full and Kafka is away, reports wait in the sorter's memory. Meanwhile, Kafka can deliver a verdict again."""

    async def run() -> None:
        rig = Rig(tmp_path)
        rig.sorter.handle_event(report(3))
        verdict = make_verdict(LINE, 1, 3, "defect", datetime.now(UTC) - timedelta(seconds=30))
        refusal = _Refusal(verdict, gate_error(error, "VERDICT"), time.monotonic() - 30)
        handling = asyncio.create_task(rig.sorter._record_refusal(refusal))
        await asyncio.sleep(0.1)
        assert rig.records == []
        recording = asyncio.create_task(rig.sorter.record_events())
        assert await handling
        records = await rig.wait_for_records(1)
        assert {(record.part, record.event, record.action) for record in records} == {(3, 7, "diverted")}
        recording.cancel()
        rig.journal.close()

    asyncio.run(run())


@pytest.mark.parametrize(("late_s", "reported_first"), [(5.0, []), (60.0, [3])], ids=["damaged report", "unrecorded reports"])
def test_a_late_verdict_waits_for_a_report_that_the_board_repeats(tmp_path: Path, late_s: float, reported_first: list[int]) -> None:
    """A report was damaged on the serial line. The board repeats its oldest reports until they are recorded, and only then the later ones.

    Reports stay unrecorded for long if the disk is full and Kafka is away.
    """

    async def run() -> None:
        rig = Rig(tmp_path)
        rig.lane.set_state(GateState.RUNNING)
        rig.lane._connection_changed_s -= 60.0
        for part in reported_first:
            rig.sorter.handle_event(report(part))
        verdict = make_verdict(LINE, 1, 4, "defect", datetime.now(UTC) - timedelta(seconds=late_s))
        refusal = _Refusal(verdict, gate_error("deadline", "VERDICT"), time.monotonic() - late_s)
        handling = asyncio.create_task(rig.sorter._record_refusal(refusal))
        await asyncio.sleep(0.1)
        assert rig.records == []
        rig.sorter.handle_event(report(4, event=8))
        recording = asyncio.create_task(rig.sorter.record_events())
        assert await handling
        records = [(record.event, record.action, record.late) for record in rig.records if record.part == 4]
        assert records == [(8, "diverted", False), (8, "diverted", True)]
        recording.cancel()
        rig.journal.close()

    asyncio.run(run())


def test_a_record_of_the_outage_recorder_gets_the_name_of_a_verdict_that_kafka_does_not_deliver_again(tmp_path: Path) -> None:
    """The earlier sorter sent the verdict to the board and acknowledged it to Kafka. The outage recorder does not know verdicts."""

    async def run() -> None:
        now = datetime.now(UTC)
        verdict = make_verdict(LINE, 1, 3, "defect", now)
        obeyed = replace(report(3), reason="verdict")
        states = PartStates()
        states.get(1, 3).set_verdict(verdict)
        states.add_sorting(make_sorting(obeyed, PartState(), LINE, GATE.board_name, 0, now, None))
        async with running(tmp_path, states) as rig:
            (record,) = await rig.wait_for_records(1)
            assert (record.event, record.action, record.label) == (obeyed.event, "diverted", "defect")
            assert record.verdict_id == verdict.verdict_id
        async with running(tmp_path, states) as rig:
            rig.sorter.handle_event(report(4, event=8))
            assert [record.part for record in await rig.wait_for_records(2)] == [3, 4], "the record was completed twice"

    asyncio.run(run())


def test_parts_whose_reports_the_board_has_lost_get_a_record(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as rig:
            rig.sorter.handle_event(RunBegan(1, "power"))
            rig.sorter.handle_event(report(1, event=0))
            rig.sorter.handle_event(report(4, event=9))
            rig.sorter.handle_event(RunBegan(2, "button"))
            records = await rig.wait_for_records(4)
            assert [(record.part, record.action, record.reason) for record in records] == [
                (1, "diverted", "no-verdict"),
                (4, "diverted", "no-verdict"),
                (2, "untracked", "board-restarted"),
                (3, "untracked", "board-restarted"),
            ]

    asyncio.run(run())


@pytest.mark.parametrize("error", ["unknown-part", "unknown-run", "late"])
def test_a_verdict_on_a_part_that_was_recorded_as_lost_gives_no_record_of_another_reason(tmp_path: Path, error: str) -> None:
    async def run() -> None:
        async with running(tmp_path) as rig:
            rig.sorter.handle_event(RunBegan(1, "power"))
            rig.sorter.handle_event(report(1, event=0))
            rig.sorter.handle_event(report(3, event=9))
            rig.sorter.handle_event(RunBegan(2, "button"))
            lost = (await rig.wait_for_records(3))[2]
            assert (lost.part, lost.reason) == (2, "board-restarted")
            verdict = make_verdict(LINE, 1, 2, "defect", datetime.now(UTC) - timedelta(seconds=30))
            rig.lane.run = 1 if error == "late" else 2
            rig.sorter._states.get(1, 2).set_verdict(verdict)
            assert await rig.sorter._record_refusal(_Refusal(verdict, gate_error(error, "VERDICT"), time.monotonic() - 20))
            rig.sorter.handle_event(RunBegan(3, "button"))
            rig.sorter.handle_event(report(1, event=0, run=3))
            records = await rig.wait_for_records(5 if error == "late" else 4)
            of_part = [(record.reason, record.late, record.verdict_id) for record in records if (record.run, record.part) == (1, 2)]
            assert of_part[0] == ("board-restarted", False, None)
            # A late verdict is added to the record, as for any other part.
            assert of_part[1:] == ([("board-restarted", True, verdict.verdict_id)] if error == "late" else [])

    asyncio.run(run())


def test_many_lost_reports_do_not_displace_what_the_sorter_knows_about_the_castings_on_the_belt(tmp_path: Path) -> None:
    """After a very large gap in the part numbers, the board is reset. The parts in the gap get their records in portions."""

    async def run() -> None:
        states = PartStates()
        async with running(tmp_path, states) as rig:
            rig.sorter.handle_event(RunBegan(1, "power"))
            rig.sorter.handle_event(report(1, event=1))
            rig.sorter.handle_event(report(6000, event=9))
            await rig.wait_for_records(2)
            states.get(2, 1).set_verdict(make_verdict(LINE, 2, 1, "defect", datetime.now(UTC)))
            rig.sorter.handle_event(RunBegan(2, "button"))
            rig.sorter.handle_event(replace(report(1, event=3, run=2), reason="verdict"))
            for _ in range(2000):
                if rig.journal.read_newest(1)[0].sorting.part != 5999:
                    await asyncio.sleep(0.01)
            newest = [entry.sorting for entry in rig.journal.read_newest(6000)]
            ended = [record.part for record in newest if record.reason == "board-restarted"]
            assert ended == list(range(2, 6000))
            (of_belt,) = [record for record in newest if record.run == 2]
            assert (of_belt.label, newest.index(of_belt) <= 2 + 256) == ("defect", True)
            assert states.is_known(1, 6000)

    asyncio.run(run())


class Commits:
    """Stands for the consumer group. `acknowledged` are the parts whose verdicts the sorter has acknowledged to Kafka."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    async def ack(self, part: int) -> None:
        self.acknowledged.append(part)

    def deliver(self, verdict: Verdict) -> ReceivedRecord:
        return received(verdict, verdict.part, self)


async def drop_expired(requests: RequestWindow) -> None:
    """Does what the gate link does while the board is away: verdicts whose deadline has passed are not sent."""
    while True:
        requests.drop_expired(time.monotonic())
        await asyncio.sleep(0.001)


@asynccontextmanager
async def running_without_board(folder: Path) -> AsyncIterator[tuple[Rig, Commits]]:
    async with running(folder) as rig:
        others = [asyncio.create_task(each) for each in (rig.sorter.acknowledge_verdicts(), drop_expired(rig.requests))]
        try:
            yield rig, Commits()
        finally:
            for each in others:
                each.cancel()


def make_late(part: int) -> Verdict:
    return make_verdict(LINE, 1, part, "defect", datetime.now(UTC) - timedelta(seconds=30))


def test_late_verdicts_that_wait_for_an_absent_board_keep_no_fresh_verdict_in_kafka(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_without_board(tmp_path) as (rig, commits):
            async with asyncio.timeout(10):
                for part in range(1, MAX_OPEN_VERDICTS + 11):
                    await rig.sorter.accept(commits.deliver(make_late(part)))
            assert rig.records == [], "the board may still report these parts"
            fresh = make_verdict(LINE, 1, 100, "defect", datetime.now(UTC) + timedelta(hours=1))
            await rig.sorter.accept(commits.deliver(fresh))
            for _ in range(2000):
                if not any(request.fields[2:3] == ("100",) for request in rig.requests.queued):
                    await asyncio.sleep(0.001)
            assert [request.fields[2] for request in rig.requests.queued] == ["100"], "the gate link sends the fresh verdict"

    asyncio.run(run())


def test_a_sorter_that_stops_while_the_board_is_away_leaves_late_verdicts_of_unreported_parts_in_kafka(tmp_path: Path) -> None:
    """The next sorter gets the verdict again. A record now would be the first of two records of the part."""

    async def run() -> None:
        async with running_without_board(tmp_path) as (rig, commits):
            await rig.sorter.accept(commits.deliver(make_late(3)))
            async with asyncio.timeout(10):
                await rig.sorter.drain()
            assert (rig.records, commits.acknowledged) == ([], [])

    asyncio.run(run())


def test_a_late_verdict_that_an_earlier_process_left_is_in_the_record_although_kafka_does_not_deliver_it_again(tmp_path: Path) -> None:
    """The sorter begins with verdicts that are newer than the way from photo-eye 1 to photo-eye 2."""

    async def run() -> None:
        verdicts = [make_late(3), make_late(4)]
        states = join_states(verdicts, [])
        before = REGISTRY.get_sample_value("castline_verdicts_late_total", {"line": LINE}) or 0.0
        async with running(tmp_path, states) as rig:
            rig.sorter.handle_event(report(3, event=7))
            rig.sorter.handle_event(replace(report(4, event=8), reason="verdict"))
            records = await rig.wait_for_records(2)
            assert [(record.reason, record.late, record.code, record.label, record.verdict_id) for record in records] == [
                ("late-verdict", True, 20, "defect", verdicts[0].verdict_id),
                ("verdict", False, 0, "defect", verdicts[1].verdict_id),
            ]
        assert REGISTRY.get_sample_value("castline_verdicts_late_total", {"line": LINE}) == before + 1

    asyncio.run(run())


def test_a_part_that_passed_without_a_verdict_on_a_paused_line_is_not_recorded_as_late(tmp_path: Path) -> None:
    """A paused line gives the board no verdicts. The sorter restarts before the board reports the part."""

    async def run() -> None:
        states = join_states([make_late(3)], [])
        before = REGISTRY.get_sample_value("castline_verdicts_late_total", {"line": LINE}) or 0.0
        async with running(tmp_path, states) as rig:
            rig.lane.is_paused = True
            rig.sorter.handle_event(report(3, event=7))
            (record,) = await rig.wait_for_records(1)
            assert (record.reason, record.late) == ("no-verdict", False)
        assert (REGISTRY.get_sample_value("castline_verdicts_late_total", {"line": LINE}) or 0.0) == before

    asyncio.run(run())


def test_a_verdict_that_the_board_obeyed_during_an_outage_is_not_recorded_as_late(tmp_path: Path) -> None:
    """The outage recorder wrote a record without the verdict. Kafka then delivers the verdict again, too late for the gate."""

    async def run() -> None:
        verdict = make_verdict(LINE, 1, 5, "defect", datetime.now(UTC) - timedelta(seconds=30))
        states = PartStates()
        obeyed = replace(report(5), reason="verdict")
        states.add_sorting(make_sorting(obeyed, PartState(), LINE, "board", 0, datetime.now(UTC)))
        async with running(tmp_path, states) as rig:
            rig.lane.run = 1
            refusal = _Refusal(verdict, gate_error("late", "VERDICT"), time.monotonic() - 20)
            states.get(1, 5).set_verdict(verdict)
            assert await rig.sorter._record_refusal(refusal)
            assert [(each.late, each.reason, each.code, each.verdict_id) for each in rig.records] == [
                (False, "verdict", 0, verdict.verdict_id)
            ]

    asyncio.run(run())
