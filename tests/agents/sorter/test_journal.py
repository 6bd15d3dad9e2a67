"""The sorter's journal on a real disk: killed writers, damaged files, a full disk, and the order of records."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError

from agents.gate.lane import BoardClock, GateLane, PartCounted, PartSorted
from agents.gate.requests import RequestWindow
from agents.sorter.decisions import make_untracked_sorting
from agents.sorter.journal import CountedPart, JournalError, SortingJournal
from agents.sorter.journal_sender import JournalSender
from agents.sorter.part_reports import PartReports
from agents.sorter.part_states import PartState, PartStates
from agents.sorter.sorter import Sorter
from streams.errors import SettingsError
from streams.record_producer import ProducerRecord, RecordProducer
from streams.records import Sorting
from streams.settings import GateSettings, Settings
from tests.event_loop import wait_until
from tests.held_kafka import HeldKafka

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def sorting(part: int) -> Sorting:
    return make_untracked_sorting(PartState(counted_at=NOW), "line-1", 1, part, "board", "board-restarted", 21, NOW)


def parts_of(journal: SortingJournal) -> list[int]:
    return [entry.sorting.part for entry in journal.read_after(0, 100_000)]


WRITER = """
import sys, itertools
from pathlib import Path
from agents.sorter.journal import SortingJournal
from tests.agents.sorter.test_journal import sorting
journal = SortingJournal(Path(sys.argv[1]), "line-1")
for part in itertools.count(1):
    journal.append([sorting(part)])
    print(part, flush=True)
"""


def killed_writer(folder: Path, records: int) -> int:
    """Lets a process write records until it has confirmed `records` of them, kills it, and returns the last confirmed part."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == records:
            writer.send_signal(signal.SIGKILL)
            break
    confirmed = [records, *(int(line) for line in writer.stdout.read().split("\n")[:-1])]
    writer.stdout.close()
    writer.wait()
    return confirmed[-1]


@pytest.mark.real
def test_a_killed_writer_loses_no_confirmed_record(tmp_path: Path) -> None:
    confirmed = killed_writer(tmp_path, 50)
    journal = SortingJournal(tmp_path, "line-1")
    found = parts_of(journal)
    journal.close()
    assert found[:confirmed] == list(range(1, confirmed + 1))
    assert len(found) <= confirmed + 1, "at most the record that was being written comes in addition"


@pytest.mark.real
@pytest.mark.parametrize("damage", ["cut", "overwritten", "garbage behind"])
def test_a_damaged_tail_costs_only_the_records_in_the_tail(tmp_path: Path, damage: str) -> None:
    confirmed = killed_writer(tmp_path, 50)
    tail = tmp_path / "line-1.sqlite-wal"
    content = tail.read_bytes()
    damaged = {"cut": content[:-700], "overwritten": content[:-700] + b"\x5a" * 700, "garbage behind": content + b"\x5a" * 5000}
    tail.write_bytes(damaged[damage])
    journal = SortingJournal(tmp_path, "line-1")
    found = parts_of(journal)
    journal.append([sorting(1000)])
    assert parts_of(journal) == [*found, 1000]
    journal.close()
    assert found == list(range(1, len(found) + 1))
    # A record takes more than 700 bytes of the tail, so the damage reaches at most the last record and the one that was being written.
    assert len(found) >= (confirmed if damage == "garbage behind" else confirmed - 1)


def test_a_damaged_file_is_set_aside_and_the_sorter_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "line-1.sqlite").write_bytes(b"no database" * 1000)
    journal = SortingJournal(tmp_path, "line-1")
    journal.append([sorting(1)])
    assert parts_of(journal) == [1]
    journal.close()
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes().startswith(b"no database")
    assert "is damaged" in caplog.text
    assert aside.name in caplog.text


def test_a_damaged_file_is_named_until_a_person_moves_it_away(tmp_path: Path) -> None:
    (tmp_path / "line-1.sqlite").write_bytes(b"no database" * 1000)
    for _ in range(2):
        journal = SortingJournal(tmp_path, "line-1")
        (aside,) = tmp_path.glob("*.damaged-*")
        assert journal.find_complaint() == (
            f"the journal of line-1 was damaged, and sorting records were perhaps not sent: check the disk, and move {aside.name} out of "
            f"{tmp_path}"
        )
        journal.close()
    aside.rename(tmp_path / "elsewhere")
    journal.list_set_aside()
    assert journal.find_complaint() == ""


class DamagingJournal(SortingJournal):
    """A journal on a disk that is full at first. Later the disk damages each file before it can be opened."""

    fault_of_disk = "full"

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        if self.fault_of_disk == "full":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        if self.fault_of_disk:
            self._path.write_bytes(b"no database" * 1000)
        return super()._open()


