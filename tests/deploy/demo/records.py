"""Makes records like those of the workers, one for each part. All parts belong to run 7, and one comes each second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.demo.audit import PictureRecord, VerdictRecord
from streams.identity import PartId
from streams.records import ImageReference, Sorting, Verdict, make_verdict_id

START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SHA = "ab" * 32


def make_picture(part: int, line: str = "line-1", truth: str | None = "ok") -> PictureRecord:
    return PictureRecord(PartId(line, 7, part), START + timedelta(seconds=part), truth)


def make_verdict(part: int, line: str = "line-1", label: str = "ok", age_ms: float = 100, model: str = "demo") -> VerdictRecord:
    captured = START + timedelta(seconds=part)
    verdict = Verdict.model_validate(
        {
            "verdict_id": make_verdict_id(PartId(line, 7, part), SHA, model),
            "line": line,
            "run": 7,
            "part": part,
            "label": label,
            "defect_probability": 0.1,
            "votes": {},
            "threshold": 0.5,
            "model": model,
            "captured_at": captured,
            "received_at": captured,
            "decided_at": captured,
            "image": ImageReference(topic="t", partition=0, offset=part, sha256=SHA, width_px=1, height_px=1),
        }
    )
    return VerdictRecord(verdict, captured + timedelta(milliseconds=age_ms))


def make_sorting(part: int, line: str = "line-1", moves: int = 0, **fields: Any) -> Sorting:
    values = {"action": "passed", "reason": "verdict", "gate_moved": False, "event": part, **fields}
    identity = {"line": line, "run": 7, "part": part, "board": line}
    return Sorting.model_validate({**identity, "move_count": moves, "sorted_at": START + timedelta(seconds=part + 3), **values})
