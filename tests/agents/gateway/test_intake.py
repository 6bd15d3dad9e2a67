"""The intake: content types, part ids, repeats and refusals."""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from prometheus_client import REGISTRY

from agents.gateway.capture_time import parse_capture_time, read_file_time
from agents.gateway.intake import CameraFrame, Intake, PictureRefusedError
from agents.gateway.spool import CheckedPicture, PictureReceipt, Spool, SpoolBudget
from agents.gateway.upload_camera import UploadCamera
from streams import metrics
from streams.errors import SpoolFullError
from streams.identity import UNKNOWN_CONTENT_TYPE, PartId
from streams.settings import CameraSettings
from tests.agents.gateway.camera_line import JPEG, CameraLine


def test_a_wrong_declared_type_is_corrected_by_the_bytes(tmp_path: Path) -> None:
    line = CameraLine(tmp_path, CameraSettings(kind="http"))
    line.accept(CameraFrame(b"\x89PNG\r\n\x1a\n...", datetime.now(UTC), "image/jpeg"))
    line.accept(CameraFrame(b"whatever this is", datetime.now(UTC), "image/jpeg"))
    assert [spooled.picture.content_type for spooled in line.spool.read_after(0, 9)] == ["image/png", UNKNOWN_CONTENT_TYPE]
    line.stop()


def test_a_picture_gets_the_part_of_the_board_and_an_unmatched_one_a_part_of_the_gateways_own_run(tmp_path: Path) -> None:
    settings = CameraSettings(kind="http", trigger="board", latency_s=0.0, match_window_s=0.3)
    line, now = CameraLine(tmp_path, settings), datetime.now(UTC)
    assert line.intake.report_part(PartId("line-1", 9, 1), now - timedelta(seconds=5))
    assert line.intake.report_part(PartId("line-1", 9, 2), now)
    assert not line.intake.report_part(PartId("line-1", 9, 2), now), "a report that is sent again is not new"
    matched = CameraFrame(JPEG, now, idempotency_key="key:1")
    unmatched = CameraFrame(JPEG + b"stray", now - timedelta(seconds=2))
    line.intake.accept(matched)
    line.intake.accept(unmatched)
    time.sleep(0.4)
    line.intake.decide_due()
    assert line.parts() == [PartId("line-1", line.spool.run, 1), PartId("line-1", 9, 2)]
    assert matched.receipt.result(0).is_matched
    assert not unmatched.receipt.result(0).is_matched
    repeat = line.accept(CameraFrame(JPEG, now, idempotency_key="key:1"))
    assert repeat == PictureReceipt(PartId("line-1", 9, 2), is_repeat=True)
    line.stop()
    restarted = CameraLine(tmp_path, settings)
    assert not restarted.intake.report_part(PartId("line-1", 9, 2), now), "also after a restart"
    restarted.stop()


def test_without_a_latency_pictures_are_not_assigned_and_the_line_says_what_to_do(tmp_path: Path) -> None:
    settings, now = CameraSettings(kind="http", trigger="board", match_window_s=0.3), datetime.now(UTC)
    line = CameraLine(tmp_path, settings)
    assert line.intake.report_part(PartId("line-1", 9, 1), now - timedelta(seconds=5))
    assert line.intake.report_part(PartId("line-1", 9, 2), now)
    receipt = line.accept(CameraFrame(JPEG, now))
    assert (receipt.part, receipt.is_matched) == (PartId("line-1", line.spool.run, 1), False)
    assert "castline gateway measure line-1" in line.intake.find_latency_problem()
    report = line.intake.read_latency()
    assert (report.latency_s, report.picture_times, len(report.part_times)) == (None, (now.timestamp(),), 2)
    line.intake.store_latency(0.25, spacing_s=5.0)
    assert line.intake.find_latency_problem() == ""
    frame = CameraFrame(JPEG, now + timedelta(seconds=0.25))
    line.intake.accept(frame)
    time.sleep(0.4)
    line.intake.decide_due()
    assert frame.receipt.result(0) == PictureReceipt(PartId("line-1", 9, 2))
    line.stop()


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_a_camera_that_is_asked_for_each_part_needs_no_latency(tmp_path: Path, kind: Literal["folder", "video"]) -> None:
    line = CameraLine(tmp_path, CameraSettings(kind=kind, path=tmp_path, address="0", trigger="board"))
    assert line.intake.find_latency_problem() == ""
    receipt = line.accept(CameraFrame(JPEG, datetime.now(UTC), part=PartId("line-1", 9, 2)))
    assert receipt == PictureReceipt(PartId("line-1", 9, 2))
    with pytest.raises(ValueError, match="needs no latency"):
        line.intake.read_latency()
    line.stop()


