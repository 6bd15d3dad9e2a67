"""The spool, the gateway's queue on disk: order, limits, part ids, and what is left after a kill."""

from __future__ import annotations

import errno
import hashlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agents.gateway.spool import CheckedPicture, GroupCommit, Spool, SpoolBudget
from streams.errors import SettingsError, SpoolFullError
from streams.identity import PartId
from streams.queue_file import make_damage
from tests.agents.gateway.camera_line import wait_until

NOW_S = 1_800_000_000.0


def make_picture(number: int = 1, size: int = 100) -> CheckedPicture:
    value = f"{number:08d}".encode().ljust(size, b".")
    return CheckedPicture(value, datetime.now(UTC), "image/jpeg", hashlib.sha256(value).hexdigest(), "00-1-1-01")


def open_spool(folder: Path, max_bytes: int = 2**20, now_s: float = NOW_S) -> Spool:
    return Spool(folder, "line-1", SpoolBudget(max_bytes), clock=lambda: now_s)


def test_pictures_are_read_in_the_order_of_acceptance_and_numbered_from_one(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    parts = [line.accept(make_picture(number)).part for number in range(1, 21)]
    assert parts == [PartId("line-1", int(NOW_S), number) for number in range(1, 21)]
    first = line.read_after(0, 7)
    rest = line.read_after(first[-1].seq, 100)
    assert [spooled.part for spooled in first + rest] == parts
    assert [spooled.picture.value for spooled in first] == [make_picture(number).value for number in range(1, 8)]
    line.close()


def test_unconfirmed_pictures_have_the_same_part_ids_after_a_restart(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    parts = [line.accept(make_picture(number)).part for number in range(1, 6)]
    line.remove([spooled.seq for spooled in line.read_after(0, 2)])
    line.close()
    again = open_spool(tmp_path, now_s=NOW_S + 60)
    assert [spooled.part for spooled in again.read_after(0, 100)] == parts[2:]
    assert again.waiting_count == 3
    again.close()


@pytest.mark.parametrize("now_s", [NOW_S, NOW_S - 86_400, NOW_S + 0.9], ids=["same second", "clock set back", "within the second"])
def test_a_run_is_always_greater_than_all_runs_before(tmp_path: Path, now_s: float) -> None:
    runs = []
    for start_s in (NOW_S, now_s, now_s):
        line = open_spool(tmp_path, now_s=start_s)
        runs.append(line.run)
        line.close()
    assert runs == sorted(set(runs))


def test_a_full_spool_refuses_pictures_until_there_is_room(tmp_path: Path) -> None:
    line = open_spool(tmp_path, max_bytes=10_000)
    accepted = [line.accept(make_picture(number, size=2000)).part for number in range(1, 4)]
    with pytest.raises(SpoolFullError, match="no room for 3024 bytes"):
        line.accept(make_picture(4, size=2000))
    line.remove([line.read_after(0, 1)[0].seq])
    assert line.accept(make_picture(4, size=2000)).part.part == 4, "a refused picture uses no number"
    assert [spooled.part.part for spooled in line.read_after(0, 10)] == [2, 3, 4]
    assert accepted[0].part == 1
    line.close()


def test_the_limit_counts_all_lines_and_the_pictures_from_before_the_start(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    line.accept(make_picture(1, size=5000))
    line.close()
    budget = SpoolBudget(10_000)
    first = Spool(tmp_path, "line-1", budget)
    second = Spool(tmp_path, "line-2", budget)
    with pytest.raises(SpoolFullError):
        second.accept(make_picture(2, size=5000))
    first.remove([first.read_after(0, 1)[0].seq])
    first.run_maintenance()
    second.run_maintenance()
    assert budget.used_bytes == 0, "the write-ahead logs are empty, too"
    second.accept(make_picture(2, size=5000))
    first.close()
    second.close()


def test_a_known_idempotency_key_returns_its_part_and_stores_nothing(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    first = line.accept(make_picture(1), ["file:a.jpg"])
    line.remove([line.read_after(0, 1)[0].seq])
    line.close()
    again = open_spool(tmp_path)
    repeat = again.accept(make_picture(1), ["file:a.jpg"])
    assert repeat.part == first.part
    assert repeat.is_repeat
    assert again.waiting_count == 0
    again.forget_key("file:a.jpg")
    assert again.accept(make_picture(1), ["file:a.jpg"]).part != first.part
    again.close()


def test_parts_of_the_board_keep_their_numbers_beside_the_gateways_own_run(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    assert line.accept(make_picture(1), part=PartId("line-1", 12, 7)).part == PartId("line-1", 12, 7)
    assert line.accept(make_picture(2)).part == PartId("line-1", int(NOW_S), 1)
    line.close()


def test_a_parked_picture_is_left_out_until_the_next_start(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    for number in (1, 2, 3):
        line.accept(make_picture(number))
    line.park(line.read_after(0, 3)[1].seq, "too large for the broker")
    assert [spooled.part.part for spooled in line.read_after(0, 3)] == [1, 3]
    assert (line.waiting_count, line.parked_count) == (3, 1)
    line.close()
    again = open_spool(tmp_path)
    assert [spooled.part.part for spooled in again.read_after(0, 3)] == [1, 2, 3]
    again.close()


def test_a_second_gateway_on_the_same_line_is_refused(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    with pytest.raises(SettingsError, match="another gateway"):
        open_spool(tmp_path)
    line.close()


def damage(file: Path, kind: str) -> None:
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "zeros": bytes(len(content)), "text": b"this is no database" * 100}[kind])


@pytest.mark.parametrize("kind", ["cut", "zeros", "text"])
def test_a_damaged_spool_is_set_aside_and_the_line_goes_on_with_a_complaint(tmp_path: Path, kind: str) -> None:
    line = open_spool(tmp_path)
    for number in range(20):
        line.accept(make_picture(number, size=5000))
    line.close()
    damage(tmp_path / "line-1.sqlite", kind)
    content = (tmp_path / "line-1.sqlite").read_bytes()
    again = open_spool(tmp_path, now_s=NOW_S + 60)
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes() == content
    assert aside.name in again.find_complaint()
    assert again.accept(make_picture()).part == PartId("line-1", int(NOW_S) + 60, 1)
    assert (again.waiting_count, len(again.read_after(0, 10))) == (1, 1)
    aside.rename(tmp_path / "kept by a person")
    again.run_maintenance()
    assert again.find_complaint() == ""
    again.close()


@pytest.mark.parametrize("finder", ["accept", "maintenance"])
def test_a_spool_that_is_damaged_while_it_is_used_is_replaced(tmp_path: Path, finder: str) -> None:
    budget = SpoolBudget(2**24)
    line = Spool(tmp_path, "line-1", budget, clock=lambda: NOW_S)
    for number in range(20):
        line.accept(make_picture(number, size=5000), keys=[f"key:{number}"])
    in_flight = [spooled.seq for spooled in line.read_after(0, 5)]
    line.run_maintenance()
    line._empty_write_ahead()
    file = tmp_path / "line-1.sqlite"
    with file.open("r+b") as opened:
        opened.seek(100)
        opened.write(b"\xff" * (file.stat().st_size - 100))
    # SQLite keeps pages in its memory. A change by another connection makes SQLite read them again.
    line._disconnect()
    line._writer, line._reader, line._checkpointer = (
        sqlite3.connect(file, check_same_thread=False, isolation_level=None) for _ in range(3)
    )
    if finder == "maintenance":
        line.run_maintenance()
    part = line.accept(make_picture()).part
    assert part == PartId("line-1", int(NOW_S) + 1, 1), "the run differs from that of the damaged file"
    assert line.find_complaint()
    line.remove(in_flight)
    assert [spooled.part for spooled in line.read_after(0, 10)] == [part], "late confirmations delete no new picture"
    assert line.waiting_count == 1
    assert budget.picture_bytes < 5000, "the pictures of the damaged file count no longer"
    line.flush()
    line.close()


class SlowCheckpoint:
    """A connection whose checkpoint lasts until `go_on` is set. It notes whether it was closed during the checkpoint."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.began, self.go_on = threading.Event(), threading.Event()
        self.was_closed = False

    def execute(self, sql: str) -> sqlite3.Cursor:
        self.began.set()
        self.go_on.wait(10)
        return self._connection.execute(sql)

    def close(self) -> None:
        self.was_closed = not self.go_on.is_set()
        self._connection.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda line: line.accept(make_picture()),
        lambda line: line.find_receipt("key:1"),
        lambda line: line.forget_key("key:1"),
        lambda line: line.read_after(0, 1),
        lambda line: line.remove([1]),
        lambda line: line.park(1, "refused"),
        lambda line: line.run_maintenance(),
        lambda line: line.replace_damaged(make_damage("malformed"), line.run),
    ],
    ids=["accept", "find_receipt", "forget_key", "read_after", "remove", "park", "run_maintenance", "replace_damaged"],
)
def test_each_use_of_the_spool_shows_that_it_waits(tmp_path: Path, use: Callable[[Spool], object]) -> None:
    line = open_spool(tmp_path)
    with line._reader_lock, line._lock:
        waiting = threading.Thread(target=use, args=(line,))
        waiting.start()
        wait_until(lambda: line.find_disk_wait_s() > 0)
    waiting.join(10)
    assert line.find_disk_wait_s() == 0
    line.close()


@pytest.mark.parametrize("method", ["run_maintenance", "_empty_write_ahead"])
def test_a_checkpoint_that_does_not_end_is_shown(tmp_path: Path, method: str) -> None:
    line = open_spool(tmp_path)
    checkpointer = line._checkpointer
    line._checkpointer = slow = SlowCheckpoint(checkpointer)  # type: ignore[assignment]
    waiting = threading.Thread(target=getattr(line, method))
    waiting.start()
    assert slow.began.wait(10)
    shown_s = line.find_disk_wait_s()
    slow.go_on.set()
    waiting.join(10)
    assert shown_s > 0
    line._checkpointer = checkpointer
    line.close()


def test_a_damaged_file_is_not_closed_during_a_checkpoint_of_another_thread(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    line.accept(make_picture())
    slow = SlowCheckpoint(line._checkpointer)
    line._connections[line._connections.index(line._checkpointer)] = slow  # type: ignore[call-overload]
    line._checkpointer = slow  # type: ignore[assignment]
    checkpoint = threading.Thread(target=line.run_maintenance)
    checkpoint.start()
    assert slow.began.wait(10)
    error = make_damage("database disk image is malformed")
    replacing = threading.Thread(target=line.replace_damaged, args=(error, line.run))
    replacing.start()
    replacing.join(0.3)
    assert replacing.is_alive()
    slow.go_on.set()
    checkpoint.join(10)
    replacing.join(10)
    assert not slow.was_closed
    assert line.find_complaint()
    line.close()


def test_a_replacement_that_fails_half_way_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = open_spool(tmp_path)
    run = line.run
    error = make_damage("database disk image is malformed")

    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patch:
        patch.setattr("agents.gateway.spool.flush_to_disk", fail)
        with pytest.raises(OSError, match="the disk fails"):
            line.replace_damaged(error, run)
    assert line.run == run, "another thread would take a new run as a sign that the file was replaced"
    line.replace_damaged(error, run)
    assert line.accept(make_picture()).part.run > run
    line.replace_damaged(error, line.run)
    assert len(list(tmp_path.glob("*.damaged-*[0-9]"))) == 2
    line.close()


class DamagingSpool(Spool):
    """A spool on a disk that damages the next `damaged_count` files: while they are opened, or else with their first picture."""

    damaged_count = 0
    damages_at_opening = True

    def _begin_run(self, now_s: int) -> int:
        if self.damages_at_opening:
            self._damage()
        return super()._begin_run(now_s)

    def _insert(self, *arguments: Any) -> None:
        if not self.damages_at_opening:
            self._damage()
        super()._insert(*arguments)

    def _damage(self) -> None:
        if self.damaged_count:
            self.damaged_count -= 1
            self._path.write_bytes(b"this is no database" * 1000)
            raise make_damage("database disk image is malformed")


def list_files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if ".damaged-" not in file.name)


SPOOL_FILES = ["line-1.lock", "line-1.sqlite", "line-1.sqlite-shm", "line-1.sqlite-wal"]


def test_a_new_spool_that_is_damaged_at_once_is_deleted(tmp_path: Path) -> None:
    line = DamagingSpool(tmp_path, "line-1", SpoolBudget(2**20), clock=lambda: NOW_S)
    line.damaged_count = 1
    line.replace_damaged(make_damage("database disk image is malformed"), line.run)
    assert len(list(tmp_path.glob("*.damaged-*[0-9]"))) == 1, "the new file held no picture"
    assert line.accept(make_picture()).part.run == int(NOW_S) + 1
    line.close()


@pytest.mark.parametrize("damages_at_opening", [True, False], ids=["at the opening", "at the first picture"])
def test_a_disk_that_damages_all_files_does_not_fill_itself_with_them(tmp_path: Path, damages_at_opening: bool) -> None:
    line = DamagingSpool(tmp_path, "line-1", SpoolBudget(2**20), clock=lambda: NOW_S)
    line.damaged_count = 99
    line.damages_at_opening = damages_at_opening
    with suppress(sqlite3.DatabaseError):
        line.replace_damaged(make_damage("database disk image is malformed"), line.run)
    for _ in range(30):
        with pytest.raises(SpoolFullError, match="cannot be replaced"):
            line.accept(make_picture())
    assert len(list(tmp_path.glob("*.damaged-*[0-9]"))) == (1 if damages_at_opening else 16)
    assert "damaged" in line.find_complaint()
    line.damaged_count = 0
    assert line.accept(make_picture()).part.part == 1
    assert list_files(tmp_path) == SPOOL_FILES
    line.close()


def test_a_disk_that_damages_new_files_fills_itself_at_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DamagingSpool, "damaged_count", 99)
    for _ in range(20):
        with pytest.raises(SettingsError, match="the disk damages each new spool of line-1"):
            DamagingSpool(tmp_path, "line-1", SpoolBudget(2**20))
    assert [file.name for file in tmp_path.iterdir()] == ["line-1.lock"]


def test_the_limit_for_damaged_files_deletes_no_file_of_an_earlier_start(tmp_path: Path) -> None:
    open_spool(tmp_path).close()
    for number in range(16):
        (tmp_path / f"line-1.damaged-{number}").touch()
    damage(tmp_path / "line-1.sqlite", "text")
    line = open_spool(tmp_path)
    assert len(list(tmp_path.glob("*.damaged-*[0-9]"))) == 17, "the file perhaps holds unsent pictures"
    line.replace_damaged(make_damage("database disk image is malformed"), line.run)
    assert len(list(tmp_path.glob("*.damaged-*[0-9]"))) == 17
    line.close()


def test_a_damaged_file_that_cannot_be_renamed_at_first_leaves_its_bytes_in_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = SpoolBudget(2**20)
    line = Spool(tmp_path, "line-1", budget)
    line.accept(make_picture(size=5000))

    def fail(path: Path, reason: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patch:
        patch.setattr("streams.queue_file.set_aside", fail)
        for error in (make_damage("database disk image is malformed"), sqlite3.ProgrammingError("Cannot operate on a closed database.")):
            with pytest.raises(OSError, match="the disk fails"):
                line.replace_damaged(error, line.run)
    line.replace_damaged(make_damage("database disk image is malformed"), line.run)
    assert (budget.picture_bytes, line.waiting_count) == (0, 0)
    assert len(list(tmp_path.glob("*.damaged-*[0-9]"))) == 1
    line.accept(make_picture())
    line.close()


class UnreadableConnection:
    """A connection to a disk that cannot read the receipts."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if sql.startswith("SELECT") and "FROM receipts" in sql:
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, parameters)


def test_a_read_error_of_the_disk_refuses_the_picture_and_sets_no_file_aside(tmp_path: Path) -> None:
    budget = SpoolBudget(2**20)
    line = Spool(tmp_path, "line-1", budget)
    writer = line._writer
    line._writer = UnreadableConnection(writer)  # type: ignore[assignment]
    with pytest.raises(SpoolFullError, match=r"line-1.sqlite cannot be read: disk I/O error"):
        line.accept(make_picture(), ["key:1"])
    with pytest.raises(SpoolFullError, match="disk I/O error"):
        line.find_receipt("key:1")
    assert budget.picture_bytes == 0
    line._writer = writer
    assert not line.accept(make_picture(), ["key:1"]).is_repeat
    assert line.find_complaint() == ""
    line.close()


def test_maintenance_bounds_the_size_of_the_write_ahead_file(tmp_path: Path) -> None:
    line = open_spool(tmp_path, max_bytes=2**30)
    ahead = tmp_path / "line-1.sqlite-wal"
    largest = 0
    for number in range(400):
        line.accept(make_picture(number, size=500_000))
        line.remove([spooled.seq for spooled in line.read_after(0, 10)])
        if number % 20 == 19:
            line.run_maintenance()
            largest = max(largest, ahead.stat().st_size)
    assert largest < 100 * 2**20, "200 MB were written"
    line.close()


def test_the_write_ahead_log_counts_in_the_budget_and_makes_room_for_pictures(tmp_path: Path) -> None:
    budget = SpoolBudget(2**20)
    line = Spool(tmp_path, "line-1", budget)
    for number in range(100):
        line.accept(make_picture(number, size=100_000))
        ahead = (tmp_path / "line-1.sqlite-wal").stat().st_size
        assert budget.write_ahead_bytes == ahead
        assert budget.used_bytes <= budget.max_bytes + 2 * 100_000, "the log grows by one picture beyond the limit at most"
        line.remove([spooled.seq for spooled in line.read_after(0, 10)])
    line.close()


def test_reading_ahead_is_limited_in_bytes(tmp_path: Path) -> None:
    line = open_spool(tmp_path, max_bytes=2**24)
    for number in range(1, 6):
        line.accept(make_picture(number, size=100_000))
    assert len(line.read_after(0, 10, max_bytes=250_000)) == 3
    assert len(line.read_after(0, 10, max_bytes=1)) == 1, "a picture that is larger than the limit is read, too"
    line.close()


_WRITER = """
import sys
from pathlib import Path
from agents.gateway.spool import Spool, SpoolBudget
from tests.agents.gateway.test_spool import make_picture
line = Spool(Path(sys.argv[1]), "line-1", SpoolBudget(2**30))
number, seq = 0, 0
while True:
    number += 1
    part = line.accept(make_picture(number), [f"mark-{line.run}-{number}"]).part
    line.flush()
    print("accepted", part, flush=True)  # The camera may delete the picture from now on.
    if number % 3 == 0:
        spooled = line.read_after(seq, 2)
        for each in spooled:
            print("sent", each.part, each.picture.value[:8].decode(), flush=True)
        line.remove(each.seq for each in spooled)
    if number % 50 == 0:
        line.run_maintenance()
"""


@pytest.mark.real
def test_a_kill_at_any_time_loses_no_accepted_picture_and_gives_none_a_second_part_id(tmp_path: Path) -> None:
    accepted: list[PartId] = []
    sent: dict[PartId, str] = {}
    # The length of a life is counted in lines, because a slow machine may accept no picture within some milliseconds.
    for line_count in (1, 8, 21, 55, 90):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        begin = "".join(islice(writer.stdout, line_count))
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        complete_lines = (begin + rest).rsplit("\n", 1)[0].splitlines()
        accepted += [PartId.parse(line.split()[1]) for line in complete_lines if line.startswith("accepted")]
        for _, part_id, content in (line.split() for line in complete_lines if line.startswith("sent")):
            assert sent.setdefault(PartId.parse(part_id), content) == content, f"{part_id} was sent with two contents"
    line = open_spool(tmp_path, now_s=time.time())
    waiting = {spooled.part: spooled.picture.value[:8].decode() for spooled in line.read_after(0, 1_000_000)}
    line.close()
    assert len(accepted) == len(set(accepted)) > 50
    assert set(accepted) <= set(waiting) | set(sent)
    for part in waiting.keys() & sent.keys():
        assert waiting[part] == sent[part]


def test_a_file_of_a_newer_layout_is_refused(tmp_path: Path) -> None:
    open_spool(tmp_path).close()
    with sqlite3.connect(tmp_path / "line-1.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(SettingsError, match="the file has layout version 99"):
        open_spool(tmp_path)


class HeldSpool(Spool):
    """A spool whose disk answers a flush only when the test allows it, and then fails if `error` is set."""

    error: OSError | None = None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "line-1", SpoolBudget(2**20))
        self.is_flushing, self.may_answer = threading.Event(), threading.Event()

    def flush(self) -> None:
        self.is_flushing.set()
        assert self.may_answer.wait(10)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "Input/output error")], ids=["flushed", "failed"])
@pytest.mark.parametrize("is_started", [True, False], ids=["in its thread", "without thread"])
def test_a_picture_is_answered_with_the_result_of_its_flush(tmp_path: Path, error: OSError | None, is_started: bool) -> None:
    spool = HeldSpool(tmp_path)
    spool.error = error
    commit, answers, is_answered = GroupCommit(spool, max_bytes=100), list[OSError | None](), threading.Event()

    def answer(failure: OSError | None) -> None:
        answers.append(failure)
        is_answered.set()

    if is_started:
        commit.start()
    adding = threading.Thread(target=commit.add, args=(1, answer))
    adding.start()
    assert spool.is_flushing.wait(10)
    assert answers == [], "the picture is not on the disk"
    spool.may_answer.set()
    assert is_answered.wait(10)
    assert answers == [error]
    adding.join(10)
    if is_started:
        commit.stop(10)
    spool.close()


def test_a_callback_that_fails_blocks_neither_its_group_nor_the_next_picture(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "line-1", SpoolBudget(2**20))
    commit = GroupCommit(spool, max_bytes=20)
    may_flush, is_third_answered, is_last_answered = threading.Event(), threading.Event(), threading.Event()

    def fail(error: OSError | None) -> None:
        raise RuntimeError("for this test")

    def wait(error: OSError | None) -> None:
        may_flush.wait(10)

    commit.start()
    # The thread waits in this callback until the next two pictures form a group.
    commit.add(1, wait)
    commit.add(9, fail)
    commit.add(11, lambda error: is_third_answered.set())
    may_flush.set()
    threading.Thread(target=commit.add, args=(1, lambda error: is_last_answered.set()), daemon=True).start()
    assert is_third_answered.wait(10)
    assert is_last_answered.wait(10), "the group with the failed callback still counts as waiting"
    commit.stop(10)
    spool.close()
