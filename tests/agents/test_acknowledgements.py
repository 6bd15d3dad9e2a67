"""No role acknowledges a record before Kafka, the database or the board has confirmed what the role made of the record."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from aiokafka.errors import KafkaConnectionError

from agents.archivist.archivist import Archivist
from agents.gate.requests import RequestWindow
from firmware.protocol import ANSWER, Frame
from streams.consumed_offsets import ExpiredRecords
from streams.errors import ArchiveError
from streams.identity import PartId
from streams.records import ArchivedRecord
from streams.settings import LineSettings, Settings
from tests.agents.inspector.inspector_rig import RecordingRuntime, run_inspector
from tests.agents.localiser.test_localiser import run_localiser
from tests.agents.sorter.test_sorter_records import Rig
from tests.event_loop import run_ready_tasks, wait_until
from tests.fake_inspector import make_verdict
from tests.held_kafka import HeldKafka
from tests.image_topics import make_jpeg
from tests.sample_records import make_sorting

IMAGES, VERDICTS, SORTED, LETTERS = "castings.images.line-1", "castings.verdicts.line-1", "castings.sorted.line-1", "castings.dead-letters"


@pytest.mark.asyncio
async def test_the_inspector_acknowledges_pictures_after_their_verdicts_and_dead_letters(tmp_path: Path) -> None:
    kafka = HeldKafka()
    async with run_inspector(tmp_path, RecordingRuntime(), kafka.make_producer()) as rig, kafka:
        for offset, picture in enumerate((make_jpeg(1), b"no picture")):
            await rig.inspector.accept(kafka.make_received(IMAGES, offset, b"line-1:1:%d" % (offset + 1), picture))
        sent = await kafka.wait_for(3)
        assert [record.topic for record in sent] == [VERDICTS, VERDICTS, LETTERS]
        assert kafka.acknowledged == [], "Kafka has confirmed nothing"
        await kafka.confirm(2)
        assert kafka.acknowledged == [], "the dead letter is not confirmed"
        await kafka.refuse(KafkaConnectionError())
        assert kafka.acknowledged == [], "Kafka has lost the dead letter"
        assert [record.topic for record in await kafka.wait_for(1)] == [LETTERS], "the verdicts are not sent again"
        await kafka.confirm()
        assert kafka.acknowledged == [0, 1]


@dataclass
class HeldRuntime(RecordingRuntime):
    """A runtime that does not judge its first batch before the test allows it."""

    may_go_on: threading.Event = field(default_factory=threading.Event)
    began: int = 0

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.began += 1
        if self.began == 1:
            assert self.may_go_on.wait(10)
        return super().predict(pixels)


@pytest.mark.asyncio
async def test_the_inspector_acknowledges_its_batches_in_order_although_the_second_batch_is_judged_first(tmp_path: Path) -> None:
    kafka, runtime = HeldKafka(), HeldRuntime()
    async with run_inspector(tmp_path, runtime, kafka.make_producer(), parallel_batches=2) as rig, kafka:
        for offset in range(2):
            await rig.inspector.accept(kafka.make_received(IMAGES, offset, b"line-1:1:%d" % (offset + 1), make_jpeg(1)))
            await wait_until(lambda: runtime.began == offset + 1)  # noqa: B023  The function is called in the same turn of the loop.
        await wait_until(lambda: rig.inspector._batches_at_networks == 1)
        await asyncio.sleep(0.1)
        assert kafka.waiting == [], "Faust would also commit the first picture"
        runtime.may_go_on.set()
        for acknowledged in ([0], [0, 1]):
            await kafka.wait_for(1)
            await kafka.confirm()
            assert kafka.acknowledged == acknowledged


@pytest.mark.asyncio
async def test_the_inspector_waits_until_the_dead_letter_about_expired_pictures_is_confirmed(tmp_path: Path) -> None:
    """The worker commits the offset after the expired pictures as soon as their report has ended."""
    kafka = HeldKafka()
    async with run_inspector(tmp_path, RecordingRuntime(), kafka.make_producer()) as rig, kafka:
        reporting = asyncio.create_task(rig.inspector.report_expired(ExpiredRecords(IMAGES, 0, 5, 7)))
        await kafka.wait_for(1)
        assert not reporting.done()
        await kafka.confirm()
        assert reporting.done()


class HeldArchive:
    """A database that answers only when the test allows it. Before it stores records, it raises `errors`, one for each attempt."""

    def __init__(self, *errors: Exception) -> None:
        self.may_answer = threading.Event()
        self.is_asked = threading.Event()
        self.errors = list(errors)
        self.stored: list[ArchivedRecord] = []

    def write(self, records: Sequence[ArchivedRecord]) -> int:
        self.is_asked.set()
        assert self.may_answer.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        self.stored += records
        return len(records)


@asynccontextmanager
async def run_archivist(kafka: HeldKafka, archive: HeldArchive) -> AsyncIterator[Archivist]:
    settings = Settings(lines=(LineSettings(name="line-1"),))
    archivist = Archivist(settings, archive, kafka.make_producer("archivist"), lambda *_: None)
    writing = asyncio.create_task(archivist.write_batches())
    try:
        yield archivist
    finally:
        archive.may_answer.set()
        await archivist.drain()
        await writing


@pytest.mark.asyncio
async def test_the_archivist_acknowledges_a_record_after_the_database_has_stored_it() -> None:
    kafka, archive, record = HeldKafka(), HeldArchive(ArchiveError("The database is away.")), make_sorting(PartId("line-1", 1, 2))
    async with run_archivist(kafka, archive) as archivist, kafka:
        await archivist.accept(kafka.make_received(SORTED, 0, record.part_id.key, record.encode()))
        await wait_until(archive.is_asked.is_set)
        await run_ready_tasks()
        assert kafka.acknowledged == [], "the database has not answered"
        archive.may_answer.set()
        await wait_until(lambda: not archive.errors)
        await run_ready_tasks()
        assert kafka.acknowledged == [], "the database has failed"
        await wait_until(lambda: kafka.acknowledged == [0])
        assert archive.stored == [record], "a database that is away refuses no record for ever"
        assert kafka.waiting == []


@pytest.mark.asyncio
async def test_the_archivist_acknowledges_an_invalid_record_after_its_dead_letter() -> None:
    kafka = HeldKafka()
    async with run_archivist(kafka, HeldArchive()) as archivist, kafka:
        await archivist.accept(kafka.make_received(SORTED, 0, b"line-1:1:2", b"{"))
        await kafka.wait_for(1)
        assert kafka.acknowledged == []
        await kafka.refuse(KafkaConnectionError())
        assert kafka.acknowledged == []
        await kafka.wait_for(1)
        await kafka.confirm()
        assert kafka.acknowledged == [0]


@pytest.mark.asyncio
async def test_the_localiser_acknowledges_verdicts_in_order_after_their_findings(tmp_path: Path) -> None:
    kafka = HeldKafka()
    async with run_localiser(tmp_path, producer=kafka.make_producer("localiser")) as rig, kafka:
        await rig.send("line-1", 1)
        await rig.send("line-1", 2, "ok")
        await kafka.wait_for(1)
        assert rig.acknowledged == [], "the second verdict needs no finding, but comes after the first one"
        await kafka.confirm()
        assert rig.acknowledged == [1, 2]


class HeldBoard:
    """Stands for the board of a sorter. The board accepts a verdict only when the test calls `accept`."""

    def __init__(self, requests: RequestWindow) -> None:
        self._requests = requests
        self._frames: dict[int, Frame] = {}

    async def wait_for(self, count: int) -> None:
        """Returns when the sorter has sent verdicts on `count` parts."""

        def are_sent() -> bool:
            self._requests.drop_expired(0.0)
            self._frames |= {int(frame.fields[2]): frame for frame in self._requests.take_due(0.0)}
            return len(self._frames) == count

        await wait_until(are_sent)

    async def accept(self, part: int) -> None:
        self._requests.take_answered(Frame(ANSWER, self._frames[part].seq, "OK", ("accepted",)), datetime.now(UTC))
        await run_ready_tasks()


@asynccontextmanager
async def run_sorter(folder: Path, kafka: HeldKafka, *parts: int) -> AsyncIterator[Rig]:
    """Runs a sorter that has accepted verdicts on `parts`. Their offsets are the part numbers."""
    rig = Rig(folder, producer=kafka.make_producer("sorter"))
    for part in parts:
        verdict = make_verdict("line-1", 1, part, "ok", datetime.now(UTC))
        await rig.sorter.accept(kafka.make_received(VERDICTS, part, verdict.part_id.key, verdict.encode()))
    acknowledging = asyncio.create_task(rig.sorter.acknowledge_verdicts())
    try:
        yield rig
    finally:
        rig.requests.drop_all("stopping")
        await run_ready_tasks()
        acknowledging.cancel()
        rig.journal.close()


@pytest.mark.asyncio
async def test_the_sorter_acknowledges_verdicts_in_order_after_the_board_has_accepted_them(tmp_path: Path) -> None:
    kafka = HeldKafka()
    async with run_sorter(tmp_path, kafka, 1, 2, 3) as rig:
        board = HeldBoard(rig.requests)
        await board.wait_for(3)
        await board.accept(2)
        assert kafka.acknowledged == [], "Faust would also commit the first verdict"
        await board.accept(1)
        assert kafka.acknowledged == [1, 2]
        await board.accept(3)
        assert kafka.acknowledged == [1, 2, 3]


@pytest.mark.asyncio
async def test_a_sorter_that_stops_acknowledges_no_verdict_that_the_board_has_not_accepted(tmp_path: Path) -> None:
    kafka = HeldKafka()
    async with run_sorter(tmp_path, kafka, 1, 2) as rig:
        board = HeldBoard(rig.requests)
        await board.wait_for(2)
        await board.accept(2)
        rig.requests.drop_all("stopping")
        await run_ready_tasks()
        assert kafka.acknowledged == []
        assert rig.records == []


@pytest.mark.asyncio
async def test_the_sorter_acknowledges_an_invalid_verdict_after_its_dead_letter(tmp_path: Path) -> None:
    kafka = HeldKafka()
    async with run_sorter(tmp_path, kafka) as rig, kafka:
        await rig.sorter.accept(kafka.make_received(VERDICTS, 0, b"line-1:1:1", b"{"))
        assert [record.topic for record in await kafka.wait_for(1)] == [LETTERS]
        assert kafka.acknowledged == []
        await kafka.refuse(KafkaConnectionError())
        await kafka.wait_for(1)
        assert kafka.acknowledged == []
        await kafka.confirm()
        assert kafka.acknowledged == [0]
