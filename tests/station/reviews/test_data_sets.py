"""Tests of data sets: a training run reads the labels that people gave, and nothing is lost or overwritten."""

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

from models.training.labelled_pictures import find_pictures, read_pictures
from station.archive.models import Part
from station.kafka_producer import KafkaUnavailableError
from station.reviews.data_sets import DataSetRefusedError, DataSetSelection, make_data_set, parse_selection, stream_zip
from station.reviews.models import DataSet
from streams.errors import PictureError
from streams.settings import Settings
from tests.station.conftest import EARLIEST, SETTINGS, MakePart

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class PictureStore:
    """A stand-in for the store of pictures. The column `reason` of a part selects how the store fails."""

    pictures: dict[int, bytes] = field(default_factory=dict)

    def fetch(self, part: Part) -> bytes | None:
        if part.reason == "away":
            raise KafkaUnavailableError("Kafka does not answer")
        if part.reason == "damaged":
            raise PictureError("claim-damaged", "damaged")
        return self.pictures.get(part.part)


def jpeg(grey: int) -> bytes:
    value = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).point(lambda level: (level + grey) // 2).save(value, "JPEG")
    return value.getvalue()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return SETTINGS.model_copy(update={"review": SETTINGS.review.model_copy(update={"data_sets": tmp_path / "sets", "keep_free_bytes": 0})})


@pytest.fixture
def store(part: MakePart) -> PictureStore:
    found = PictureStore()
    review = {"reviewer": "anna", "reviewed_at": NOW}
    for number in range(6):
        row = part(review_label="defect" if number % 2 else "ok", review_kinds=["flash"] if number % 2 else [], **review)
        found.pictures[row.part] = jpeg(40 * number)
    part(review_label="ok", **review)  # its picture was deleted
    part(review_label="ok", reason="damaged", **review)
    part(review_label="ok", reason="away", **review)
    part(review_label="defect", line="uploads", **review)
    part()
    return found


def test_a_training_run_reads_the_labels_of_people(settings: Settings, store: PictureStore) -> None:
    made = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    folder = settings.review.data_sets / made.name
    collection = read_pictures(find_pictures([folder]), side_px=32)
    assert collection.classes == ("def_front", "ok_front")
    assert collection.class_counts == {"def_front": 3, "ok_front": 3} == made.counts
    assert collection.unreadable == ()
    assert collection.fingerprint() == made.fingerprint


def test_parts_without_a_picture_are_counted_by_reason(settings: Settings, store: PictureStore) -> None:
    made = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    assert made.left_out == {"picture damaged": 1, "picture no longer kept": 1, "picture out of reach": 1}


def test_the_manifest_has_a_row_for_each_picture(settings: Settings, store: PictureStore) -> None:
    made = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    folder = settings.review.data_sets / made.name
    rows = list(csv.DictReader((folder / "manifest.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 6
    for row in rows:
        assert hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() == row["sha256"]
        assert row["path"].startswith(row["class"])
    assert (rows[1]["part"], rows[1]["kinds"], rows[1]["reviewer"]) == ("line-1:7:2", "flash", "anna")
    described = json.loads((folder / "data-set.json").read_text(encoding="utf-8"))
    assert (described["number"], described["fingerprint"]) == (1, made.fingerprint)


def test_the_manifest_can_be_read_by_a_training_run(settings: Settings, store: PictureStore) -> None:
    made = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    assert len(find_pictures([settings.review.data_sets / made.name / "manifest.csv"])) == 6


def test_numbers_rise_and_equal_data_sets_have_equal_fingerprints(settings: Settings, store: PictureStore) -> None:
    first = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    second = make_data_set(DataSetSelection(line="line-1"), settings, "anna", NOW + timedelta(days=1), store.fetch)
    part = make_data_set(DataSetSelection(to=EARLIEST + timedelta(seconds=4)), settings, "anna", NOW, store.fetch)
    assert [first.name, second.name] == ["reviews-0001-2026-11-22", "reviews-0002-2026-11-23"]
    assert first.fingerprint == second.fingerprint != part.fingerprint


def test_a_data_set_that_the_database_does_not_know_is_not_overwritten(settings: Settings, store: PictureStore) -> None:
    first = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    DataSet.objects.all().delete()
    second = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    assert (first.number, second.number) == (1, 2)
    assert len(list(settings.review.data_sets.glob("reviews-*"))) == 2


def test_an_empty_selection_leaves_nothing_behind(settings: Settings, store: PictureStore) -> None:
    with pytest.raises(DataSetRefusedError, match="none of the selected parts was reviewed"):
        make_data_set(DataSetSelection(line="line-2"), settings, "anna", NOW, store.fetch)
    assert [path.name for path in settings.review.data_sets.iterdir()] == [".lock"]
    assert DataSet.objects.count() == 0


def test_the_same_data_set_is_not_made_twice_but_a_changed_review_makes_a_new_one(settings: Settings, store: PictureStore) -> None:
    first = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    with pytest.raises(DataSetRefusedError, match=f"The data set {first.name} has the same parts"):
        make_data_set(DataSetSelection(), settings, "berta", NOW + timedelta(days=1), store.fetch)
    assert len(list(settings.review.data_sets.glob("*reviews-*"))) == 1
    Part.objects.filter(part=2).update(review_kinds=["burr"])
    assert make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch).number == 2


def test_a_data_set_is_not_made_while_another_one_is_being_made(settings: Settings, store: PictureStore) -> None:
    refusals = []

    def fetch(part: Part) -> bytes | None:
        with pytest.raises(DataSetRefusedError, match="being made") as refused:
            make_data_set(DataSetSelection(), settings, "berta", NOW, store.fetch)
        refusals.append(refused.value)
        return store.fetch(part)

    made = make_data_set(DataSetSelection(), settings, "anna", NOW, fetch)
    assert made.counts == {"def_front": 3, "ok_front": 3}
    assert refusals
    assert DataSet.objects.count() == 1


def test_what_an_interrupted_process_has_left_behind_is_deleted(settings: Settings, store: PictureStore) -> None:
    left_over = settings.review.data_sets / ".reviews-0007-2026-11-20.partial"
    left_over.mkdir(parents=True)
    make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    assert not left_over.exists()


def test_a_data_set_leaves_space_on_the_disk(settings: Settings, store: PictureStore) -> None:
    review = settings.review.model_copy(update={"keep_free_bytes": 10**18})
    with pytest.raises(DataSetRefusedError, match="MB free"):
        make_data_set(DataSetSelection(), settings.model_copy(update={"review": review}), "anna", NOW, store.fetch)
    assert [path.name for path in settings.review.data_sets.iterdir()] == [".lock"]


def test_the_zip_file_holds_the_whole_folder(settings: Settings, store: PictureStore) -> None:
    made = make_data_set(DataSetSelection(), settings, "anna", NOW, store.fetch)
    folder = settings.review.data_sets / made.name
    archive = zipfile.ZipFile(io.BytesIO(b"".join(stream_zip(folder))))
    assert archive.testzip() is None
    assert {name.removeprefix(f"{made.name}/") for name in archive.namelist()} == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", ["reviews-0001-2026-11-22", "..%2f..%2fstation", "reviews-0001-2026-11-22%2f..", "x"])
def test_an_unknown_data_set_is_answered_with_404(reviewer: Client, name: str) -> None:
    assert reviewer.get(f"/reviews/data-sets/{name}.zip").status_code == 404


def test_a_wrong_selection_is_refused_in_words(reviewer: Client) -> None:
    with pytest.raises(ValueError, match="Seen from must be a time"):
        parse_selection({"since": "x"})
    response = reviewer.post("/reviews/data-sets/", {"line": "<script>"}, follow=True)
    assert "Line must be a line name" in response.content.decode()


def test_an_operator_cannot_make_a_data_set(operator: Client) -> None:
    assert operator.post("/reviews/data-sets/").status_code == 403