@pytest.mark.parametrize(
    "claimed", ["9999-12-31T23:59:59", "2096-01-01T00:00:00", "2019-12-31T00:00:00", "1970-01-01T00:00:00", "0001-01-01T00:00:00"]
)
@pytest.mark.parametrize("zone", ["", "Z", "+14:00", "-12:00"])
def test_a_time_that_cannot_be_right_is_replaced_by_the_time_of_arrival(tmp_path: Path, claimed: str, zone: str) -> None:
    now = datetime.now(UTC)
    line = CameraLine(tmp_path, CameraSettings(kind="http"))
    before = metrics.picture_times_replaced.labels("line-1")._value.get()
    assert line.intake.list_complaints() == []
    line.accept(CameraFrame(JPEG, parse_capture_time(claimed + zone, now)))
    (spooled,) = line.spool.read_after(0, 9)
    assert abs(spooled.picture.captured_at - now) < timedelta(minutes=1)
    assert metrics.picture_times_replaced.labels("line-1")._value.get() == before + 1
    (complaint,) = line.intake.list_complaints()
    assert "line-1: a picture has the time" in complaint
    assert "NTP" in complaint
    line.stop()


def test_the_complaint_about_a_clock_ends_ten_minutes_after_its_last_picture(tmp_path: Path) -> None:
    now_s = 1_800_000_000.0
    spool = Spool(tmp_path, "line-1", SpoolBudget(2**20))
    intake = Intake(CameraSettings(kind="http"), 10_000, spool, on_stored=lambda: None, clock=lambda: now_s)
    for hours in (-24 * 365, 0, 47):
        intake.accept(CameraFrame(JPEG, datetime.fromtimestamp(now_s, UTC) + timedelta(hours=hours)))
    assert intake.list_complaints() == [], "a year back and two days ahead are possible"
    intake.accept(CameraFrame(JPEG, datetime.fromtimestamp(now_s, UTC) + timedelta(hours=49)))
    assert len(intake.list_complaints()) == 1
    now_s += 601
    assert intake.list_complaints() == []
    spool.close()


class DamagedSpool(Spool):
    """A spool on a disk that has failed and has damaged the file."""

    def flush(self) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def forget_key(self, key: str) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")


class FailingOnceSpool(Spool):
    """A spool on a disk that fails at the first flush."""

    has_failed = False

    def flush(self) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise OSError(errno.EIO, "Input/output error")
        super().flush()


def test_a_picture_that_is_sent_again_after_a_failed_flush_keeps_its_part(tmp_path: Path) -> None:
    spool = FailingOnceSpool(tmp_path, "line-1", SpoolBudget(2**20))
    intake = Intake(CameraSettings(kind="http"), 10_000, spool, on_stored=lambda: None)
    frames = [CameraFrame(JPEG, datetime.now(UTC), idempotency_key="key:1") for _ in range(3)]
    for frame in frames:
        intake.accept(frame)
    with pytest.raises(SpoolFullError):
        frames[0].receipt.result(0)
    stored = {picture.part for picture in spool.read_after(0, 10)}
    assert {frame.receipt.result(0).part for frame in frames[1:]} == stored
    assert [frame.receipt.result(0).is_repeat for frame in frames[1:]] == [False, True]
    spool.close()


def test_a_picture_that_a_full_spool_has_refused_keeps_the_part_of_the_board(tmp_path: Path) -> None:
    budget = SpoolBudget(2**20)
    spool = Spool(tmp_path, "line-1", budget)
    intake = Intake(CameraSettings(kind="http", trigger="board", latency_s=0), 10_000, spool, on_stored=lambda: None)
    part, now = PartId("line-1", 4, 1), datetime.now(UTC)
    intake.report_part(part, now)
    intake.report_part(PartId("line-1", 4, 2), now + timedelta(seconds=1))
    frames = [CameraFrame(JPEG, now, idempotency_key="key:1") for _ in range(2)]
    budget.add_existing(2**20)
    intake.accept(frames[0])
    with pytest.raises(SpoolFullError):
        frames[0].receipt.result(0)
    budget.release(2**20)
    intake.accept(frames[1])
    assert frames[1].receipt.result(0) == PictureReceipt(part)
    spool.close()


class WaitingLine:
    """The intake of a line whose pictures have no times of their own. Its board has counted three parts. The clock is simulated."""

    def __init__(self, spool: Spool, first_part: int = 1) -> None:
        self.spool = spool
        self.now_s = _BELT_START_S + first_part + 2.02
        # The error of the machine's clock.
        self.step_s = 0.0
        settings = CameraSettings(kind="http", trigger="board", latency_s=0, time_source="arrival")
        self.intake = Intake(
            *(settings, 10_000, spool, lambda: None), clock=lambda: self.now_s + self.step_s, steady_clock=lambda: self.now_s
        )
        for number in range(first_part, first_part + 3):
            self.intake.report_part(PartId("line-1", 9, number), datetime.fromtimestamp(_BELT_START_S + number, UTC))

    def send(self, picture: bytes = JPEG, key: str = "key:1") -> CameraFrame:
        frame = CameraFrame(picture, datetime.now(UTC), idempotency_key=key)
        self.intake.accept(frame)
        return frame

    def abandon(self, key: str = "") -> None:
        """The camera sends its picture, but closes the connection before the intake gets the picture."""
        camera = UploadCamera()
        frame = CameraFrame(JPEG, datetime.now(UTC), idempotency_key=key)
        camera.upload(frame)
        camera.abandon(frame)
        self.intake.accept(replace(next(camera.frames(threading.Event())), waited_s=0.0))

    def wait(self) -> None:
        self.now_s += 0.5
        self.intake.decide_due()


