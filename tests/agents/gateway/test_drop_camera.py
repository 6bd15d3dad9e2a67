"""A watched folder: only complete files are read, each of them once, and each file moves to `sent` or `refused`."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from agents.gateway.drop_camera import DropCamera
from agents.gateway.drop_folder import DropFolder, FileState, FolderListing
from agents.gateway.intake import CameraFrame
from agents.gateway.spool import PictureReceipt
from streams.identity import PartId
from streams.settings import CameraSettings
from tests.agents.gateway.camera_line import JPEG, JPEG_END, CameraLine, make_jpeg, wait_until, write_pictures


@contextmanager
def running_drop_line(
    root: Path,
    spool_dir: Path,
    max_bytes: int = 10_000,
    spool_bytes: int = 2**20,
    folder: DropFolder | None = None,
    **options: float,
) -> Iterator[CameraLine]:
    """A line whose camera watches `root`. `options` are settings of the camera."""
    settings = CameraSettings.model_validate({"kind": "drop", "path": root, "settle_s": 0.1, **options})
    line = CameraLine(spool_dir, settings, max_bytes, spool_bytes)
    line.start(DropCamera("line-1", settings, max_bytes, line.spool.forget_key, folder))
    try:
        yield line
    finally:
        line.stop()


class RefusingFolder(DropFolder):
    """A folder in which some files cannot be read or moved, as on a share with wrong rights. Real rights would not stop root."""

    def __init__(self, root: Path, unreadable: Collection[str] = (), immovable: Collection[str] = ()) -> None:
        super().__init__(root)
        self.unreadable = set(unreadable)
        self.immovable = set(immovable)
        self.attempts = 0

    def read(self, path: str, max_bytes: int) -> tuple[bytes, FileState] | None:
        if path in self.unreadable:
            self.attempts += 1
            raise PermissionError(errno.EACCES, "Permission denied")
        return super().read(path, max_bytes)

    def move(self, path: str, folder: str, reason: str = "") -> str:
        if path in self.immovable:
            self.attempts += 1
            raise PermissionError(errno.EACCES, "Permission denied")
        return super().move(path, folder, reason)


class RecordingFolder(DropFolder):
    """A folder that remembers the contents of all files that were read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.contents: list[bytes] = []

    def read(self, path: str, max_bytes: int) -> tuple[bytes, FileState] | None:
        found = super().read(path, max_bytes)
        self.contents += [found[0]] if found else []
        return found


class FolderWithClock(DropFolder):
    """A folder on a file server whose clock gives every file the same time. File systems of tests cannot store every such time."""

    def __init__(self, root: Path, changed_ns: int) -> None:
        super().__init__(root)
        self._folder = root
        self._changed_ns = changed_ns

    def scan(self) -> FolderListing:
        listing = super().scan()
        listing.files = {path: replace(state, changed_ns=self._changed_ns) for path, state in listing.files.items()}
        return listing

    def read(self, path: str, max_bytes: int) -> tuple[bytes, FileState] | None:
        state = self.find_state(path)
        return None if state is None else ((self._folder / path).read_bytes()[:max_bytes], state)

    def find_state(self, path: str) -> FileState | None:
        state = super().find_state(path)
        return state and replace(state, changed_ns=self._changed_ns)


def read_metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"line": "line-1", **labels}) or 0.0


def is_read_again(folder: RefusingFolder, attempts: int) -> bool:
    return folder.attempts > attempts


def read_values(line: CameraLine) -> list[bytes]:
    return [spooled.picture.value for spooled in line.spool.read_after(0, 1000)]


