"""A watched folder: only complete files are read, each of them once, and each file moves to `sent` or `refused`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.gateway.drop_camera import DropCamera
from agents.gateway.intake import CameraFrame
from streams.settings import CameraSettings
from tests.agents.gateway.camera_line import JPEG, JPEG_END, CameraLine, make_jpeg, wait_until, write_pictures


@contextmanager
def running_drop_line(root: Path, spool_dir: Path, max_bytes: int = 10_000, spool_bytes: int = 2**20) -> Iterator[CameraLine]:
    """A line whose camera watches `root`."""
    settings = CameraSettings(kind="drop", path=root, settle_s=0.1)
    line = CameraLine(spool_dir, settings, max_bytes, spool_bytes)
    line.start(DropCamera("line-1", settings, max_bytes, line.spool.forget_key))
    try:
        yield line
    finally:
        line.stop()


def test_a_complete_file_is_read_once_and_moved(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg")
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        wait_until((tmp_path / "in/sent/a.jpg").exists)
        (spooled,) = line.spool.read_after(0, 10)
        assert spooled.picture.value == make_jpeg("a.jpg")
        assert spooled.picture.content_type == "image/jpeg"
        assert not (tmp_path / "in/a.jpg").exists()


def test_a_file_that_is_written_to_is_not_read_before_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        with (tmp_path / "in/slow.jpg").open("wb") as upload:
            upload.write(JPEG[:-2])
            upload.flush()
            time.sleep(0.5)  # Much longer than settle_s, so only the open file shows that the transfer goes on.
            assert line.parts() == []
            upload.write(JPEG_END)
        wait_until((tmp_path / "in/sent/slow.jpg").exists)
        assert [spooled.picture.value for spooled in line.spool.read_after(0, 10)] == [JPEG]


def test_names_of_unfinished_transfers_are_ignored_until_the_file_is_renamed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg.part", ".hidden.jpg")
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        time.sleep(0.4)
        assert line.parts() == []
        (tmp_path / "in/a.jpg.part").rename(tmp_path / "in/a.jpg")
        wait_until((tmp_path / "in/sent/a.jpg").exists)
        assert len(line.parts()) == 1


def test_empty_and_too_large_files_are_refused_with_the_reason_beside_them(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "good.jpg")
    (tmp_path / "in/empty.jpg").touch()
    (tmp_path / "in/large.jpg").write_bytes(JPEG + bytes(10_000))
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        wait_until(lambda: (tmp_path / "in/refused/empty.jpg").exists() and (tmp_path / "in/refused/large.jpg").exists())
        wait_until((tmp_path / "in/sent/good.jpg").exists)
        assert len(line.parts()) == 1
    size = len(JPEG) + 10_000
    assert (tmp_path / "in/refused/large.jpg.why").read_text() == f"expected at most 10000 bytes, received {size}\n"
    assert "received no bytes" in (tmp_path / "in/refused/empty.jpg.why").read_text()


def test_a_file_stays_while_the_spool_is_full_and_is_read_later(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg")
    with running_drop_line(tmp_path / "in", tmp_path / "spool", spool_bytes=1500) as line:
        wait_until((tmp_path / "in/sent/a.jpg").exists)
        write_pictures(tmp_path / "in", "b.jpg")
        time.sleep(0.5)
        assert (tmp_path / "in/b.jpg").exists()
        line.spool.remove([line.spool.read_after(0, 1)[0].seq])
        wait_until((tmp_path / "in/sent/b.jpg").exists)


def test_a_file_that_was_stored_and_not_moved_before_a_crash_keeps_its_part_id(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg")
    settings = CameraSettings(kind="drop", path=tmp_path / "in", settle_s=0.1)
    crashed = CameraLine(tmp_path / "spool", settings)
    camera = DropCamera("line-1", settings, 10_000, crashed.spool.forget_key)
    frame = next(camera.frames(threading.Event()))
    # A copy of the frame, whose receipt moves no file: a kill at this moment leaves the receipt in the spool and the file in its folder.
    crashed.intake.accept(CameraFrame(frame.value, frame.captured_at, idempotency_key=frame.idempotency_key))
    before = crashed.parts()
    assert len(before) == 1
    crashed.stop()
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        wait_until((tmp_path / "in/sent/a.jpg").exists)
        assert line.parts() == before


def test_a_name_that_is_used_again_for_another_picture_is_another_part(tmp_path: Path) -> None:
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        for number in (1, 2, 3):
            (tmp_path / "in/image.jpg").write_bytes(JPEG)
            wait_until(lambda: not (tmp_path / "in/image.jpg").exists())
            assert len(line.parts()) == number
    assert len(list((tmp_path / "in/sent").iterdir())) == 3
