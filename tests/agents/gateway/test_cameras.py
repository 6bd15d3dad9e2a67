"""What the cameras give, and what becomes of what they gave."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from agents.gateway.camera import Camera, Frame, RefusedError, Taken
from agents.gateway.drop_camera import DropCamera
from agents.gateway.folder_camera import FolderCamera
from agents.gateway.intake import Intake
from agents.gateway.spool import Budget, Spool
from agents.gateway.video_camera import Grabber, VideoCamera
from streams.errors import CastlineError, SettingsError, SpoolFullError
from streams.identity import UNKNOWN_CONTENT_TYPE, PartId, sniff_content_type
from streams.settings import CameraSettings

JPEG = b"\xff\xd8\xff\xe0 a picture of a casting"


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(JPEG + name.encode())
    return root


class Line:
    """One line without Kafka: a camera's thread, its intake, its spool."""

    def __init__(self, spool_dir: Path, settings: CameraSettings, max_bytes: int = 10_000, spool_bytes: int = 2**20) -> None:
        self.spool = Spool(spool_dir, "line-1", Budget(spool_bytes))
        self.intake = Intake(settings, max_bytes, self.spool, took=lambda: None)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def film(self, camera: Camera) -> None:
        def run() -> None:
            for frame in camera.frames(self._stopping):
                self.intake.offer(camera, frame)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def parts(self) -> list[PartId]:
        return [stored.part for stored in self.spool.after(0, 1000)]

    def stop(self) -> None:
        self._stopping.set()
        if self._thread:
            self._thread.join(10)
            assert not self._thread.is_alive()
        self.spool.close()


@contextmanager
def dropping(root: Path, spool_dir: Path, max_bytes: int = 10_000, spool_bytes: int = 2**20) -> Iterator[Line]:
    settings = CameraSettings(kind="drop", path=root, settle_s=0.1)
    line = Line(spool_dir, settings, max_bytes, spool_bytes)
    line.film(DropCamera("line-1", settings, max_bytes, line.spool.forget))
    try:
        yield line
    finally:
        line.stop()


def until(true: Callable[[], bool], within_s: float = 10) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def frames_of(camera: FolderCamera, count: int) -> list[Frame]:
    return list(islice(camera.frames(threading.Event()), count))


# Folder


def test_a_folder_tells_the_truth_by_the_name_of_its_class_folders(tmp_path: Path) -> None:
    folder_of(tmp_path, "ok_front/a.jpg", "def_front/b.jpeg", "c.png")
    camera = FolderCamera("line-1", CameraSettings(kind="folder", path=tmp_path, rate_per_s=1000))
    truth = {frame.value.rsplit(b"casting", 1)[1].decode(): frame.truth for frame in frames_of(camera, 3)}
    assert truth == {"ok_front/a.jpg": "ok", "def_front/b.jpeg": "defect", "c.png": None}


def test_a_seed_gives_the_same_order_again_and_another_line_another(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{number:02d}.jpg" for number in range(20)))
    settings = CameraSettings(kind="folder", path=tmp_path, rate_per_s=1000, seed=3)
    orders = [[frame.value for frame in frames_of(FolderCamera(line, settings), 40)] for line in ("line-1", "line-1", "line-2")]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0][:20]) == sorted(orders[0][20:]), "each round shows every picture once"
    assert orders[0][:20] != orders[0][20:]


def test_without_loop_and_shuffle_a_folder_is_played_once_in_order(tmp_path: Path) -> None:
    folder_of(tmp_path, "b.jpg", "a.jpg", "c.jpg")
    camera = FolderCamera("line-1", CameraSettings(kind="folder", path=tmp_path, rate_per_s=1000, loop=False, shuffle=False))
    assert [frame.value[-5:] for frame in frames_of(camera, 10)] == [b"a.jpg", b"b.jpg", b"c.jpg"]