def test_a_complete_file_is_read_once_and_moved(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg")
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        wait_until((tmp_path / "in/sent/a.jpg").exists)
        (spooled,) = line.spool.read_after(0, 10)
        assert spooled.picture.value == make_jpeg("a.jpg")
        assert spooled.picture.content_type == "image/jpeg"
        assert not (tmp_path / "in/a.jpg").exists()


def test_a_file_knows_how_long_ago_it_arrived_unless_it_came_while_nobody_looked(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "before.jpg")
    camera = DropCamera("line-1", CameraSettings(kind="drop", path=tmp_path / "in", settle_s=0.4), 10_000, lambda key: None)
    frames, part = camera.frames(threading.Event()), PartId("line-1", 7, 1)
    before = next(frames)
    assert before.waited_s is None
    before.receipt.set_result(PictureReceipt(part))
    write_pictures(tmp_path / "in", "now.jpg")
    now = next(frames)
    assert now.waited_s is not None
    assert now.waited_s >= 0.4, "it has lain there since its arrival"
    now.receipt.set_result(PictureReceipt(part))


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


@pytest.mark.parametrize("name", ["Pr\udcfcfteil.jpg", "n" * 251 + ".jpg", "n" * 10 + "." + "s" * 244, "line\nbreak.jpg"])
def test_a_file_of_any_name_is_taken_and_the_files_behind_it_too(tmp_path: Path, name: str) -> None:
    root = write_pictures(tmp_path / "in", "z.jpg")
    (root / name).write_bytes(JPEG)
    with running_drop_line(root, tmp_path / "spool") as line:
        wait_until(lambda: len(list(root.glob("sent/*"))) == 2)
        assert sorted(read_values(line)) == sorted([JPEG, make_jpeg("z.jpg")])
        assert line.complaints() == ""


def test_the_reason_of_a_refusal_stands_beside_a_file_with_the_longest_name(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "good.jpg")
    (tmp_path / "in" / ("x" * 251 + ".jpg")).write_bytes(JPEG + bytes(10_000))
    with running_drop_line(tmp_path / "in", tmp_path / "spool"):
        wait_until(lambda: len(list((tmp_path / "in/refused").glob("*.why"))) == 1)


def test_deleted_folders_are_made_again(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg")
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        wait_until((tmp_path / "in/sent/a.jpg").exists)
        for folder in ("sent", "refused"):
            for file in (tmp_path / "in" / folder).iterdir():
                file.unlink()
            (tmp_path / "in" / folder).rmdir()
        (tmp_path / "in/empty.jpg").touch()
        write_pictures(tmp_path / "in", "b.jpg")
        wait_until(lambda: (tmp_path / "in/sent/b.jpg").exists() and (tmp_path / "in/refused/empty.jpg").exists())
        assert len(line.parts()) == 2


def test_a_folder_that_vanishes_is_a_complaint_until_it_is_back(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg")
    with running_drop_line(root, tmp_path / "spool") as line:
        wait_until((root / "sent/a.jpg").exists)
        root.rename(tmp_path / "away")
        wait_until(lambda: "cannot be read" in line.complaints())
        (tmp_path / "away").rename(root)
        write_pictures(root, "b.jpg")
        wait_until(lambda: len(line.parts()) == 2 and line.complaints() == "")


def test_an_unreadable_file_is_put_aside_and_named_and_the_others_go_on(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg", "b.jpg")
    folder = RefusingFolder(root, unreadable=["a.jpg"])
    before = read_metric("castline_files_put_aside_total", reason="not-readable")
    with running_drop_line(root, tmp_path / "spool", folder=folder) as line:
        wait_until((root / "sent/b.jpg").exists)
        wait_until(lambda: "1 files of line-1 could not be read or moved: a.jpg (not-readable: Permission denied)" in line.complaints())
        write_pictures(root, "c.jpg")
        wait_until((root / "sent/c.jpg").exists)
        assert read_metric("castline_files_put_aside_total", reason="not-readable") == before + 1
        attempts = folder.attempts
        time.sleep(1)
        assert folder.attempts <= attempts + 2, "the pauses between the attempts grow"
        folder.unreadable.clear()
        wait_until((root / "sent/a.jpg").exists)
        wait_until(lambda: line.complaints() == "")
        assert len(line.parts()) == 3


@pytest.mark.parametrize("changed_ns", [0, 4 * 10**18, 10**21], ids=["1970", "2096", "year 33658"])
def test_a_file_with_a_time_that_cannot_be_right_is_taken_with_the_time_of_its_arrival(tmp_path: Path, changed_ns: int) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg")
    with running_drop_line(root, tmp_path / "spool", folder=FolderWithClock(root, changed_ns)) as line:
        wait_until((root / "sent/a.jpg").exists)
        (spooled,) = line.spool.read_after(0, 10)
        assert abs(spooled.picture.captured_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_stored_file_that_cannot_be_moved_is_one_part_and_holds_nothing_up(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg", "b.jpg")
    folder = RefusingFolder(root, immovable=["a.jpg"])
    received = read_metric("castline_pictures_received_total")
    with running_drop_line(root, tmp_path / "spool", folder=folder) as line:
        wait_until((root / "sent/b.jpg").exists)
        wait_until(lambda: "a.jpg (not-movable: Permission denied)" in line.complaints())
        assert folder.attempts >= 3
        assert len(line.parts()) == 2
        assert read_metric("castline_pictures_received_total") == received + 2, "the file is not given to the intake again"
        folder.immovable.clear()
        wait_until((root / "sent/a.jpg").exists)
        assert len(line.parts()) == 2


def test_a_folder_in_the_place_of_a_moved_file_is_left_alone(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg", "b.jpg")
    (root / "sent/a.jpg").mkdir(parents=True)
    with running_drop_line(root, tmp_path / "spool") as line:
        wait_until(lambda: len(list((root / "sent").iterdir())) == 3)
        assert len(line.parts()) == 2
        assert (root / "sent/a.jpg").is_dir()


def test_a_file_of_another_account_whose_writer_pauses_is_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with running_drop_line(tmp_path / "in", tmp_path / "spool") as line:
        # A closed file looks like one that another account or machine still writes to.
        (tmp_path / "in/half.jpg").write_bytes(make_jpeg("1")[:-8])
        time.sleep(0.6)
        assert line.parts() == []
        (tmp_path / "in/half.jpg").write_bytes(make_jpeg("1"))
        wait_until((tmp_path / "in/sent/half.jpg").exists)
        assert read_values(line) == [make_jpeg("1")]


def test_a_file_whose_end_never_comes_is_taken_as_it_is_and_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "whole.jpg")
    (root / "half.jpg").write_bytes(JPEG[:-8])
    before = read_metric("castline_files_incomplete_total")
    with running_drop_line(root, tmp_path / "spool", end_wait_s=0.5) as line:
        wait_until((root / "sent/half.jpg").exists)
        assert read_values(line) == [make_jpeg("whole.jpg"), JPEG[:-8]]
        assert "half.jpg is still incomplete" in line.complaints()
        assert read_metric("castline_files_incomplete_total") == before + 1


def test_a_file_that_changes_after_its_move_is_offered_again(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg")
    with running_drop_line(root, tmp_path / "spool") as line:
        wait_until((root / "sent/a.jpg").exists)
        (root / "sent/a.jpg").write_bytes(make_jpeg("the rest came later"))
        wait_until(lambda: len(line.parts()) == 2)
        assert read_values(line)[1] == make_jpeg("the rest came later")
        assert "changed after the gateway had read it" in line.complaints()


def test_files_of_one_second_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    root = tmp_path / "in"
    names = [f"image{number}.jpg" for number in (11, 2, 1, 10)]
    write_pictures(root, *names, "image9.jpg")
    for name in names:
        os.utime(root / name, ns=(10**18, 10**18))
    with running_drop_line(root, tmp_path / "spool") as line:
        wait_until(lambda: len(line.parts()) == 5)
        assert read_values(line) == [make_jpeg(f"image{number}.jpg") for number in (1, 2, 10, 11, 9)]


def test_what_lies_beside_pictures_is_no_part_and_is_counted_once(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "image", "._a.jpg", "@eaDir/a.jpg", "a.jpg")
    for name in ("Thumbs.db", "results.xml", "notes", "desktop.ini", ".DS_Store", "BMW.txt"):
        (root / name).write_bytes(b"BM no picture")
    (root / "notes").write_bytes(b"no picture")
    before = read_metric("castline_files_ignored_total", reason="no-picture")
    with running_drop_line(root, tmp_path / "spool") as line:
        wait_until(lambda: len(line.parts()) == 2)
        time.sleep(0.5)
        assert sorted(read_values(line)) == sorted([make_jpeg("a.jpg"), make_jpeg("image")])
        assert read_metric("castline_files_ignored_total", reason="no-picture") == before + 5
        assert (root / "Thumbs.db").exists()


def test_a_file_that_may_be_a_damaged_picture_is_named_however_many_other_files_lie_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg")
    for number in range(1_200):
        (root / f"{number}.xml").write_bytes(b"<measured/>")
    before = read_metric("castline_files_ignored_total", reason="no-picture")
    with running_drop_line(root, tmp_path / "spool"):
        wait_until(lambda: read_metric("castline_files_ignored_total", reason="no-picture") == before + 1_200, 30)
        (root / "casting").write_bytes(b"a picture whose first bytes are lost")
        wait_until(lambda: "does not read casting in the folder" in caplog.text, 30)
        assert read_metric("castline_files_ignored_total", reason="no-picture") == before + 1_201
        assert caplog.text.count(".xml in the folder") == 1_000


def test_subfolders_are_read_and_links_are_named_and_not_followed(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "2026/11/26/a.jpg")
    outside = write_pictures(tmp_path / "outside", "secret.jpg")
    (root / "link.jpg").symlink_to(outside / "secret.jpg")
    (root / "folder").symlink_to(outside)
    (root / "sent").symlink_to(outside)
    with running_drop_line(root, tmp_path / "spool") as line:
        wait_until(lambda: len(line.parts()) == 1 and "links are not followed" in line.complaints())
        wait_until(lambda: "a.jpg (not-movable" in line.complaints())
        assert list(outside.iterdir()) == [outside / "secret.jpg"], "the link in the place of the folder sent leads nowhere"
        (root / "sent").unlink()
        wait_until((root / "sent/2026_11_26_a.jpg").exists)
        assert read_values(line) == [make_jpeg("2026/11/26/a.jpg")]


def test_folders_that_lie_too_deep_are_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "2026/11/26/18/a.jpg", "2026/11/26/18/30/b.jpg")
    with running_drop_line(root, tmp_path / "spool") as line:
        wait_until((root / "sent/2026_11_26_18_a.jpg").exists)
        wait_until(lambda: "1 folders lie too deep" in line.complaints() and "the first is 2026/11/26/18/30" in line.complaints())
        assert read_values(line) == [make_jpeg("2026/11/26/18/a.jpg")]


def test_a_file_that_is_too_large_is_counted_as_received_and_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/large.jpg").write_bytes(JPEG + bytes(10_000))
    before = read_metric("castline_pictures_received_total"), read_metric("castline_pictures_refused_total", reason="too-large")
    with running_drop_line(tmp_path / "in", tmp_path / "spool"):
        wait_until((tmp_path / "in/refused/large.jpg").exists)
    after = read_metric("castline_pictures_received_total"), read_metric("castline_pictures_refused_total", reason="too-large")
    assert after == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("is_renamed", [False, True])
def test_every_whole_version_of_a_name_that_is_overwritten_is_a_picture(tmp_path: Path, is_renamed: bool) -> None:
    (tmp_path / "in").mkdir()
    versions = [make_jpeg(f"version {number:02d}") for number in range(8)]
    folder = RecordingFolder(tmp_path / "in")
    with running_drop_line(tmp_path / "in", tmp_path / "spool", settle_s=30, folder=folder) as line:
        for version in versions:  # Each version stays for a shorter time than settle_s.
            target = tmp_path / "in" / (".transfer" if is_renamed else "image.jpg")
            target.write_bytes(version)
            if is_renamed:
                target.rename(tmp_path / "in/image.jpg")
            wait_until(partial(folder.contents.__contains__, version))
        wait_until(lambda: read_values(line) == versions[:-1])
    with running_drop_line(tmp_path / "in", tmp_path / "spool", settle_s=0.1) as line:
        wait_until((tmp_path / "in/sent/image.jpg").exists)
        assert read_values(line) == versions


def test_a_version_that_is_overwritten_before_it_can_be_read_is_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    before = read_metric("castline_pictures_lost_total", reason="overwritten")
    folder = RefusingFolder(tmp_path / "in", unreadable=["image.jpg"])
    with running_drop_line(tmp_path / "in", tmp_path / "spool", folder=folder) as line:
        for number in range(2):
            (tmp_path / "in/.transfer").write_bytes(make_jpeg(str(number)))
            (tmp_path / "in/.transfer").rename(tmp_path / "in/image.jpg")
            wait_until(partial(is_read_again, folder, number))
        wait_until(lambda: "image.jpg was overwritten before the gateway had read it" in line.complaints())
    assert read_metric("castline_pictures_lost_total", reason="overwritten") == before + 1


@pytest.mark.parametrize(
    ("option", "sent", "refused"),
    [
        ({"sent_max_bytes": 2 * 4096}, 2, 3),
        ({"sent_keep_days": 0}, 0, 3),
        ({"refused_max_bytes": 2 * 4096}, 6, 2),
        ({"refused_keep_days": 0}, 6, 0),
    ],
    ids=["size of sent", "age in sent", "size of refused", "age in refused"],
)
def test_the_folders_of_sent_and_refused_files_keep_within_their_size_and_age(
    tmp_path: Path, option: dict[str, float], sent: int, refused: int
) -> None:
    root = write_pictures(
        tmp_path / "in", *(f"sent/{number}.jpg" for number in range(6)), *(f"refused/{number}.jpg" for number in range(3))
    )
    with running_drop_line(root, tmp_path / "spool", **option):  # type: ignore[arg-type]
        wait_until(lambda: (len(list((root / "sent").iterdir())), len(list((root / "refused").iterdir()))) == (sent, refused))
        time.sleep(0.3)
    assert (len(list((root / "sent").iterdir())), len(list((root / "refused").iterdir()))) == (sent, refused)
