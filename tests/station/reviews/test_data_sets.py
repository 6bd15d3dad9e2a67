"""Reviewed parts as a data set: what a training reads is what people said."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.test import Client
from PIL import Image

from models.training.collection import read, scan
from station.archive.models import Part
from station.live.sending import KafkaAway
from station.reviews.data_sets import NothingToPutInError, make, zipped
from station.reviews.models import DataSet
from station.reviews.selection import Selection, read_selection
from streams.errors import PictureError
from streams.settings import Settings
from tests.station.conftest import EARLIEST, SETTINGS, MakePart

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class Shelf:
    """Stands for the kept pictures."""

    pictures: dict[int, bytes] = field(default_factory=dict)

    def fetch(self, part: Part) -> bytes | None:
        if part.reason == "away":
            raise KafkaAway("away")
        if part.reason == "damaged":
            raise PictureError("claim-damaged", "damaged")
        return self.pictures.get(part.part)


def jpeg(grey: int) -> bytes:
    value = io.BytesIO()
    Image.new("L", (40, 30), grey).save(value, "JPEG")
    return value.getvalue()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return SETTINGS.model_copy(update={"review": SETTINGS.review.model_copy(update={"data_sets": tmp_path / "sets"})})


@pytest.fixture
def shelf(part: MakePart) -> Shelf:
    found = Shelf()
    said = {"reviewer": "anna", "reviewed_at": NOW}
    for number in range(6):
        row = part(review_label="defect" if number % 2 else "ok", review_kinds=["flash"] if number % 2 else [], **said)
        found.pictures[row.part] = jpeg(40 * number)
    part(review_label="ok", **said)  # nobody kept its picture
    part(review_label="ok", reason="damaged", **said)
    part(review_label="ok", reason="away", **said)
    part(review_label="defect", line="uploads", **said)
    part()
    return found


def test_a_training_reads_what_people_said(settings: Settings, shelf: Shelf) -> None:
    made = make(Selection(), settings, "anna", NOW, shelf.fetch)
    folder = settings.review.data_sets / made.name
    collection = read(scan([folder]), side_px=32)
    assert collection.classes == ("def_front", "ok_front")
    assert collection.counts == {"def_front": 3, "ok_front": 3} == made.counts
    assert collection.unreadable == ()
    assert collection.fingerprint() == made.fingerprint


def test_what_is_left_out_is_counted_with_its_reason(settings: Settings, shelf: Shelf) -> None:
    made = make(Selection(), settings, "anna", NOW, shelf.fetch)
    assert made.left_out == {"picture damaged": 1, "picture no longer kept": 1, "picture out of reach": 1}


def test_the_list_says_who_said_what_of_which_picture(settings: Settings, shelf: Shelf) -> None:
    made = make(Selection(), settings, "anna", NOW, shelf.fetch)
    folder = settings.review.data_sets / made.name
    rows = list(csv.DictReader((folder / "manifest.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 6
    for row in rows:
        assert hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() == row["sha256"]
        assert row["path"].startswith(row["class"])
    assert (rows[1]["part"], rows[1]["kinds"], rows[1]["reviewer"]) == ("line-1:7:2", "flash", "anna")
    described = json.loads((folder / "data-set.json").read_text(encoding="utf-8"))
    assert (described["number"], described["fingerprint"]) == (1, made.fingerprint)


def test_the_list_itself_is_a_training_set_too(settings: Settings, shelf: Shelf) -> None:
    made = make(Selection(), settings, "anna", NOW, shelf.fetch)
    assert len(scan([settings.review.data_sets / made.name / "manifest.csv"])) == 6


def test_numbers_go_on_and_equal_sets_have_equal_fingerprints(settings: Settings, shelf: Shelf) -> None:
    first = make(Selection(), settings, "anna", NOW, shelf.fetch)
    second = make(Selection(), settings, "anna", NOW + timedelta(days=1), shelf.fetch)
    part = make(Selection(to=EARLIEST + timedelta(seconds=4)), settings, "anna", NOW, shelf.fetch)
    assert [one.name for one in (first, second)] == ["reviews-0001-2026-11-22", "reviews-0002-2026-11-23"]
    assert first.fingerprint == second.fingerprint != part.fingerprint


def test_a_database_that_forgot_a_data_set_does_not_write_over_it(settings: Settings, shelf: Shelf) -> None:
    first = make(Selection(), settings, "anna", NOW, shelf.fetch)
    DataSet.objects.all().delete()
    second = make(Selection(), settings, "anna", NOW, shelf.fetch)
    assert (first.number, second.number) == (1, 2)
    assert len(list(settings.review.data_sets.iterdir())) == 2


def test_an_empty_selection_leaves_nothing_behind(settings: Settings, shelf: Shelf) -> None:
    with pytest.raises(NothingToPutInError, match="no part like that was reviewed"):
        make(Selection(line="line-2"), settings, "anna", NOW, shelf.fetch)
    assert list(settings.review.data_sets.iterdir()) == []
    assert DataSet.objects.count() == 0


def test_the_zip_is_the_folder(settings: Settings, shelf: Shelf) -> None:
    made = make(Selection(), settings, "anna", NOW, shelf.fetch)
    folder = settings.review.data_sets / made.name
    archive = zipfile.ZipFile(io.BytesIO(b"".join(zipped(folder))))
    assert archive.testzip() is None
    assert {name.removeprefix(f"{made.name}/") for name in archive.namelist()} == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", ["reviews-0001-2026-11-22", "..%2f..%2fstation", "reviews-0001-2026-11-22%2f..", "x"])
def test_a_data_set_that_is_not_there_is_not_found(reviewer: Client, name: str) -> None:
    assert reviewer.get(f"/reviews/data-sets/{name}.zip").status_code == 404


def test_a_selection_that_cannot_be_read_is_refused_in_words(reviewer: Client) -> None:
    with pytest.raises(ValueError, match="since: expected a time"):
        read_selection({"since": "x"})
    answer = reviewer.post("/reviews/data-sets/", {"line": "<script>"}, follow=True)
    assert "expected a line name" in answer.content.decode()


def test_an_operator_makes_none(operator: Client) -> None:
    assert operator.post("/reviews/data-sets/").status_code == 403