def expect_no_part_for_a_copy_after_a_restart(folder: Path, key: str, next_key: str) -> None:
    restarted = WaitingLine(Spool(folder, "line-1", SpoolBudget(2**20)), first_part=11)
    copy = restarted.send(key=key)
    restarted.now_s += 0.05
    following = restarted.send(NEXT_PICTURE, key=next_key)
    restarted.wait()
    assert copy.receipt.result(0) == PictureReceipt(PartId("line-1", restarted.spool.run, 1), is_matched=False)
    assert following.receipt.result(0) == PictureReceipt(PartId("line-1", 9, 13))
    restarted.spool.close()


@pytest.mark.parametrize("key", ["key:1", ""])
def test_a_picture_that_is_sent_again_while_it_waits_for_its_part_is_not_its_own_rival(tmp_path: Path, key: str) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    first = line.send(key=key)
    line.now_s += 0.1
    repeats = [line.send(key=key) for _ in range(3)]
    assert not any(frame.receipt.done() for frame in (first, *repeats))
    line.wait()
    part = PartId("line-1", 9, 3)
    assert first.receipt.result(0) == PictureReceipt(part)
    assert [frame.receipt.result(0) for frame in repeats] == [PictureReceipt(part, is_repeat=True)] * 3
    assert [spooled.part for spooled in line.spool.read_after(0, 9)] == [part]
    if key:
        assert line.send().receipt.result(0) == PictureReceipt(part, is_repeat=True), "the answer is the same after the wait"
    line.spool.close()


def test_a_picture_whose_answer_was_lost_does_not_take_the_part_of_the_next_casting(tmp_path: Path) -> None:
    """The camera gives neither a time nor a key, and sends its picture again when the next casting is in front of it."""
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    first = line.send(key="")
    line.wait()
    line.now_s = _BELT_START_S + 4.01
    line.intake.report_part(PartId("line-1", 9, 4), datetime.fromtimestamp(_BELT_START_S + 4, UTC))
    repeat = line.send(key="")
    line.now_s += 0.05
    following = line.send(JPEG + b"the next casting", key="")
    line.wait()
    assert first.receipt.result(0).part == PartId("line-1", 9, 3)
    assert repeat.receipt.result(0) == PictureReceipt(PartId("line-1", line.spool.run, 1), is_matched=False)
    assert following.receipt.result(0) == PictureReceipt(PartId("line-1", 9, 4))
    line.spool.close()


NEXT_PICTURE = JPEG + b"the next casting"


def pass_next_casting(line: WaitingLine, key: str = "") -> tuple[PictureReceipt, PictureReceipt]:
    """The next casting passes, while the camera sends its earlier picture again. Returns the receipts of copy and new picture."""
    line.now_s = _BELT_START_S + 4.01
    line.intake.report_part(PartId("line-1", 9, 4), datetime.fromtimestamp(_BELT_START_S + 4, UTC))
    copy = line.send(key=key)
    line.now_s += 0.05
    following = line.send(NEXT_PICTURE, key=f"{key}next" if key else "")
    line.wait()
    return copy.receipt.result(0), following.receipt.result(0)


@pytest.mark.parametrize("number", [3, None])
def test_after_a_restart_a_copy_of_a_stored_picture_does_not_take_the_part_of_the_next_casting(tmp_path: Path, number: int | None) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    if number is None:
        line.send(b"a rival", key="")
    first = line.send(key="")
    line.wait()
    assert first.receipt.result(0).is_matched == (number is not None)
    line.spool.close()
    expect_no_part_for_a_copy_after_a_restart(tmp_path, key="", next_key="")


@pytest.mark.parametrize("key", ["", "key:1"])
def test_a_copy_of_an_abandoned_picture_gets_the_part_of_its_own_casting(tmp_path: Path, key: str) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    line.abandon(key=key)
    copy, following = pass_next_casting(line, key)
    assert copy == PictureReceipt(PartId("line-1", 9, 3))
    assert following == PictureReceipt(PartId("line-1", 9, 4))
    line.spool.close()


def test_another_picture_under_the_key_of_an_abandoned_one_is_no_copy(tmp_path: Path) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    line.abandon(key="key:1")
    line.now_s = _BELT_START_S + 4.01
    line.intake.report_part(PartId("line-1", 9, 4), datetime.fromtimestamp(_BELT_START_S + 4, UTC))
    other = line.send(NEXT_PICTURE, key="key:1")
    line.wait()
    assert other.receipt.result(0) == PictureReceipt(PartId("line-1", 9, 4))
    line.spool.close()


