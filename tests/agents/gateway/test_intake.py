"""The intake: content types, part ids, repeats and refusals."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.gateway.intake import CameraFrame, PictureRefusedError
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
    settings = CameraSettings(kind="http", trigger="board", match_window_s=0.3)
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
    assert line.parts() == [PartId("line-1", 9, 2), PartId("line-1", line.spool.run, 1)]
    assert matched.receipt.result(0).is_matched
    assert not unmatched.receipt.result(0).is_matched
    repeat = line.accept(CameraFrame(JPEG, now, idempotency_key="key:1"))
    assert repeat.is_repeat
    assert repeat.part == PartId("line-1", 9, 2)
    line.stop()
    restarted = CameraLine(tmp_path, settings)
    assert not restarted.intake.report_part(PartId("line-1", 9, 2), now), "also after a restart"
    restarted.stop()


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