def test_a_disk_that_damages_all_journals_does_not_fill_itself_with_them(tmp_path: Path) -> None:
    times = itertools.count(step=6)
    journal = DamagingJournal(tmp_path, "line-1", lambda: next(times))
    journal.fault_of_disk = "damages each file"
    for _ in range(30):
        with pytest.raises(JournalError, match="The disk damages each new journal of line-1"):
            journal.append([sorting(1)])
    assert [file.name for file in tmp_path.iterdir()] == ["line-1.lock"], "the new files held no records"
    journal.fault_of_disk = ""
    journal.append([sorting(1)])
    assert parts_of(journal) == [1]
    journal.close()


def test_starts_on_a_disk_that_damages_new_journals_leave_no_files_behind(tmp_path: Path) -> None:
    class Damaged(DamagingJournal):
        fault_of_disk = "damages each file"

    SortingJournal(tmp_path, "line-1").close()
    for _ in range(20):
        journal = Damaged(tmp_path, "line-1")
        assert journal.fault.startswith("The disk damages each new journal of line-1"), "the sorter goes on, and its line still sorts"
        with pytest.raises(JournalError, match="The disk damages each new journal of line-1"):
            journal.append([sorting(1)])
        journal.close()
    assert len(list(tmp_path.glob("*.damaged-*[0-9]"))) == 1, "only the journal of the first start perhaps holds records"


def test_a_second_sorter_on_the_same_journal_is_refused(tmp_path: Path) -> None:
    journal = SortingJournal(tmp_path, "line-1")
    with pytest.raises(SettingsError, match="another sorter already uses the journal"):
        SortingJournal(tmp_path, "line-1")
    journal.close()


def test_a_counted_part_is_kept_until_its_record_is_written(tmp_path: Path) -> None:
    journal = SortingJournal(tmp_path, "line-1")
    journal.append([], [CountedPart(1, 1, NOW), CountedPart(1, 2, NOW)], run=7)
    journal.append([sorting(1)])
    journal.close()
    journal = SortingJournal(tmp_path, "line-1")
    assert journal.counted_parts() == [CountedPart(1, 2, NOW)]
    assert journal.last_run() == 7
    journal.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from agents.sorter.journal import JournalError, SortingJournal
from tests.agents.sorter.test_journal import parts_of, sorting
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = SortingJournal(Path(sys.argv[1]), "line-1")
journal.append([sorting(1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1], "line-1.sqlite-wal").stat().st_size + 100, resource.RLIM_INFINITY))
try:
    journal.append([sorting(2)])
except JournalError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append([sorting(3)])
print(parts_of(journal))
"""


def test_a_full_disk_refuses_with_a_sentence_and_accepts_again_when_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    refused, parts = done.stdout.splitlines()
    assert "cannot be written" in refused
    assert "Free space on its disk" in refused
    assert parts == "[1, 3]"


UNUSABLE_LATER = """
import resource, signal, sqlite3, sys
from pathlib import Path
from agents.sorter.journal import JournalError, SortingJournal
from tests.agents.sorter.test_journal import parts_of, sorting
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
seconds = 0.0
journal = SortingJournal(Path(sys.argv[1]), "line-1", lambda: seconds)
print(bool(journal.fault))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file = Path(sys.argv[1], "line-1.sqlite")
other = sqlite3.connect(file)
other.execute("CREATE TABLE other (seq)")
other.execute("CREATE INDEX sortings ON other (seq)")
other.close()
for seconds in (5.0, 6.0):
    try:
        journal.append([sorting(1)])
    except JournalError as error:
        print(error)
    file.unlink(missing_ok=True)
