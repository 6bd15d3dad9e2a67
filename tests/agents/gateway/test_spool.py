"""The spool, the gateway's queue on disk: order, limits, part ids, and what is left after a kill."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.gateway.spool import CheckedPicture, Spool, SpoolBudget
from streams.errors import SettingsError, SpoolFullError
from streams.identity import PartId

NOW_S = 1_800_000_000.0


def make_picture(number: int = 1, size: int = 100) -> CheckedPicture:
    value = f"{number:08d}".encode().ljust(size, b".")
    return CheckedPicture(value, datetime.now(UTC), "image/jpeg", hashlib.sha256(value).hexdigest(), "00-1-1-01")


def open_spool(folder: Path, max_bytes: int = 2**20, now_s: float = NOW_S) -> Spool:
    return Spool(folder, "line-1", SpoolBudget(max_bytes), clock=lambda: now_s)


def test_pictures_come_out_in_the_order_they_went_in_and_numbered_from_one(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    parts = [line.accept(make_picture(number)).part for number in range(1, 21)]
    assert parts == [PartId("line-1", int(NOW_S), number) for number in range(1, 21)]
    first = line.read_after(0, 7)
    rest = line.read_after(first[-1].seq, 100)
    assert [spooled.part for spooled in first + rest] == parts
    assert [spooled.picture.value for spooled in first] == [make_picture(number).value for number in range(1, 8)]
    line.close()


def test_a_spool_opened_again_gives_what_was_not_confirmed_under_the_same_identities(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    parts = [line.accept(make_picture(number)).part for number in range(1, 6)]
    line.remove([spooled.seq for spooled in line.read_after(0, 2)])
    line.close()
    again = open_spool(tmp_path, now_s=NOW_S + 60)
    assert [spooled.part for spooled in again.read_after(0, 100)] == parts[2:]
    assert again.waiting_count == 3
    again.close()


@pytest.mark.parametrize("now_s", [NOW_S, NOW_S - 86_400, NOW_S + 0.9], ids=["same second", "clock set back", "within the second"])
def test_a_run_is_always_greater_than_the_last(tmp_path: Path, now_s: float) -> None:
    runs = []
    for moment in (NOW_S, now_s, now_s):
        line = open_spool(tmp_path, now_s=moment)
        runs.append(line.run)
        line.close()
    assert runs == sorted(set(runs))


def test_a_full_spool_refuses_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    line = open_spool(tmp_path, max_bytes=10_000)
    accepted = [line.accept(make_picture(number, size=2000)).part for number in range(1, 4)]
    with pytest.raises(SpoolFullError, match="expected room for 3024 bytes"):
        line.accept(make_picture(4, size=2000))
    line.remove([line.read_after(0, 1)[0].seq])
    assert line.accept(make_picture(4, size=2000)).part.part == 4, "a refused picture uses up no number"
    assert [spooled.part.part for spooled in line.read_after(0, 10)] == [2, 3, 4]
    assert accepted[0].part == 1
    line.close()


def test_the_limit_counts_all_lines_and_what_lay_there_at_the_start(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    line.accept(make_picture(1, size=5000))
    line.close()
    budget = SpoolBudget(10_000)
    first = Spool(tmp_path, "line-1", budget)
    second = Spool(tmp_path, "line-2", budget)
    with pytest.raises(SpoolFullError):
        second.accept(make_picture(2, size=5000))
    first.remove([first.read_after(0, 1)[0].seq])
    assert budget.used_bytes == 0
    second.accept(make_picture(2, size=5000))
    first.close()
    second.close()


def test_a_mark_that_is_known_brings_back_its_part_and_stores_nothing(tmp_path: Path) -> None:
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


def test_a_boards_part_keeps_its_numbers_beside_the_own_run(tmp_path: Path) -> None:
    line = open_spool(tmp_path)
    assert line.accept(make_picture(1), part=PartId("line-1", 12, 7)).part == PartId("line-1", 12, 7)
    assert line.accept(make_picture(2)).part == PartId("line-1", int(NOW_S), 1)
    line.close()


def test_a_parked_picture_stays_is_passed_over_and_comes_back_with_the_next_start(tmp_path: Path) -> None:
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


def test_a_damaged_spool_is_named_and_not_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "line-1.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(SettingsError, match=r"line-1\.sqlite.*unusable"):
        open_spool(tmp_path)
    assert (tmp_path / "line-1.sqlite").read_bytes().startswith(b"this is no database")


def test_the_file_written_ahead_does_not_grow_for_ever(tmp_path: Path) -> None:
    line = open_spool(tmp_path, max_bytes=2**30)
    ahead = tmp_path / "line-1.sqlite-wal"
    largest = 0
    for number in range(400):
        line.accept(make_picture(number, size=500_000))
        line.remove([spooled.seq for spooled in line.read_after(0, 10)])
        if number % 20 == 19:
            line.run_maintenance()
            largest = max(largest, ahead.stat().st_size)
    assert largest < 100 * 2**20, "200 MB went through it"
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
    print("taken", part, flush=True)  # only now the camera may forget it
    if number % 3 == 0:
        spooled = line.read_after(seq, 2)
        for one in spooled:
            print("sent", one.part, one.picture.value[:8].decode(), flush=True)
        line.remove(one.seq for one in spooled)
    if number % 50 == 0:
        line.set_full_sync(number % 100 == 0)
        line.run_maintenance()
"""


def test_kill_at_any_moment_loses_no_taken_picture_and_gives_none_a_second_identity(tmp_path: Path) -> None:
    taken: list[PartId] = []
    sent: dict[PartId, str] = {}
    for life_s in (0.02, 0.05, 0.11, 0.23, 0.31):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(life_s)
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        whole = (lines[0] + rest).rsplit("\n", 1)[0].splitlines()
        taken += [PartId.parse(line.split()[1]) for line in whole if line.startswith("taken")]
        for _, part, content in (line.split() for line in whole if line.startswith("sent")):
            assert sent.setdefault(PartId.parse(part), content) == content, f"{part} was sent with two contents"
    line = open_spool(tmp_path, now_s=time.time())
    waiting = {spooled.part: spooled.picture.value[:8].decode() for spooled in line.read_after(0, 1_000_000)}
    line.close()
    assert len(taken) == len(set(taken)) > 50
    assert set(taken) <= set(waiting) | set(sent)
    for both in waiting.keys() & sent.keys():
        assert waiting[both] == sent[both]


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    open_spool(tmp_path).close()
    with sqlite3.connect(tmp_path / "line-1.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(SettingsError, match="its layout is 99"):
        open_spool(tmp_path)