def test_a_folder_keeps_its_rate(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.jpg")
    camera = FolderCamera("line-1", CameraSettings(kind="folder", path=tmp_path, rate_per_s=50, jitter=0.5))
    began = time.monotonic()
    frames_of(camera, 26)
    assert 0.4 < time.monotonic() - began < 2


def test_a_folder_without_pictures_is_refused_at_the_start(tmp_path: Path) -> None:
    folder_of(tmp_path, "notes.txt")
    with pytest.raises(SettingsError, match="expected pictures"):
        FolderCamera("line-1", CameraSettings(kind="folder", path=tmp_path))


def test_a_folder_waits_with_its_picture_while_the_spool_is_full(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    settings = CameraSettings(kind="folder", path=tmp_path / "in", rate_per_s=100, loop=False, shuffle=False)
    line = Line(tmp_path / "spool", settings, spool_bytes=2 * (1024 + 40))
    line.film(FolderCamera("line-1", settings))
    until(lambda: len(line.parts()) == 1 or len(line.parts()) == 2)
    time.sleep(0.3)
    first = line.spool.after(0, 10)
    line.spool.remove(stored.seq for stored in first)
    until(lambda: len(line.parts()) == 3 - len(first))
    assert [part.part for part in line.parts()] == list(range(len(first) + 1, 4))
    line.stop()


def test_a_triggered_folder_gives_one_picture_for_each_part_under_its_numbers(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "a.jpg", "b.jpg")
    settings = CameraSettings(kind="folder", path=tmp_path / "in", trigger="board")
    line = Line(tmp_path / "spool", settings)
    camera = FolderCamera("line-1", settings)
    line.film(camera)
    reported = [PartId("line-1", 4, number) for number in (1, 2, 3, 3, 5)]
    answers = [camera.trigger(part, datetime.now(UTC)) for part in reported]
    assert [answer.result(5).part for answer in answers] == reported
    assert line.parts() == [reported[0], reported[1], reported[2], reported[4]]
    line.stop()


def test_a_triggered_picture_is_never_from_the_future(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "a.jpg")
    settings = CameraSettings(kind="folder", path=tmp_path / "in", trigger="board")
    line = Line(tmp_path / "spool", settings)
    camera = FolderCamera("line-1", settings)
    line.film(camera)
    camera.trigger(PartId("line-1", 4, 1), datetime.now(UTC) + timedelta(hours=1)).result(5)
    assert line.spool.after(0, 1)[0].picture.captured_at <= datetime.now(UTC)
    line.stop()


# Drop folder


def test_a_whole_file_is_taken_once_and_moved_aside(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "a.jpg")
    with dropping(tmp_path / "in", tmp_path / "spool") as line:
        until((tmp_path / "in/sent/a.jpg").exists)
        (stored,) = line.spool.after(0, 10)
        assert stored.picture.value == JPEG + b"a.jpg"
        assert stored.picture.content_type == "image/jpeg"
        assert not (tmp_path / "in/a.jpg").exists()


def test_a_file_being_written_is_left_until_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with dropping(tmp_path / "in", tmp_path / "spool") as line:
        with (tmp_path / "in/slow.jpg").open("wb") as upload:
            upload.write(JPEG)
            upload.flush()
            time.sleep(0.5)  # much longer than settle_s: only the open file tells
            assert line.parts() == []
            upload.write(b"the rest")
        until((tmp_path / "in/sent/slow.jpg").exists)
        assert [stored.picture.value for stored in line.spool.after(0, 10)] == [JPEG + b"the rest"]


def test_names_of_unfinished_transfers_are_passed_over_until_renamed(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "a.jpg.part", ".hidden.jpg")
    with dropping(tmp_path / "in", tmp_path / "spool") as line:
        time.sleep(0.4)
        assert line.parts() == []
        (tmp_path / "in/a.jpg.part").rename(tmp_path / "in/a.jpg")
        until((tmp_path / "in/sent/a.jpg").exists)
        assert len(line.parts()) == 1


def test_empty_and_too_large_files_are_refused_with_the_reason_beside_them(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "good.jpg")
    (tmp_path / "in/empty.jpg").touch()
    (tmp_path / "in/large.jpg").write_bytes(JPEG + bytes(10_000))
    with dropping(tmp_path / "in", tmp_path / "spool") as line:
        until(lambda: (tmp_path / "in/refused/empty.jpg").exists() and (tmp_path / "in/refused/large.jpg").exists())
        until((tmp_path / "in/sent/good.jpg").exists)
        assert len(line.parts()) == 1
    size = len(JPEG) + 10_000
    assert (tmp_path / "in/refused/large.jpg.why").read_text() == f"expected at most 10000 bytes, received {size}\n"
    assert "received no bytes" in (tmp_path / "in/refused/empty.jpg.why").read_text()


def test_a_full_spool_leaves_the_file_and_takes_it_later(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "a.jpg")
    with dropping(tmp_path / "in", tmp_path / "spool", spool_bytes=1500) as line:
        until((tmp_path / "in/sent/a.jpg").exists)
        folder_of(tmp_path / "in", "b.jpg")
        time.sleep(0.5)
        assert (tmp_path / "in/b.jpg").exists()
        line.spool.remove([line.spool.after(0, 1)[0].seq])
        until((tmp_path / "in/sent/b.jpg").exists)


def test_a_file_sent_and_not_moved_before_a_crash_keeps_its_identity(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", "a.jpg")
    settings = CameraSettings(kind="drop", path=tmp_path / "in", settle_s=0.1)
    crashed = Line(tmp_path / "spool", settings)
    camera = DropCamera("line-1", settings, 10_000, crashed.spool.forget)
    frame = next(camera.frames(threading.Event()))
    crashed.intake.offer(Witness(), frame)  # a kill now leaves the receipt in the spool and the file in its place
    before = crashed.parts()
    assert len(before) == 1
    crashed.stop()
    with dropping(tmp_path / "in", tmp_path / "spool") as line:
        until((tmp_path / "in/sent/a.jpg").exists)
        assert line.parts() == before


def test_a_name_used_again_for_another_picture_is_another_part(tmp_path: Path) -> None:
    with dropping(tmp_path / "in", tmp_path / "spool") as line:
        for number in (1, 2, 3):
            (tmp_path / "in/image.jpg").write_bytes(JPEG)
            until(lambda: not (tmp_path / "in/image.jpg").exists())
            assert len(line.parts()) == number
    assert len(list((tmp_path / "in/sent").iterdir())) == 3


# Intake


def test_a_wrong_declared_type_is_corrected_by_the_bytes(tmp_path: Path) -> None:
    settings = CameraSettings(kind="http")
    line = Line(tmp_path, settings)
    witness = Witness()
    line.intake.offer(witness, Frame(b"\x89PNG\r\n\x1a\n...", datetime.now(UTC), "image/jpeg"))
    line.intake.offer(witness, Frame(b"whatever this is", datetime.now(UTC), "image/jpeg"))
    assert [stored.picture.content_type for stored in line.spool.after(0, 9)] == ["image/png", UNKNOWN_CONTENT_TYPE]
    line.stop()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"\xff\xd8\xff\xdb", "image/jpeg"),
        (b"BM....", "image/bmp"),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", UNKNOWN_CONTENT_TYPE),
        (b"", UNKNOWN_CONTENT_TYPE),
        (b"<svg", UNKNOWN_CONTENT_TYPE),
    ],
)
def test_content_is_told_by_its_first_bytes(value: bytes, found: str) -> None:
    assert sniff_content_type(value) == found