seconds = 10.0
journal.append([sorting(2)])
print(parts_of(journal))
"""


def test_a_journal_that_cannot_be_used_later_refuses_records_and_does_not_end_the_sorter(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", UNUSABLE_LATER, str(tmp_path)], capture_output=True, text=True, check=True)
    had_fault, refused, refused_again, parts = done.stdout.splitlines()
    assert had_fault == "True"
    assert "cannot be used (there is already an index named sortings)" in refused
    assert refused_again == refused, "the journal tries again only after five seconds"
    assert parts == "[2]"


class HeldProducer(RecordProducer):
    """Stands for Kafka, which confirms no record before `is_back` is set."""

    def __init__(self) -> None:
        self.delivered: list[int] = []
        self.is_back = asyncio.Event()
        self.is_asked = asyncio.Event()

    async def deliver(self, records: Sequence[ProducerRecord]) -> list[ProducerRecord]:
        self.is_asked.set()
        await self.is_back.wait()
        self.delivered += [Sorting.decode(record.value or b"").part for record in records]
        return []


class RefusingJournal(SortingJournal):
    """A journal whose disk is full while `is_full` is true."""

    is_full = False

    def append(self, *arguments: object, **options: object) -> None:
        if self.is_full:
            raise JournalError("The disk is full.")
        super().append(*arguments, **options)  # type: ignore[arg-type]


def test_records_are_safe_without_kafka_and_go_to_kafka_in_order_even_if_the_disk_fills(tmp_path: Path) -> None:
    async def run() -> None:
        journal, producer, problems = RefusingJournal(tmp_path, "line-1"), HeldProducer(), list[str]()
        sender = JournalSender(journal, producer, "topic", "sorter", problems.append)
        sending = asyncio.create_task(sender.send_records())
        for part in range(1, 301):
            await sender.store([sorting(part)])
        await producer.is_asked.wait()
        assert producer.delivered == []
        assert parts_of(journal) == list(range(1, 301)), "a record was removed before Kafka had it"
        journal.is_full = True
        refused = asyncio.create_task(sender.store([sorting(301)]))
        await asyncio.sleep(0.05)
        assert not refused.done(), "the board must keep its report, because neither disk nor Kafka has it"
        assert problems[-1] == "The disk is full."
        producer.is_back.set()
        await refused
        journal.is_full = False
        await sender.store([sorting(302)])
        assert problems[-1] == ""
        await sender.wait_until_sent(10)
        assert producer.delivered == list(range(1, 303))
        assert journal.read_after(0, 10) == []
        sending.cancel()
        journal.close()

    asyncio.run(run())


@pytest.mark.asyncio
async def test_a_record_that_the_full_disk_refuses_is_safe_only_when_kafka_has_confirmed_it(tmp_path: Path) -> None:
    journal, kafka = RefusingJournal(tmp_path, "line-1"), HeldKafka()
    sender = JournalSender(journal, kafka.make_producer("sorter"), "topic", "sorter", lambda problem: None)
    sending = asyncio.create_task(sender.send_records())
    # The journal is empty, so nothing else holds up the record.
    await sender.wait_until_sent(10)
    journal.is_full = True
    storing = asyncio.create_task(sender.store([sorting(1)]))
    await kafka.wait_for(1)
    assert not storing.done(), "neither the disk nor Kafka has the record, so the board must keep its report"
    await kafka.refuse(KafkaConnectionError())
    assert not storing.done()
    await kafka.wait_for(1)
    await kafka.confirm()
    assert not await storing
    sending.cancel()
    journal.close()


def test_what_kafka_did_not_confirm_is_sent_by_the_next_process(tmp_path: Path) -> None:
    async def run() -> None:
        journal = SortingJournal(tmp_path, "line-1")
        producer = HeldProducer()
        producer.is_back.set()
        sender = JournalSender(journal, producer, "topic", "sorter", lambda problem: None)
        sending = asyncio.create_task(sender.send_records())
        await sender.wait_until_sent(10)
        assert producer.delivered[:50] == list(range(1, 51))
        sending.cancel()
        journal.close()

    killed_writer(tmp_path, 50)
    asyncio.run(run())


def test_each_record_waits_for_the_disk(tmp_path: Path) -> None:
    """SQLite flushes the file to the disk at each commit only if `synchronous` is at least 2 (FULL)."""
    journal = SortingJournal(tmp_path, "line-1")
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    journal.append([sorting(1)])
    assert not journal._connection.in_transaction
    journal.close()


def report(event: int) -> PartSorted:
    return PartSorted(event, 1, event, "pass", "no-verdict", False, 0, NOW, NOW)


def test_a_report_is_acknowledged_to_the_board_only_when_its_record_is_on_disk(tmp_path: Path) -> None:
    """Another program holds the file, so the record cannot be written yet."""

    async def run() -> None:
        requests = RequestWindow(size=8)
        lane = GateLane("line-1", 1, None, {}, BoardClock(), requests, lambda event: None)
        journal = SortingJournal(tmp_path, "line-1")
        gate = GateSettings(port="board")
        settings = Settings.model_validate({"lines": [{"name": "line-1", "gate": gate}]})
        producer = HeldProducer()
        sender = JournalSender(journal, producer, "topic", "sorter", lambda problem: None)
        sorter = Sorter(settings, "line-1", gate, lane, producer, sender, None, PartStates())
        recording = asyncio.create_task(sorter.record_events())
        other = sqlite3.connect(tmp_path / "line-1.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for event in (1, 2):
            sorter.handle_event(report(event))
        await asyncio.sleep(0.3)
        assert len(requests) == 0, "the board may forget a report only when its record is on disk"
        other.execute("ROLLBACK")
        other.close()
        await wait_until(lambda: len(requests) >= 2)
        assert parts_of(journal) == [1, 2]
        requests.drop_expired(0.0)
        assert [frame.body.split(" ", 1)[1] for frame in requests.take_due(0.0)] == ["ACK 1", "ACK 2"]
        recording.cancel()
        journal.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_part_that_was_not_reported_to_the_gateway_is_remembered_until_it_is(tmp_path: Path) -> None:
    parts = [CountedPart(1, number, NOW) for number in (1, 2, 3)]
    journal = SortingJournal(tmp_path, "line-1")
    journal.append([], parts[:2], unreported=parts[:2])
    journal.append([sorting(1)], parts[2:], unreported=parts[2:], reported=parts[1:2])
    journal.close()
    journal = SortingJournal(tmp_path, "line-1")
    assert journal.unreported_parts() == [parts[0], parts[2]], "a sorted part is still to be reported"
    assert journal.counted_parts() == parts[1:]
    journal.close()


def test_a_write_without_counted_parts_does_not_touch_their_tables(tmp_path: Path) -> None:
    journal, statements = SortingJournal(tmp_path, "line-1"), list[str]()
    journal._connection.set_trace_callback(statements.append)
    journal.append([], run=7)
    assert statements
    assert [statement for statement in statements if "counted" in statement or "reports" in statement] == []
    journal.close()


class AnsweredReports(PartReports):
    """Stands for reports to a gateway that accepts each of them at once."""

    def report(self, counted: PartCounted) -> None:
        self._finish(CountedPart(counted.run, counted.part, counted.counted_at))


class ReportingSorter:
    """A sorter whose parts are reported to a gateway at once. Its journal is on a real disk, and Kafka confirms every record."""

    def __init__(self, folder: Path) -> None:
        self.journal, producer = RefusingJournal(folder, "line-1"), HeldProducer()
        producer.is_back.set()
        gate = GateSettings(port="board")
        settings = Settings.model_validate({"lines": [{"name": "line-1", "gate": gate}]})
        lane = GateLane("line-1", 1, None, {}, BoardClock(), RequestWindow(size=8), lambda event: None)
        self.problems: list[str] = []
        self.sender = JournalSender(self.journal, producer, "topic", "sorter", self.problems.append)
        self.reports = AnsweredReports("http://gateway", "line-1", "", in_time_s=1)
        self.sorter = Sorter(settings, "line-1", gate, lane, producer, self.sender, self.reports, PartStates())

    def count(self, part: int) -> None:
        self.sorter.handle_event(PartCounted(1, part, NOW, 0.0))

    async def wait_for_counted(self, part: int) -> None:
        """Returns when the journal holds `part` as a counted part."""
        await wait_until(lambda: CountedPart(1, part, NOW) in self.journal.counted_parts())


def test_a_report_that_ends_before_its_part_is_in_the_journal_is_not_sent_again(tmp_path: Path) -> None:
    async def run() -> None:
        rig = ReportingSorter(tmp_path)
        rig.count(2)
        await rig.sorter._record(sorting(1))
        recording = asyncio.create_task(rig.sorter.record_events())
        await rig.wait_for_counted(2)
        assert rig.journal.unreported_parts() == []
        recording.cancel()
        rig.journal.close()

    asyncio.run(run())


def test_a_report_that_ends_while_the_disk_is_full_is_not_sent_again(tmp_path: Path) -> None:
    async def run() -> None:
        rig = ReportingSorter(tmp_path)
        rig.journal.append([], unreported=[CountedPart(1, 1, NOW)])
        tasks = [asyncio.create_task(each) for each in (rig.sorter.record_events(), rig.sender.send_records())]
        rig.journal.is_full = True
        rig.reports.report(PartCounted(1, 1, NOW, 0.0))
        rig.count(2)
        await wait_until(lambda: rig.problems)
        rig.journal.is_full = False
        rig.count(3)
        await rig.wait_for_counted(3)
        assert rig.journal.unreported_parts() == []
        for task in tasks:
            task.cancel()
        rig.journal.close()

    asyncio.run(run())


def test_the_newest_records_are_read_in_the_order_of_writing(tmp_path: Path) -> None:
    journal = SortingJournal(tmp_path, "line-1")
    journal.append([sorting(part) for part in range(1, 8)])
    assert [entry.sorting.part for entry in journal.read_newest(3)] == [5, 6, 7]
    journal.close()