def test_a_picture_that_is_abandoned_twice_has_the_time_of_its_first_arrival(tmp_path: Path) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    line.abandon()
    line.now_s += 0.6
    line.abandon()
    copy, following = pass_next_casting(line)
    assert (copy.part, following.part) == (PartId("line-1", 9, 3), PartId("line-1", 9, 4))
    line.spool.close()


def test_an_abandoned_picture_is_a_rival_of_the_pictures_that_arrive_with_it(tmp_path: Path) -> None:
    """After an outage of the network, pictures of two castings arrive together. Nobody knows which of them shows the part."""
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    line.abandon()
    line.now_s += 0.05
    rival = line.send(JPEG + b"another casting", key="")
    line.wait()
    copy, following = pass_next_casting(line)
    assert not rival.receipt.result(0).is_matched
    assert not copy.is_matched
    assert following == PictureReceipt(PartId("line-1", 9, 4))
    line.spool.close()


def test_a_copy_gets_no_part_if_the_clock_was_set_after_the_first_copy_arrived(tmp_path: Path) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    line.abandon()
    line.step_s -= 1.0
    line.intake.decide_due()
    line.now_s += 2.0
    for number, at_s in ((4, 3.0), (5, 4.0)):
        line.intake.report_part(PartId("line-1", 9, number), datetime.fromtimestamp(_BELT_START_S + at_s, UTC))
    copy = line.send(key="")
    line.wait()
    assert not copy.receipt.result(0).is_matched
    line.spool.close()


@pytest.mark.parametrize("key", ["", "key:1"])
def test_a_copy_of_a_picture_that_a_full_spool_has_refused_gets_the_part_of_its_own_casting(tmp_path: Path, key: str) -> None:
    budget = SpoolBudget(2**20)
    line = WaitingLine(Spool(tmp_path, "line-1", budget))
    budget.add_existing(2**20)
    first = line.send(key=key)
    line.wait()
    with pytest.raises(SpoolFullError):
        first.receipt.result(0)
    budget.release(2**20)
    copy, following = pass_next_casting(line, key)
    assert copy == PictureReceipt(PartId("line-1", 9, 3))
    assert following == PictureReceipt(PartId("line-1", 9, 4))
    line.spool.close()


class AwaySpool(Spool):
    """A spool whose disk is away while `is_away` is set."""

    is_away = False

    def _find_receipt(self, key: str) -> tuple[PartId, str] | None:
        if self.is_away:
            raise OSError(errno.ESTALE, "Stale file handle")
        return super()._find_receipt(key)


def test_a_copy_of_a_picture_that_was_refused_while_the_disk_was_away_gets_the_part_of_its_own_casting(tmp_path: Path) -> None:
    spool = AwaySpool(tmp_path, "line-1", SpoolBudget(2**20))
    line = WaitingLine(spool)
    spool.is_away = True
    first = line.send(key="key:1")
    with pytest.raises(SpoolFullError):
        first.receipt.result(0)
    spool.is_away = False
    copy, following = pass_next_casting(line, "key:1")
    assert copy == PictureReceipt(PartId("line-1", 9, 3))
    assert following == PictureReceipt(PartId("line-1", 9, 4))
    line.spool.close()


class FailingWriteSpool(Spool):
    """A spool whose disk refuses the first picture."""

    has_failed = False

    def _insert(self, picture: CheckedPicture, part: PartId, size: int, keys: Iterable[str]) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise OSError(errno.ESTALE, "Stale file handle")
        super()._insert(picture, part, size, keys)


@pytest.mark.parametrize("spool_type", [FailingWriteSpool, FailingOnceSpool], ids=["write fails", "flush fails"])
@pytest.mark.parametrize("key", ["", "key:1"])
def test_a_copy_gets_its_part_if_the_disk_refused_the_first_copy_before_the_part_report_came(
    tmp_path: Path, spool_type: type[Spool], key: str
) -> None:
    """While the disk fails, the gateway refuses the report of part 4. So it decides that the picture of this part shows no part."""
    line = WaitingLine(spool_type(tmp_path, "line-1", SpoolBudget(2**20)))
    line.now_s = _BELT_START_S + 4.01
    first = line.send(key=key)
    line.now_s += 2.5
    line.intake.decide_due()
    with pytest.raises(SpoolFullError):
        first.receipt.result(0)
    line.now_s = _BELT_START_S + 7.01
    for number in (4, 5, 6, 7):
        line.intake.report_part(PartId("line-1", 9, number), datetime.fromtimestamp(_BELT_START_S + number, UTC))
    copy = line.send(key=key)
    line.now_s += 0.05
    following = line.send(NEXT_PICTURE, key="key:2")
    line.wait()
    assert copy.receipt.result(0) == PictureReceipt(PartId("line-1", 9, 4))
    assert following.receipt.result(0) == PictureReceipt(PartId("line-1", 9, 7))
    line.spool.close()


