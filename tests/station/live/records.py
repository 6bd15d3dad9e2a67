"""Records of line-1 for the tests of the live pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from streams.identity import PartId
from streams.records import ImageReference, Record, Sorting, Verdict, make_verdict_id

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def make_kafka_record(topic: str, record: Record, at: datetime = NOW) -> Any:
    """Returns `record` in the form of kafka-python, on the topic castings.<topic>.line-1."""
    return make_raw_record(f"castings.{topic}.line-1", record.encode(), at)


def make_raw_record(topic: str, value: bytes, at: datetime = NOW, headers: list[tuple[str, bytes]] | None = None) -> Any:
    """Returns a record with any value in the form of kafka-python."""
    timestamp_ms = at.timestamp() * 1000
    return SimpleNamespace(topic=topic, value=value, key=b"", headers=headers or [], timestamp=timestamp_ms, partition=0, offset=0)


def make_verdict(part: int, label: str = "ok", at: datetime = NOW, latency_s: float = 0.2, model: str = "demo") -> Verdict:
    """Returns a verdict on the part numbered `part` of run 7, which was photographed at `at`."""
    sha256 = f"{part:064x}"
    return Verdict(
        verdict_id=make_verdict_id(PartId("line-1", 7, part), sha256, model),
        line="line-1",
        run=7,
        part=part,
        label=label,
        defect_probability=None if label == "review" else 0.5,
        votes={},
        threshold=0.5,
        model=model,
        reason="truncated" if label == "review" else "",
        captured_at=at,
        received_at=at,
        decided_at=at + timedelta(seconds=latency_s),
        image=ImageReference(topic="castings.images.line-1", partition=0, offset=part, sha256=sha256, width_px=300, height_px=300),
    )


def make_sorting(part: int, reason: str = "verdict", code: int = 0, at: datetime = NOW) -> Sorting:
    """Returns the gate's report on the part numbered `part` of run 7."""
    return Sorting(
        line="line-1",
        run=7,
        part=part,
        board="b",
        event=part,
        action="diverted",
        reason=reason,
        code=code,
        gate_moved=True,
        move_count=part,
        sorted_at=at,
    )
