"""Makes data sets of reviewed parts for `castline train --data`. A data set is a folder:

reviews-0003-2026-11-22/
  ok_front/line-1_17_345.jpeg …   pictures, named after line, run and part
  def_front/…
  manifest.csv                    one row for each picture
  data-set.json                   number, fingerprint, selection, left-out parts
"""

from __future__ import annotations

import csv
import fcntl
import filecmp
import hashlib
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import IntegrityError
from django.db.models import Max

from station.archive.models import Part
from station.history.export import StreamBuffer, format_csv_cell
from station.history.filters import read_filters
from station.history.pagination import index_condition
from station.kafka_producer import KafkaUnavailableError
from station.reviews.models import DataSet
from streams.errors import PictureError
from streams.identity import format_time, sniff_content_type
from streams.settings import ReviewSettings, Settings

FetchPicture = Callable[[Part], bytes | None]

NOT_KEPT = "picture no longer kept"
DAMAGED = "picture damaged"
UNREACHABLE = "picture out of reach"

_ROWS_PER_QUERY = 500
_SUFFIXES = {"image/jpeg": ".jpeg", "image/png": ".png", "image/bmp": ".bmp", "image/tiff": ".tiff"}
_COLUMNS = ("path", "class", "part", "sha256", "kinds", "boxes", "reviewer", "reviewed_at", "verdict", "defect_probability", "model")
_FIELD_LABELS = {"line": "Line", "since": "Seen from", "to": "To"}


class DataSetRefusedError(ValueError):
    """Raised if no data set can be made, for example because the data set would be empty or the disk is nearly full.

    The station shows the error message on the page of data sets.
    """


@dataclass(frozen=True)
class DataSetSelection:
    """Selects the reviewed parts for a data set: parts of `line` with picture times from `since` (included) to `to` (excluded).

    An empty field does not restrict the selection.
    """

    line: str = ""
    since: datetime | None = None
    to: datetime | None = None

    def as_json(self) -> dict[str, str]:
        """Returns the fields that are not empty, as texts. The file data-set.json and the database contain these texts."""
        fields = {"line": self.line, "since": format_time(self.since) if self.since else "", "to": format_time(self.to) if self.to else ""}
        return {name: text for name, text in fields.items() if text}

    def read_parts(self, excluded_line: str) -> Iterator[Part]:
        """Yields the selected parts in the order in which they were archived. Leaves out the parts of `excluded_line`."""
        query = Part.objects.filter(index_condition("reviewer"), review_label__in=("ok", "defect")).exclude(reviewer="")
        if self.line:
            query = query.filter(line=self.line)
        if self.since:
            query = query.filter(seen_at__gte=self.since)
        if self.to:
            query = query.filter(seen_at__lt=self.to)
        query = query.exclude(line=excluded_line).order_by("id")
        last = 0
        while rows := list(query.filter(id__gt=last)[:_ROWS_PER_QUERY]):
            yield from rows
            last = rows[-1].pk


def parse_selection(form: Mapping[str, Any]) -> DataSetSelection:
    """Reads the form on the page of data sets. If a field is wrong, raises ValueError with a message for the page."""
    filters = read_filters({name: str(form.get(name, "")) for name in _FIELD_LABELS})
    if filters.errors:
        raise ValueError(" ".join(filters.describe_errors(_FIELD_LABELS)))
    return DataSetSelection(filters.line, filters.since, filters.to)