@pytest.mark.parametrize("key", ["", "key:1"])
def test_a_picture_without_a_part_keeps_its_id_while_the_disk_fails_at_each_copy(tmp_path: Path, key: str) -> None:
    """Kafka gets a picture also if its flush fails. So each further id would become another verdict about the same casting."""
    line = WaitingLine(DamagedSpool(tmp_path, "line-1", SpoolBudget(2**20)))
    line.now_s = _BELT_START_S + 4.01
    for _ in range(4):
        frame = line.send(key=key)
        line.now_s += 2.5
        line.intake.decide_due()
        with pytest.raises(SpoolFullError):
            frame.receipt.result(0)
    assert len({picture.part for picture in line.spool.read_after(0, 10)}) == 1
    line.spool.close()


@pytest.mark.parametrize("key", ["", "key:1"])
@pytest.mark.parametrize("stage", ["in the queue of the camera", "noted by the intake", "refused by the disk"])
def test_after_a_stop_a_copy_of_a_picture_that_was_not_stored_does_not_take_the_part_of_a_later_casting(
    tmp_path: Path, stage: str, key: str
) -> None:
    budget = SpoolBudget(2**20)
    line, camera, stopping = WaitingLine(Spool(tmp_path, "line-1", budget)), UploadCamera(), threading.Event()
    if stage == "refused by the disk":
        budget.add_existing(2**20)
        line.send(key=key)
        line.wait()
    elif stage == "noted by the intake":
        line.abandon(key=key)
    else:
        frame = CameraFrame(JPEG, datetime.now(UTC), idempotency_key=key)
        camera.upload(frame)
        camera.abandon(frame)
    stopping.set()
    for frame in camera.frames(stopping):
        line.intake.accept(frame)
    line.intake.drain()
    line.spool.close()
    expect_no_part_for_a_copy_after_a_restart(tmp_path, key, next_key="key:2")


def test_without_a_key_another_picture_is_a_rival_and_another_time_is_no_repeat(tmp_path: Path) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    rivals = [line.send(key=""), line.send(JPEG + b"another", key="")]
    line.wait()
    assert [frame.receipt.result(0).is_matched for frame in rivals] == [False, False]
    line.spool.close()
    timed, now = CameraLine(tmp_path / "timed", CameraSettings(kind="http", trigger="board", latency_s=0)), datetime.now(UTC)
    frames = [CameraFrame(JPEG, now - timedelta(seconds=age_s)) for age_s in (1, 2, 2)]
    for frame in frames:
        timed.intake.accept(frame)
    timed.intake.drain()
    assert [frame.receipt.result(0).is_repeat for frame in frames] == [False, False, True]
    timed.stop()


def test_another_picture_under_the_key_of_a_waiting_one_is_refused(tmp_path: Path) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    first, other = line.send(), line.send(JPEG + b"another")
    with pytest.raises(PictureRefusedError, match="use a new key") as refused:
        other.receipt.result(0)
    assert refused.value.reason == "key-reused"
    line.wait()
    assert first.receipt.result(0).is_matched
    line.spool.close()


def test_a_camera_that_no_longer_waits_takes_no_answer_from_the_other_copies(tmp_path: Path) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    frames = [line.send() for _ in range(4)]
    frames[0].receipt.cancel()
    frames[2].receipt.cancel()
    frames.append(line.send())
    line.wait()
    assert [frames[index].receipt.result(0).is_repeat for index in (1, 3, 4)] == [True] * 3
    line.spool.close()


def test_the_number_of_repeats_that_wait_for_an_answer_is_bounded(tmp_path: Path) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    frames = [line.send() for _ in range(100)]
    line.wait()
    answered = [frame.receipt.done() for frame in frames]
    assert answered == [True, *[False] * 83, *[True] * 16], "the first copy and the last 16 repeats"
    line.spool.close()


class MisusedSpool(Spool):
    """A spool whose database refuses the first picture by an error that nobody expects."""

    has_failed = False

    def accept(self, picture: CheckedPicture, keys: Iterable[str] = (), part: PartId | None = None) -> PictureReceipt:
        if not self.has_failed:
            self.has_failed = True
            raise sqlite3.ProgrammingError("not expected")
        return super().accept(picture, keys, part)


def test_after_an_unexpected_error_the_camera_may_send_its_picture_again(tmp_path: Path) -> None:
    line = WaitingLine(MisusedSpool(tmp_path, "line-1", SpoolBudget(2**20)))
    lost = [line.send(), line.send()]
    other = CameraFrame(JPEG + b"a rival, so that both are decided at once", datetime.now(UTC), idempotency_key="key:2")
    with pytest.raises(sqlite3.ProgrammingError):
        line.intake.accept(other)
    for frame in lost:
        with pytest.raises(sqlite3.ProgrammingError):
            frame.receipt.result(0)
    assert other.receipt.done(), "the error of one picture keeps no other picture from its answer"
    again = line.send()
    line.wait()
    assert not again.receipt.result(0).is_repeat
    line.spool.close()