def test_a_picture_is_stamped_with_the_boards_part_and_an_unmatched_one_with_the_own_run(tmp_path: Path) -> None:
    settings = CameraSettings(kind="http", trigger="board", match_window_s=0.3)
    line, witness, now = Line(tmp_path, settings), Witness(), datetime.now(UTC)
    assert line.intake.report(PartId("line-1", 9, 1), now - timedelta(seconds=5))
    assert line.intake.report(PartId("line-1", 9, 2), now)
    assert not line.intake.report(PartId("line-1", 9, 2), now), "a report sent again is no news"
    line.intake.offer(witness, Frame(JPEG, now, mark="key:1"))
    line.intake.offer(witness, Frame(JPEG + b"stray", now - timedelta(seconds=2)))
    time.sleep(0.4)
    line.intake.decide()
    assert line.parts() == [PartId("line-1", 9, 2), PartId("line-1", line.spool.run, 1)]
    assert [taken.matched for taken in witness.taken] == [True, False]
    line.intake.offer(witness, Frame(JPEG, now, mark="key:1"))
    assert witness.taken[2].repeated
    assert witness.taken[2].part == PartId("line-1", 9, 2)
    line.stop()
    again = Line(tmp_path, settings)
    assert not again.intake.report(PartId("line-1", 9, 2), now), "also after a restart"
    again.stop()


