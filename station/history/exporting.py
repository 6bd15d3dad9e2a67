"""The filtered history as a file: CSV or Parquet, written while it is sent, some thousand rows in memory at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from station.archive.models import Part
from station.history.columns import COLUMNS, SCHEMA, cell
from station.history.filters import Filters
from station.history.paging import Key, beyond, ordered
from station.history.streaming import Sink

ROWS_AT_ONCE = 2000
# Of a Parquet file's row group: enough for its compression, little enough for memory.
GROUP_ROWS = 20_000


def chunks(filters: Filters, at_once: int) -> Iterator[list[Part]]:
    """All rows, newest first, in pieces. Each piece is a query of its own: a slow download holds no transaction open."""
    key: Key | None = None
    while True:
        parts = beyond(Part.objects.filter(filters.conditions(), filters.times()), key, older=True)
        found = list(ordered(parts, newest_first=True)[:at_once])
        if found:
            yield found
        if len(found) < at_once:
            return
        key = Key(found[-1].seen_at, found[-1].pk)


def as_csv(filters: Filters, at_once: int = ROWS_AT_ONCE) -> Iterator[bytes]:
    """The file's bytes: a line of names, then a line a part."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow([column.name for column in COLUMNS])
    for parts in chunks(filters, at_once):
        rows.writerows([cell(column.of(part)) for column in COLUMNS] for part in parts)
        yield _drained(text)
    yield _drained(text)


def as_parquet(filters: Filters, at_once: int = ROWS_AT_ONCE, group_rows: int = GROUP_ROWS) -> Iterator[bytes]:
    """The file's bytes, compressed by zstd."""
    sink = Sink()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        waiting: list[pa.RecordBatch] = []
        for parts in chunks(filters, at_once):
            waiting.append(
                pa.record_batch([pa.array([column.of(part) for part in parts], column.kind) for column in COLUMNS], schema=SCHEMA)
            )
            if sum(batch.num_rows for batch in waiting) >= group_rows:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting.clear()
                yield sink.drained()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    yield sink.drained()


def _drained(text: io.StringIO) -> bytes:
    value = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return value