def test_a_camera_gets_its_answer_although_the_file_of_the_spool_is_damaged(tmp_path: Path) -> None:
    spool = DamagedSpool(tmp_path, "line-1", SpoolBudget(2**20))
    intake = Intake(CameraSettings(kind="http"), 10_000, spool, on_stored=lambda: None)
    frame = CameraFrame(JPEG, datetime.now(UTC), idempotency_key="key:1")
    intake.accept(frame)
    with pytest.raises(SpoolFullError, match="Input/output error"):
        frame.receipt.result(0)
    spool.close()


class UnreplaceableSpool(FailingOnceSpool):
    """A spool on a disk that fails at the first flush, and whose damaged file cannot be replaced while `is_damaged` is set."""

    is_damaged = True

    def _find_receipt(self, key: str) -> tuple[PartId, str] | None:
        self._raise_damage()
        return super()._find_receipt(key)

    def _forget_key(self, key: str) -> None:
        self._raise_damage()
        super()._forget_key(key)

    def _raise_damage(self) -> None:
        if self.is_damaged:
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

    def replace_damaged(self, error: sqlite3.DatabaseError, run: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")


def test_a_later_copy_is_stored_although_flush_and_file_failed_at_the_first_copy(tmp_path: Path) -> None:
    spool = UnreplaceableSpool(tmp_path, "line-1", SpoolBudget(2**20))
    intake = Intake(CameraSettings(kind="http", trigger="board", latency_s=0), 10_000, spool, on_stored=lambda: None)
    intake.start()
    now = datetime.now(UTC)
    frames = [CameraFrame(JPEG, now) for _ in range(2)]
    intake.accept(frames[0])
    intake.drain()
    with pytest.raises(SpoolFullError, match="Input/output error"):
        frames[0].receipt.result(2)
    spool.is_damaged = False
    intake.accept(frames[1])
    intake.drain()
    assert not frames[1].receipt.result(2).is_repeat
    intake.stop(10)
    spool.close()


@pytest.mark.parametrize("lookup", ["of the key", "of the part"])
def test_a_repeat_that_cannot_be_looked_up_is_refused_and_its_next_copy_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lookup: str
) -> None:
    line = WaitingLine(Spool(tmp_path, "line-1", SpoolBudget(2**20)))
    line.send()
    line.wait()

    def fail(wanted: object) -> None:
        raise SpoolFullError(f"{wanted} cannot be looked up")

    with monkeypatch.context() as patch:
        if lookup == "of the key":
            patch.setattr(line.spool, "find_receipt", fail)
        else:
            patch.setattr(line.intake, "has_picture", fail)
        refused = line.send()
    with pytest.raises(SpoolFullError, match="cannot be looked up"):
        refused.receipt.result(0)
    assert line.send().receipt.result(0) == PictureReceipt(PartId("line-1", 9, 3), is_repeat=True)
    line.spool.close()


@pytest.mark.parametrize("changed_s", [0.0, -62e9, 3_976_214_400.0, 253_402_300_799.0, 8e12])
def test_files_with_such_times_are_accepted_too(tmp_path: Path, changed_s: float) -> None:
    line = CameraLine(tmp_path, CameraSettings(kind="http"))
    line.accept(CameraFrame(JPEG, read_file_time(changed_s)))
    (spooled,) = line.spool.read_after(0, 9)
    assert abs(spooled.picture.captured_at - datetime.now(UTC)) < timedelta(minutes=1)
    line.stop()


def test_a_picture_with_a_replaced_time_is_never_assigned(tmp_path: Path) -> None:
    """The latency belongs to the clock of the camera. Less this latency, the time of arrival could be that of the next part."""
    now = datetime.now(UTC)
    line = CameraLine(tmp_path, CameraSettings(kind="http", trigger="board", latency_s=-0.8))
    for number in (1, 2, 3):
        line.intake.report_part(PartId("line-1", 9, number), now + timedelta(seconds=number - 2))
    assert not line.accept(CameraFrame(JPEG, datetime(1970, 1, 1, tzinfo=UTC))).is_matched
    line.stop()


def test_with_the_time_of_arrival_the_times_of_files_and_headers_do_not_matter(tmp_path: Path) -> None:
    line = CameraLine(tmp_path, CameraSettings(kind="http", time_source="arrival"))
    for captured_at in (datetime(1970, 1, 1, tzinfo=UTC), datetime.now(UTC) - timedelta(hours=1)):
        line.accept(CameraFrame(JPEG, captured_at))
    assert all(datetime.now(UTC) - spooled.picture.captured_at < timedelta(minutes=1) for spooled in line.spool.read_after(0, 9))
    assert line.intake.list_complaints() == []
    line.stop()


