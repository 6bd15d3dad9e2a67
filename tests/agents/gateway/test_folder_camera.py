"""A replayed folder: order, rate, classes, and one picture for each trigger."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from agents.gateway.folder_camera import FolderCamera
from agents.gateway.intake import CameraFrame
from streams.identity import PartId
from streams.settings import CameraSettings
from tests.agents.gateway.camera_line import CameraLine, make_jpeg, wait_until, write_pictures


def read_frames(camera: FolderCamera, count: int) -> list[CameraFrame]:
    return list(islice(camera.frames(threading.Event()), count))


def test_the_names_of_the_folders_give_the_class_of_the_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path, "ok_front/a.jpg", "def_front/b.jpeg", "c.png")
    camera = FolderCamera("line-1", CameraSettings(kind="folder", path=tmp_path, rate_per_s=1000))
    truth = {frame.value.rsplit(b"casting", 1)[1][:-2].decode(): frame.truth for frame in read_frames(camera, 3)}
    assert truth == {"ok_front/a.jpg": "ok", "def_front/b.jpeg": "defect", "c.png": None}


def test_a_seed_repeats_the_order_and_each_line_has_its_own(tmp_path: Path) -> None:
    write_pictures(tmp_path, *(f"{number:02d}.jpg" for number in range(20)))
    settings = CameraSettings(kind="folder", path=tmp_path, rate_per_s=1000, seed=3)
    orders = [[frame.value for frame in read_frames(FolderCamera(line, settings), 40)] for line in ("line-1", "line-1", "line-2")]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0][:20]) == sorted(orders[0][20:]), "each round shows every picture once"
    assert orders[0][:20] != orders[0][20:]


def test_without_loop_and_shuffle_a_folder_is_played_once_in_order(tmp_path: Path) -> None:
    write_pictures(tmp_path, "b.jpg", "a.jpg", "c.jpg")
    camera = FolderCamera("line-1", CameraSettings(kind="folder", path=tmp_path, rate_per_s=1000, loop=False, shuffle=False))
    assert [frame.value[-7:-2] for frame in read_frames(camera, 10)] == [b"a.jpg", b"b.jpg", b"c.jpg"]


def test_a_folder_is_played_at_its_rate(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.jpg")
    camera = FolderCamera("line-1", CameraSettings(kind="folder", path=tmp_path, rate_per_s=50, jitter=0.5))
    started_s = time.monotonic()
    read_frames(camera, 26)
    assert 0.4 < time.monotonic() - started_s < 2


@pytest.mark.parametrize("names", [(), ("notes.txt",)], ids=["missing", "empty"])
def test_a_folder_without_pictures_is_an_outage_until_pictures_come(tmp_path: Path, names: tuple[str, ...]) -> None:
    settings = CameraSettings(kind="folder", path=write_pictures(tmp_path / "in", *names), rate_per_s=100)
    line, camera = CameraLine(tmp_path / "spool", settings), FolderCamera("line-1", settings)
    line.start(camera)
    wait_until(lambda: "in of line-1 is missing or holds no pictures" in camera.find_outage())
    write_pictures(tmp_path / "in", "a.jpg")
    wait_until(lambda: len(line.parts()) > 0)
    assert camera.find_outage() == line.complaints() == ""
    line.stop()


def test_a_folder_repeats_its_picture_while_the_spool_is_full(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    settings = CameraSettings(kind="folder", path=tmp_path / "in", rate_per_s=100, loop=False, shuffle=False)
    line = CameraLine(tmp_path / "spool", settings, spool_bytes=2 * (1024 + 50))
    line.start(FolderCamera("line-1", settings))
    wait_until(lambda: len(line.parts()) == 1 or len(line.parts()) == 2)
    time.sleep(0.3)
    first = line.spool.read_after(0, 10)
    line.spool.remove(spooled.seq for spooled in first)
    wait_until(lambda: len(line.parts()) == 3 - len(first))
    assert [part.part for part in line.parts()] == list(range(len(first) + 1, 4))
    line.stop()


def test_a_triggered_folder_gives_one_picture_for_each_part_under_its_numbers(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg", "b.jpg")
    settings = CameraSettings(kind="folder", path=tmp_path / "in", trigger="board")
    line = CameraLine(tmp_path / "spool", settings)
    camera = FolderCamera("line-1", settings)
    line.start(camera)
    reported = [PartId("line-1", 4, number) for number in (1, 2, 3, 3, 5)]
    receipts = [camera.trigger(part, datetime.now(UTC)) for part in reported]
    assert [receipt.result(5).part for receipt in receipts] == reported
    assert line.parts() == [reported[0], reported[1], reported[2], reported[4]]
    line.stop()


def test_a_triggered_picture_is_never_from_the_future(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", "a.jpg")
    settings = CameraSettings(kind="folder", path=tmp_path / "in", trigger="board")
    line = CameraLine(tmp_path / "spool", settings)
    camera = FolderCamera("line-1", settings)
    line.start(camera)
    camera.trigger(PartId("line-1", 4, 1), datetime.now(UTC) + timedelta(hours=1)).result(5)
    assert line.spool.read_after(0, 1)[0].picture.captured_at <= datetime.now(UTC)
    line.stop()


def test_a_replay_offers_only_what_the_inspector_takes_and_nothing_of_a_nas_device(tmp_path: Path) -> None:
    write_pictures(tmp_path, "a.jpg", "b.webp", "c.gif", "._d.jpg", "@eaDir/e.jpg", "__MACOSX/f.jpg", ".hidden/g.jpg", "h.TIFF")
    camera = FolderCamera("line-1", CameraSettings(kind="folder", path=tmp_path, rate_per_s=1000, loop=False, shuffle=False))
    assert [frame.value[22 + 4 + 2 : -2] for frame in read_frames(camera, 10)] == [b"a.jpg", b"h.TIFF"]


def test_a_replay_that_loses_files_goes_on_with_the_next_ones_and_never_begins_again(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", *(f"{number}.jpg" for number in range(6)))
    settings = CameraSettings(kind="folder", path=root, rate_per_s=1000, loop=False, shuffle=False)
    camera = FolderCamera("line-1", settings)
    frames = camera.frames(threading.Event())
    labels = {"line": "line-1", "reason": "not-readable"}
    lost = REGISTRY.get_sample_value("castline_pictures_lost_total", labels) or 0.0
    read = [next(frames).value for _ in range(2)]
    (root / "2.jpg").unlink()
    read.append(next(frames).value)
    # After an error the gateway asks for the frames again.
    frames.close()  # type: ignore[attr-defined]
    read += [frame.value for frame in camera.frames(threading.Event())]
    assert read == [make_jpeg(f"{number}.jpg") for number in (0, 1, 3, 4, 5)]
    assert any("2.jpg of line-1 cannot be read" in text for text in camera.list_complaints())
    assert REGISTRY.get_sample_value("castline_pictures_lost_total", labels) == lost + 1


def test_a_replay_waits_while_its_whole_folder_is_away(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg", "b.jpg")
    settings = CameraSettings(kind="folder", path=root, rate_per_s=1000, loop=False, shuffle=False)
    camera = FolderCamera("line-1", settings)
    frames = camera.frames(threading.Event())
    first = next(frames)
    root.rename(tmp_path / "away")
    second: list[CameraFrame] = []
    reader = threading.Thread(target=lambda: second.append(next(frames)))
    reader.start()
    wait_until(lambda: "cannot be reached" in camera.find_outage())
    (tmp_path / "away").rename(root)
    reader.join(10)
    assert [frame.value for frame in (first, *second)] == [make_jpeg("a.jpg"), make_jpeg("b.jpg")]
    assert camera.find_outage() == ""


def test_a_triggered_replay_takes_the_next_file_for_a_part_whose_file_is_lost(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "in", "a.jpg", "b.jpg")
    write_pictures(root, "c.jpg")
    settings = CameraSettings(kind="folder", path=root, trigger="board", shuffle=False)
    line = CameraLine(tmp_path / "spool", settings)
    camera = FolderCamera("line-1", settings)
    line.start(camera)
    assert camera.trigger(PartId("line-1", 4, 1), datetime.now(UTC)).result(5).part.part == 1
    (root / "b.jpg").unlink()
    assert camera.trigger(PartId("line-1", 4, 2), datetime.now(UTC)).result(5).part.part == 2
    assert [spooled.picture.value for spooled in line.spool.read_after(0, 2)] == [make_jpeg("a.jpg"), make_jpeg("c.jpg")]
    line.stop()
