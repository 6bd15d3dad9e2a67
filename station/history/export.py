"""Exports the filtered history as CSV or Parquet. The file is sent in pieces, because a large file would not fit into memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from station.archive.models import Part
from station.history.filters import PartFilters
from station.history.pagination import HistoryKey, order, parts_beyond
from streams.identity import format_time

ROWS_PER_QUERY = 2000
ROWS_PER_GROUP = 20_000
_TIME = pa.timestamp("us", tz="UTC")
# If a text begins with one of these characters, a spreadsheet runs the text as a formula.
_FORMULA_CHARACTERS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class ExportColumn:
    """One column of the export. `read` takes a row of the table of parts and returns its value for this column."""

    name: str
    type: pa.DataType
    read: Callable[[Part], Any]


def _field(name: str, column_type: pa.DataType) -> ExportColumn:
    return ExportColumn(name, column_type, lambda part: getattr(part, name))


def _json(name: str) -> ExportColumn:
    return ExportColumn(name, pa.string(), lambda part: json.dumps(value) if (value := getattr(part, name)) else "")


COLUMNS: tuple[ExportColumn, ...] = (
    ExportColumn("id", pa.string(), str),
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
    _json("acceptance"),
    _field("confirmed", pa.string()),
)
SCHEMA = pa.schema([(column.name, column.type) for column in COLUMNS])


def export_csv(filters: PartFilters, rows_per_query: int = ROWS_PER_QUERY) -> Iterator[bytes]:
    """Yields a CSV file in pieces: a header line, then a line for each part, newest first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([column.name for column in COLUMNS])
    for parts in _query_parts(filters, rows_per_query):
        writer.writerows([format_csv_cell(column.read(part)) for column in COLUMNS] for part in parts)
        yield _drain(text)
    yield _drain(text)


def export_parquet(filters: PartFilters, rows_per_query: int = ROWS_PER_QUERY, rows_per_group: int = ROWS_PER_GROUP) -> Iterator[bytes]:
    """Yields a Parquet file in pieces: a row for each part, newest first. The file is compressed with zstd."""
    buffer = StreamBuffer()
    with pq.ParquetWriter(buffer, SCHEMA, compression="zstd") as writer:
        batches: list[pa.RecordBatch] = []
        for parts in _query_parts(filters, rows_per_query):
            batches.append(
                pa.record_batch([pa.array([column.read(part) for part in parts], column.type) for column in COLUMNS], schema=SCHEMA)
            )
            if sum(batch.num_rows for batch in batches) >= rows_per_group:
                writer.write_table(pa.Table.from_batches(batches))
                batches.clear()
                yield buffer.drain()
        if batches:
            writer.write_table(pa.Table.from_batches(batches))
    yield buffer.drain()


def _query_parts(filters: PartFilters, rows_per_query: int) -> Iterator[list[Part]]:
    """Yields lists of parts, newest first. Makes a query for each list, because a slow download must not keep a transaction open."""
    key: HistoryKey | None = None
    while True:
        parts = parts_beyond(Part.objects.filter(filters.conditions(), filters.time_conditions()), key, older=True)
        found = list(order(parts, newest_first=True)[:rows_per_query])
        if found:
            yield found
        if len(found) < rows_per_query:
            return
        key = HistoryKey(found[-1].seen_at, found[-1].pk)


def format_csv_cell(value: Any) -> str:
    """Returns `value` as the text of a CSV cell. Puts an apostrophe before text that a spreadsheet would run as a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_CHARACTERS) else value
    return str(value)


def _drain(text: io.StringIO) -> bytes:
    value = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return value


class StreamBuffer(io.RawIOBase):
    """A file in memory that can be sent while it is written. `drain` returns and removes the bytes that were written so far."""

    def __init__(self) -> None:
        super().__init__()
        self._written = 0
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, value: object) -> int:
        piece = bytes(value)  # type: ignore[call-overload]
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._written

    def drain(self) -> bytes:
        """Returns the bytes that were written since the last call of `drain`, and removes them from memory."""
        value = b"".join(self._pieces)
        self._pieces.clear()
        return value


def stream_file(request: HttpRequest, pieces: Iterator[bytes], content_type: str, file_name: str) -> StreamingHttpResponse:
    """Returns a response that sends `pieces` as a download while they are produced. Works under ASGI and WSGI.

    `file_name` is written into a header without a check, so it must not come from a user.
    """
    pieces = iter(()) if request.method == "HEAD" else pieces
    content = _iterate_in_thread(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(content, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return response


async def _iterate_in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    next_piece = sync_to_async(lambda: next(pieces, None))
    while (piece := await next_piece()) is not None:
        yield piece