def test_with_the_time_of_arrival_a_picture_that_waited_has_the_time_at_which_it_arrived(tmp_path: Path) -> None:
    """Files that lay in the folder while the gateway did not run arrived at an unknown time. They must not get the parts of today."""
    settings, now = CameraSettings(kind="drop", path=tmp_path, trigger="board", latency_s=0.2, time_source="arrival"), datetime.now(UTC)
    line = CameraLine(tmp_path / "spool", settings)
    for number in (1, 2, 3):
        line.intake.report_part(PartId("line-1", 9, number), now - timedelta(seconds=9.2 - 3 * number))
    frame = CameraFrame(JPEG, now, waited_s=3.0)
    line.intake.accept(frame)
    assert not frame.receipt.done(), "another picture can follow, which arrived at the same time"
    time.sleep(0.5)
    line.intake.decide_due()
    assert frame.receipt.result(0) == PictureReceipt(PartId("line-1", 9, 2))
    assert not line.accept(CameraFrame(JPEG, now, waited_s=None)).is_matched
    line.stop()


class TimedLine:
    """The intake of a line whose board counts a part every second. The clock is simulated."""

    def __init__(self, spool_dir: Path, time_source: Literal["arrival", "file"], latency_s: float) -> None:
        settings = CameraSettings(kind="http", trigger="board", time_source=time_source, latency_s=latency_s)
        self._now_s = _BELT_START_S
        self.spool = Spool(spool_dir, "line-1", SpoolBudget(2**20))
        self.intake = Intake(settings, 10_000, self.spool, on_stored=lambda: None, clock=lambda: self._now_s)

    def run(self, parts: range, delay_s: float, dated_s: float) -> list[PartId]:
        """Lets parts pass. Each picture arrives `delay_s` after its part, dated `dated_s` after it. Returns the parts of the pictures."""
        frames = []
        for number in parts:
            counted_s = _BELT_START_S + number
            self._wait_until(counted_s)
            self.intake.report_part(PartId("line-1", 9, number), datetime.fromtimestamp(counted_s, UTC))
            self._wait_until(counted_s + delay_s)
            frames.append(CameraFrame(JPEG + bytes([number]), datetime.fromtimestamp(counted_s + dated_s, UTC)))
            self.intake.accept(frames[-1])
        self._wait_until(self._now_s + 1.5)
        return [frame.receipt.result(0).part for frame in frames]

    def _wait_until(self, time_s: float) -> None:
        while self._now_s < time_s:
            self._now_s = min(time_s, self._now_s + 0.05)
            self.intake.decide_due()


_BELT_START_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("time_source", "latency_s", "delay_s", "dated_s"), [("arrival", 0.7, 0.7, 0.0), ("file", -0.8, 0.1, -0.8)], ids=["late", "slow clock"]
)
def test_late_pictures_and_those_of_a_slow_clock_get_their_own_parts(
    tmp_path: Path, time_source: Literal["arrival", "file"], latency_s: float, delay_s: float, dated_s: float
) -> None:
    """Without the latency, each picture would be nearer to the next part, or to the one before."""
    line = TimedLine(tmp_path, time_source, latency_s)
    assert line.run(range(1, 13), delay_s, dated_s) == [PartId("line-1", 9, number) for number in range(1, 13)]
    line.spool.close()


class SteppedLine:
    """The intake of a line whose board counts a part every second. The machine's clock is `step_s` fast, the camera's is right."""

    def __init__(self, spool_dir: Path) -> None:
        settings = CameraSettings(kind="http", trigger="board", latency_s=0.02)
        self.step_s = 0.0
        self._true_s = _BELT_START_S
        self.spool = Spool(spool_dir, "line-1", SpoolBudget(2**20))
        self.intake = Intake(
            *(settings, 10_000, self.spool, lambda: None),
            clock=lambda: self._true_s + self.step_s,
            steady_clock=lambda: self._true_s - _BELT_START_S,
        )
        self.frames: dict[int, CameraFrame] = {}

    def run(self, parts: range, camera_error_s: float = 0.0, delay_s: float = 0.0, gap_s: float = 0.0) -> None:
        """Lets parts pass, `gap_s` later than usual. Their pictures arrive `delay_s` later than usual."""
        for number in parts:
            self._wait_until(_BELT_START_S + number + gap_s)
            self.intake.report_part(PartId("line-1", 9, number), datetime.fromtimestamp(self._true_s + self.step_s, UTC))
            self._wait_until(_BELT_START_S + number + gap_s + 0.1 + delay_s)
            taken_at = datetime.fromtimestamp(_BELT_START_S + number + gap_s + 0.02 + camera_error_s, UTC)
            self.frames[number] = CameraFrame(JPEG + bytes([number]), taken_at)
            self.intake.accept(self.frames[number])

    def find_parts(self) -> dict[int, int]:
        """Returns which part of the board each picture got, by the number of the part that the picture shows."""
        self._wait_until(self._true_s + 15)
        receipts = {number: frame.receipt.result(0) for number, frame in self.frames.items()}
        return {number: receipt.part.part for number, receipt in receipts.items() if receipt.is_matched}

    def _wait_until(self, time_s: float) -> None:
        while self._true_s < time_s:
            self._true_s = min(time_s, self._true_s + 0.05)
            self.intake.decide_due()


