"""The settings of lines on their topic: which record counts, which settings can change a label, and what verdict ids depend on."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from streams.errors import RecordError
from streams.identity import PartId
from streams.live_line_settings import LiveSettingsByLine
from streams.records import LiveLineSettings, Region, RegionPoint, Verdict, make_verdict_id

SET_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SQUARE = Region(corners=tuple(RegionPoint(x=x, y=y) for x, y in ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9))))


def make_settings_record(line: str = "line-1", **given: Any) -> LiveLineSettings:
    return LiveLineSettings.model_validate({"line": line, "set_by": "anna", "set_at": SET_AT} | given)


def test_the_last_record_of_a_line_counts_and_an_empty_one_removes_it() -> None:
    first, second = make_settings_record(threshold=0.2), make_settings_record(threshold=0.4)
    settings = LiveSettingsByLine().with_record(b"line-1", first.encode()).with_record(b"line-1", second.encode())
    assert settings.find("line-1") == second
    assert settings.find("line-2") is None
    assert settings.with_record(b"line-1", b"").find("line-1") is None


@pytest.mark.parametrize("value", [b"{", b'{"line": "line-1"}', make_settings_record("line-2").encode()])
def test_an_invalid_record_and_one_with_the_wrong_key_are_refused(value: bytes) -> None:
    settings = LiveSettingsByLine().with_record(b"line-1", make_settings_record(threshold=0.2).encode())
    with pytest.raises(RecordError):
        settings.with_record(b"line-1", value)


@pytest.mark.parametrize("given", [{"defect_share": 0}, {"threshold": 1.5}, {"mm_per_px": float("inf")}, {"threshold": float("nan")}])
def test_values_out_of_bounds_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_settings_record(**given)


def test_only_settings_that_can_change_a_label_are_part_of_the_decision() -> None:
    assert make_settings_record(mm_per_px=0.1, planned_stop_until=SET_AT).decision == ""
    deciding: list[dict[str, Any]] = [
        {"threshold": 0.2},
        {"threshold": 0.3},
        {"defect_share": 0.2},
        {"miss_risk": 0.2},
        {"inspect_regions": [SQUARE]},
        {"ignore_regions": [SQUARE]},
    ]
    digests = {make_settings_record(**one).decision for one in deciding}
    assert len(digests) == len(deciding)
    assert all(len(digest) == 16 for digest in digests)


def test_the_decision_depends_on_nothing_else_and_survives_the_way_through_kafka() -> None:
    record = make_settings_record(threshold=0.2, ignore_regions=[SQUARE])
    other = make_settings_record("line-2", threshold=0.2, ignore_regions=[SQUARE], mm_per_px=3, set_by="bert")
    assert record.decision == other.decision == LiveLineSettings.decode(record.encode()).decision == "760216a17d554e68"


def test_without_a_decision_a_verdict_has_the_id_that_release_0_1_0_gave_it() -> None:
    part = PartId("line-1", 7, 3)
    assert make_verdict_id(part, "0" * 64, "demo") == uuid.uuid5(
        uuid.UUID("6f1d7a0e-3f0b-5a52-9a0f-0d5f7a3c9b11"), f"line-1:7:3|{'0' * 64}|demo"
    )
    assert make_verdict_id(part, "0" * 64, "demo", "") == make_verdict_id(part, "0" * 64, "demo")
    assert make_verdict_id(part, "0" * 64, "demo", "a") != make_verdict_id(part, "0" * 64, "demo", "b")


def test_a_verdict_of_an_older_release_is_read_as_one_without_a_decision() -> None:
    assert Verdict.model_fields["decision"].default == ""
