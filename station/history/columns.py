"""The columns of an export: the archive's row as it is, flat, with a name and a type each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from station.archive.models import Part
from streams.identity import format_time

_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Column:
    """One column; `of` takes it from a row."""

    name: str
    kind: pa.DataType
    of: Callable[[Part], Any]


def _field(name: str, kind: pa.DataType) -> Column:
    return Column(name, kind, lambda part: getattr(part, name))


def _json(name: str) -> Column:
    return Column(name, pa.string(), lambda part: json.dumps(value) if (value := getattr(part, name)) else "")


COLUMNS: tuple[Column, ...] = (
    Column("id", pa.string(), str),
    _field("line", pa.string()),
    _field("run", pa.int64()),
    _field("part", pa.int64()),
    _field("seen_at", _TIME),
    _field("label", pa.string()),
    _field("defect_probability", pa.float64()),
    _json("votes"),
    _field("threshold", pa.float64()),
    _field("model", pa.string()),
    _field("reason", pa.string()),
    _field("overdue", pa.bool_()),
    _field("captured_at", _TIME),
    _field("received_at", _TIME),
    _field("decided_at", _TIME),
    _field("sha256", pa.string()),
    _field("width_px", pa.int32()),
    _field("height_px", pa.int32()),
    _field("action", pa.string()),
    _field("sorted_reason", pa.string()),
    _field("code", pa.int32()),
    _field("gate_moved", pa.bool_()),
    _field("late", pa.bool_()),
    _field("counted_at", _TIME),
    _field("told_at", _TIME),
    _field("at_gate_at", _TIME),
    _field("sorted_at", _TIME),
    _field("kind", pa.string()),
    _field("finding_method", pa.string()),
    _json("finding_boxes"),
    _field("found_at", _TIME),
    _field("review_label", pa.string()),
    _json("review_kinds"),
    _json("review_boxes"),
    _field("reviewer", pa.string()),
    _field("reviewed_at", _TIME),
)
SCHEMA = pa.schema([(column.name, column.kind) for column in COLUMNS])

# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: Any) -> str:
    """`value` for a CSV file. Text that a spreadsheet would run is put behind an apostrophe; numbers and times stay as they are."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return str(value)