class Witness:
    """A camera that only remembers what it was told."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.errors: list[CastlineError] = []

    def frames(self, stopping: threading.Event) -> Iterator[Frame]:
        yield from ()

    def done(self, frame: Frame, taken: Taken) -> None:
        self.taken.append(taken)

    def refused(self, frame: Frame, error: CastlineError) -> None:
        self.errors.append(error)


def test_refusals_say_size_and_limit(tmp_path: Path) -> None:
    line, witness = Line(tmp_path, CameraSettings(kind="http"), max_bytes=5000, spool_bytes=3000), Witness()
    for value in (b"", bytes(5001), bytes(4000)):
        line.intake.offer(witness, Frame(value, datetime.now(UTC)))
    empty, large, full = witness.errors
    assert isinstance(empty, RefusedError)
    assert empty.reason == "empty"
    assert str(large) == "expected at most 5000 bytes, received 5001"
    assert isinstance(full, SpoolFullError)
    line.stop()


# Video


class Tape:
    """A stream of numbered pictures that breaks after `length`."""

    def __init__(self, name: str, length: int) -> None:
        self._name = name
        self._left = length

    def grab(self) -> bytes | None:
        time.sleep(0.01)
        self._left -= 1
        return None if self._left < 0 else f"{self._name}-{self._left}".encode()

    def close(self) -> None:
        self._left = 0


def test_a_broken_stream_is_opened_again(tmp_path: Path) -> None:
    tapes: list[Grabber | None] = [Tape("first", 20), None, Tape("second", 10_000)]

    def open_stream() -> Grabber:
        tape = tapes.pop(0)
        if tape is None:
            raise OSError("expected a camera at /dev/video7, there is none")
        return tape

    settings = CameraSettings(kind="video", address="/dev/video7", rate_per_s=50)
    line = Line(tmp_path, settings)
    line.film(VideoCamera("line-1", settings, open_stream))
    until(lambda: any(stored.picture.value.startswith(b"second") for stored in line.spool.after(0, 1000)))
    assert line.spool.after(0, 1)[0].picture.value.startswith(b"first")
    line.stop()


def test_a_triggered_video_gives_the_picture_nearest_the_trigger_or_says_that_there_is_none(tmp_path: Path) -> None:
    settings = CameraSettings(kind="video", address="0", trigger="board", match_window_s=0.3)
    line = Line(tmp_path, settings)
    camera = VideoCamera("line-1", settings, lambda: Tape("only", 10_000))
    line.film(camera)
    part = PartId("line-1", 2, 1)
    assert camera.trigger(part, datetime.now(UTC)).result(5).part == part
    with pytest.raises(RefusedError, match="expected a picture within"):
        camera.trigger(PartId("line-1", 2, 2), datetime.now(UTC) - timedelta(minutes=1)).result(5)
    line.stop()


def test_a_video_camera_without_opencv_names_the_extra() -> None:
    """In a process that finds no OpenCV: here it is installed, for the tests of a real stream."""
    program = "import sys; sys.modules['cv2'] = None; from agents.gateway.video_camera import open_cv; open_cv('/dev/video0')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "SettingsError" in done.stderr
    assert "castline[video]" in done.stderr