@pytest.mark.parametrize("step_s", [-7200.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 7200.0])
def test_a_step_of_the_clock_gives_no_picture_the_part_of_another_casting_and_the_step_back_ends_the_pause(
    tmp_path: Path, step_s: float
) -> None:
    line = SteppedLine(tmp_path)
    line.run(range(1, 30))
    line.step_s = step_s
    line.run(range(30, 60))
    assert "the clock of this machine was set by" in line.intake.find_latency_problem()
    line.step_s = 0.0
    line.run(range(60, 90))
    assert line.intake.find_latency_problem() == ""
    parts = line.find_parts()
    assert {number: part for number, part in parts.items() if number != part} == {}
    # The pictures that waited during a step, and those in the second after it, get no part.
    assert {*range(1, 29), *range(62, 90)} <= parts.keys()
    line.spool.close()


def test_a_doubt_about_late_pictures_is_shown_and_ends_when_an_irregular_gap_proves_the_latency(tmp_path: Path) -> None:
    """The pictures of parts 30 and later come half a second later, and part 31 triggers the camera twice."""
    line = SteppedLine(tmp_path)
    line.run(range(1, 30))
    line.run(range(30, 32), delay_s=0.5)
    line.intake.accept(CameraFrame(JPEG + b"twice", datetime.fromtimestamp(_BELT_START_S + 31.02, UTC)))
    line.run(range(32, 60), delay_s=0.5)
    assert "come later than before, and one of them fits no part" in line.intake.find_latency_problem()
    assert "castline gateway measure line-1" in line.intake.find_latency_problem()
    line.run(range(60, 90), delay_s=0.5, gap_s=0.45)
    line.run(range(90, 100), delay_s=0.5, gap_s=0.9)
    assert line.intake.find_latency_problem() == ""
    parts = line.find_parts()
    assert {number: part for number, part in parts.items() if number != part} == {}
    assert {*range(1, 32), *range(80, 100)} <= parts.keys()
    line.spool.close()


@pytest.mark.parametrize("error_s", [-3.0, -1.0, 1.0, 3.0, 3600.0])
def test_a_step_of_the_cameras_clock_gives_no_picture_the_part_of_another_casting(tmp_path: Path, error_s: float) -> None:
    line = SteppedLine(tmp_path)
    line.run(range(1, 30))
    line.run(range(30, 60), error_s)
    line.run(range(60, 90))
    parts = line.find_parts()
    assert {number: part for number, part in parts.items() if number != part} == {}
    assert {*range(1, 29)} <= parts.keys()
    line.spool.close()


def read_metric(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"line": "line-1"}) or 0.0


def test_the_metrics_show_the_distances_and_the_suspension_of_a_latency_that_drifts(tmp_path: Path) -> None:
    """The alerts about the latency of a camera read these metrics."""
    names = ("castline_picture_distance_seconds", "castline_picture_distance_share")
    before = {f"{name}_{kind}": read_metric(f"{name}_{kind}") for name in names for kind in ("count", "sum")}
    line = TimedLine(tmp_path, "file", 0.3)
    line.run(range(1, 11), 0.6, 0.5)
    for name in names:
        assert read_metric(f"{name}_count") == before[f"{name}_count"] + 9, "the gaps beside the first part are not known yet"
        assert read_metric(f"{name}_sum") == pytest.approx(before[f"{name}_sum"] + 9 * 0.2, abs=0.01)
    assert read_metric("castline_camera_offset_share") == pytest.approx(0.2, abs=0.01)
    assert read_metric("castline_camera_latency_suspended") == 0
    line.run(range(12, 50), 0.8, 0.7)
    assert read_metric("castline_camera_latency_suspended") == 1
    assert "castline gateway measure line-1" in line.intake.find_latency_problem()
    line.spool.close()


def test_refusals_give_size_and_limit(tmp_path: Path) -> None:
    line = CameraLine(tmp_path, CameraSettings(kind="http"), max_bytes=5000, spool_bytes=3000)
    with pytest.raises(PictureRefusedError) as empty:
        line.accept(CameraFrame(b"", datetime.now(UTC)))
    assert empty.value.reason == "empty"
    with pytest.raises(PictureRefusedError, match="expected at most 5000 bytes, received 5001"):
        line.accept(CameraFrame(bytes(5001), datetime.now(UTC)))
    with pytest.raises(SpoolFullError):
        line.accept(CameraFrame(bytes(4000), datetime.now(UTC)))
    line.stop()
