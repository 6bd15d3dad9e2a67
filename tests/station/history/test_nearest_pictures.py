"""The page of a part shows the training pictures that look most like the part, or says in a sentence why it cannot."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from models.registry import BUNDLED_VERSIONS, Manifest, open_registry
from models.synthetic import render_series
from station.history.nearest_pictures import describe_nearest, find_nearest_pictures
from station.manifests import find_training_index
from station.pictures.part_picture_reader import get_picture_reader
from tests.station.conftest import FOLDER, MakePart


@pytest.fixture
def manifest() -> Manifest:
    return open_registry(BUNDLED_VERSIONS).read_manifest("demo")


@pytest.fixture
def store() -> Iterator[Path]:
    """The folder of the object store. The process that decodes its pictures ends with the test."""
    (FOLDER / "store").mkdir(exist_ok=True)
    yield FOLDER / "store"
    get_picture_reader().close()


def test_the_nearest_training_pictures_are_shown_with_class_and_file(operator: Client, part: MakePart, store: Path) -> None:
    jpeg = next(iter(render_series(1, seed=5))).to_jpeg()
    (store / "nearest.jpeg").write_bytes(jpeg)
    row = part(picture="nearest.jpeg", sha256=hashlib.sha256(jpeg).hexdigest())
    address = f"/parts/line-1/7/{row.part}/nearest"
    assert f'hx-get="{address}"' in operator.get(f"/parts/line-1/7/{row.part}/").content.decode()
    page = operator.get(address).content.decode()
    thumbnails = re.findall(r'src="(/training-pictures/demo/\d+)"', page)
    assert len(set(thumbnails)) == 6
    assert re.search(r"Of 1000 training pictures, these look most like the part: \d of class (ok|def)_front", page)
    assert "castings/" in page
    first = operator.get(thumbnails[0])
    assert (first.headers["Content-Type"], first.content[:2]) == ("image/jpeg", b"\xff\xd8")
    for wrong in ("/training-pictures/demo/1000", "/training-pictures/no-version/0", "/training-pictures/..%2fdemo/0"):
        assert operator.get(wrong).status_code == 404


def test_a_sentence_says_why_there_are_no_training_pictures(part: MakePart, manifest: Manifest) -> None:
    old = manifest.model_copy(update={"training_index": None})
    for found, sentence in (
        (find_nearest_pictures(part(model="lost"), None), "The version lost cannot be read"),
        (find_nearest_pictures(part(), old), "The version demo has no index of its training pictures, because an earlier release made it."),
        (find_nearest_pictures(part(), manifest), "The picture of this part was deleted"),
        (find_nearest_pictures(part(picture="../castline.key"), manifest), "The picture cannot be compared with the training pictures."),
    ):
        assert found.sentences[0].startswith(sentence)
        assert found.pictures == []


def test_a_picture_unlike_all_training_pictures_is_pointed_out(manifest: Manifest) -> None:
    pictures = list(find_training_index(manifest).pictures[:6])
    assert len(describe_nearest(manifest, pictures, is_unusual=False)) == 1
    assert describe_nearest(manifest, pictures, is_unusual=True)[1].startswith("Even the most similar training picture looks different.")