def make_data_set(selection: DataSetSelection, settings: Settings, made_by: str, now: datetime, fetch: FetchPicture) -> DataSet:
    """Writes a data set with the next free number into the folder of the setting `review.data_sets`. Returns its database row.

    Raises DataSetRefusedError if the data set cannot be made, for example because another one is being made at the same time. Raises
    OSError if the folder cannot be written.
    """
    root = settings.review.data_sets
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        # This process holds the lock, so no other process is writing a data set now. Delete the unfinished folders that interrupted
        # processes have left.
        for left_over in root.glob(".reviews-*.partial"):
            shutil.rmtree(left_over, ignore_errors=True)
        number = _next_number(root)
        name = f"reviews-{number:04d}-{now:%Y-%m-%d}"
        partial = root / f".{name}.partial"
        try:
            written = _write_pictures(partial, selection, settings, fetch)
            row = DataSet(
                number=number,
                name=name,
                made_at=now,
                made_by=made_by,
                selection=selection.as_json(),
                counts=dict(sorted(written.counts.items())),
                left_out=dict(sorted(written.left_out.items())),
                fingerprint=written.fingerprint(),
            )
            _check_new(row, root, partial)
            (partial / "data-set.json").write_text(json.dumps(_describe(row), indent=2) + "\n", encoding="utf-8")
            try:
                row.save(force_insert=True)
            except IntegrityError:
                raise DataSetRefusedError(
                    "Another person has just made a data set. Look at that data set before you make another one."
                ) from None
            partial.replace(root / name)
            return row
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Locks the folder until the `with` block ends. Raises DataSetRefusedError if another thread or process has locked the folder."""
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataSetRefusedError("A data set is being made at this moment. Wait until it is in the list.") from None
        yield


def _check_new(row: DataSet, root: Path, folder: Path) -> None:
    """Raises DataSetRefusedError if the data set in `folder` is empty, or if an earlier data set has the same selection and content."""
    if not row.counts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in row.left_out.items())
        raise DataSetRefusedError(
            f"The data set would be empty: {reasons or 'none of the selected parts was reviewed'}. Select other parts."
        )
    for earlier in DataSet.objects.filter(fingerprint=row.fingerprint):
        manifest = root / earlier.name / "manifest.csv"
        # The fingerprint does not depend on the types and boxes of the defects. So also compare the manifests, which contain them.
        if earlier.selection == row.selection and manifest.is_file() and filecmp.cmp(manifest, folder / "manifest.csv", shallow=False):
            raise DataSetRefusedError(f"The data set {earlier.name} has the same parts with the same reviews. Use that data set.")


def _check_free_space(folder: Path, keep_free_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < keep_free_bytes:
        raise DataSetRefusedError(
            f"The disk of the data sets has only {free_bytes // 10**6} MB free, and {keep_free_bytes // 10**6} MB must stay free. "
            "Ask an administrator to delete old data sets, or select fewer parts."
        )


def stream_zip(folder: Path) -> Iterator[bytes]:
    """Yields the pieces of a zip file of `folder`. The zip file is not compressed, because the pictures are compressed already."""
    sink = StreamBuffer()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
            yield sink.drain()
    yield sink.drain()


class _WrittenPictures:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._checksums: list[str] = []

    def add(self, class_name: str, checksum: str) -> None:
        self.counts[class_name] += 1
        self._checksums.append(f"{class_name} {checksum}")

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(sorted(self._checksums)).encode()).hexdigest()


def _next_number(root: Path) -> int:
    number = (DataSet.objects.aggregate(last=Max("number"))["last"] or 0) + 1
    # After the restore of an old backup, the table can lack data sets whose folders still exist. Skip the numbers of these folders.
    while any(root.glob(f"reviews-{number:04d}-*")):
        number += 1
    return number


def _write_pictures(folder: Path, selection: DataSetSelection, settings: Settings, fetch: FetchPicture) -> _WrittenPictures:
    review = settings.review
    written = _WrittenPictures()
    for name in (review.ok_class, review.defect_class):
        (folder / name).mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        manifest = csv.writer(file)
        manifest.writerow(_COLUMNS)
        for part in selection.read_parts(settings.station.upload_line):
            picture, problem = _fetch_picture(part, fetch)
            if problem:
                written.left_out[problem] += 1
                continue
            checksum = hashlib.sha256(picture).hexdigest()
            row = _make_manifest_row(part, review, _SUFFIXES[sniff_content_type(picture)], checksum)
            _check_free_space(folder, review.keep_free_bytes)
            (folder / row[0]).write_bytes(picture)
            manifest.writerow([format_csv_cell(value) for value in row])
            written.add(row[1], checksum)
    return written


def _fetch_picture(part: Part, fetch: FetchPicture) -> tuple[bytes, str]:
    """Returns the picture of `part` and an empty text. If there is no usable picture, returns b"" and the reason."""
    try:
        picture = fetch(part)
        if picture is None:
            return b"", NOT_KEPT
        return (picture, "") if sniff_content_type(picture) in _SUFFIXES else (b"", DAMAGED)
    except PictureError:
        return b"", DAMAGED
    except KafkaUnavailableError:
        return b"", UNREACHABLE


def _make_manifest_row(part: Part, review: ReviewSettings, suffix: str, checksum: str) -> list[str]:
    class_name = review.ok_class if part.review_label == "ok" else review.defect_class
    return [
        # This path cannot lead out of the folder: run and part are numbers, and the settings check the names of lines.
        f"{class_name}/{part.line}_{part.run}_{part.part}{suffix}",
        class_name,
        str(part),
        checksum,
        " + ".join(part.review_kinds),
        json.dumps(part.review_boxes),
        part.reviewer,
        format_time(part.reviewed_at) if part.reviewed_at else "",
        part.label,
        "" if part.defect_probability is None else f"{part.defect_probability:.6g}",
        part.model,
    ]


def _describe(row: DataSet) -> dict[str, Any]:
    return {
        "name": row.name,
        "number": row.number,
        "made_at": format_time(row.made_at),
        "made_by": row.made_by,
        "fingerprint": row.fingerprint,
        "selection": row.selection,
        "counts": row.counts,
        "left_out": row.left_out,
    }
