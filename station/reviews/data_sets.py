"""Reviewed parts as a data set: a folder of class folders, as `castline train --data` takes it, with a list of what is in it.

    reviews-0003-2026-11-22/
      ok_front/line-1_17_345.jpeg …   the pictures as they came, by part
      def_front/…
      manifest.csv                    a line a picture: part, class, sha256, types, boxes, reviewer, verdict
      data-set.json                   number, fingerprint, selection, what was left out and why

The fingerprint is the one that a training writes into its version: SHA-256 over class and checksum of all pictures. It is made
aside and renamed, so a folder of this name is whole.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from django.db import IntegrityError
from django.db.models import Max

from station.archive.models import Part
from station.history.columns import cell
from station.history.streaming import Sink
from station.live.sending import KafkaAway
from station.reviews.models import DataSet
from station.reviews.selection import Selection
from streams.errors import PictureError
from streams.identity import format_time, sniff_content_type
from streams.settings import ReviewSettings, Settings

Fetch = Callable[[Part], bytes | None]  # as station.live.pictures.Pictures.original

_SUFFIXES = {"image/jpeg": ".jpeg", "image/png": ".png", "image/bmp": ".bmp", "image/tiff": ".tiff"}
_COLUMNS = ("path", "class", "part", "sha256", "kinds", "boxes", "reviewer", "reviewed_at", "verdict", "defect_probability", "model")
NOT_KEPT, DAMAGED, UNREACHABLE = "picture no longer kept", "picture damaged", "picture out of reach"


class NothingToPutInError(ValueError):
    """No reviewed part is in the selection, or none whose picture is kept; the text is fit for a page."""


def make(selection: Selection, settings: Settings, by: str, now: datetime, fetch: Fetch) -> DataSet:
    """Makes the next data set. Raises NothingToPutInError; OSError: when the folder cannot be written."""
    root = settings.review.data_sets
    root.mkdir(parents=True, exist_ok=True)
    number = (DataSet.objects.aggregate(last=Max("number"))["last"] or 0) + 1
    # A database that was put back knows less than the folder: what lies there is never written over.
    while any(root.glob(f"reviews-{number:04d}-*")):
        number += 1
    name = f"reviews-{number:04d}-{now:%Y-%m-%d}"
    partial = root / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        counts, left_out, fingerprint = _write(partial, selection, settings, fetch)
        if not counts:
            reasons = ", ".join(f"{many} {reason}" for reason, many in left_out.items()) or "no part like that was reviewed"
            raise NothingToPutInError(f"There is nothing to put into a data set: {reasons}.")
        described = selection.described()
        found = {"name": name, "number": number, "made_at": format_time(now), "made_by": by, "fingerprint": fingerprint}
        found |= {"selection": described, "counts": counts, "left_out": left_out}
        (partial / "data-set.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        row = DataSet(number=number, name=name, made_at=now, made_by=by, selection=described, counts=counts, left_out=left_out)
        row.fingerprint = fingerprint
        try:
            row.save(force_insert=True)
        except IntegrityError:
            raise NothingToPutInError("Somebody else made a data set at the same moment; look at theirs first.") from None
        partial.replace(root / name)
        return row
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, selection: Selection, settings: Settings, fetch: Fetch) -> tuple[dict[str, int], dict[str, int], str]:
    review = settings.review
    counts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    lines: list[str] = []
    for name in (review.ok_class, review.defect_class):
        (folder / name).mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(_COLUMNS)
        for part in selection.parts(settings.station.upload_line):
            try:
                value = fetch(part)
                suffix = _SUFFIXES.get(sniff_content_type(value)) if value else None
            except PictureError:
                left_out[DAMAGED] += 1
                continue
            except KafkaAway:
                left_out[UNREACHABLE] += 1
                continue
            if value is None:
                left_out[NOT_KEPT] += 1
                continue
            if suffix is None:
                left_out[DAMAGED] += 1
                continue
            checksum = hashlib.sha256(value).hexdigest()
            row = _row(part, review, suffix, checksum)
            (folder / row[0]).write_bytes(value)
            rows.writerow([cell(one) for one in row])
            counts[row[1]] += 1
            lines.append(f"{row[1]} {checksum}")
    return dict(sorted(counts.items())), dict(sorted(left_out.items())), hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _row(part: Part, review: ReviewSettings, suffix: str, checksum: str) -> list[str]:
    name = review.ok_class if part.review_label == "ok" else review.defect_class
    # A line's name has no other characters than a file's may have; run and part are numbers.
    return [
        f"{name}/{part.line}_{part.run}_{part.part}{suffix}",
        name,
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


def zipped(folder: Path) -> Iterator[bytes]:
    """The folder as a zip file, written while it is sent; pictures are not compressed a second time."""
    sink = Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
            yield sink.drained()
    yield sink.drained()
