"""Which pictures are fetched, and what retention drops: from a real store, a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from station.archive.models import Part
from station.archive.shelf import Shelf
from streams.errors import PictureError
from streams.object_store import ObjectStore
from streams.settings import ArchivistSettings, TopicSettings
from tests.station.conftest import EARLIEST, MakePart

NOW = EARLIEST + timedelta(days=10)


class Source:
    """Pictures that are where the parts say; of `absent` parts there is none, and `damaged` ones are others."""

    def __init__(self, absent: frozenset[int] = frozenset(), damaged: frozenset[int] = frozenset()) -> None:
        self._absent = absent
        self._damaged = damaged

    def original(self, part: Part) -> bytes | None:
        if part.part in self._damaged:
            raise PictureError("claim-damaged", "another picture")
        return None if part.part in self._absent else picture(part.part)


def picture(number: int) -> bytes:
    return f"picture {number}".encode() * 100


MakeShelf = Callable[..., Shelf]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "store"))


@pytest.fixture
def shelf(store: ObjectStore, database: object) -> MakeShelf:
    def make(source: Source | None = None, **limits: float) -> Shelf:
        return Shelf(store, source or Source(), ArchivistSettings.model_validate(limits), TopicSettings())

    return make


def held(store: ObjectStore, *numbers: int) -> list[int]:
    """Which of these pictures the store has."""
    found = []
    for number in numbers:
        try:
            store.fetch(claim(number))
            found.append(number)
        except PictureError:
            continue
    return found


def claim(number: int) -> str:
    sha256 = hashlib.sha256(picture(number)).hexdigest()
    return f"pictures/{sha256[:2]}/{sha256}"


def test_wanted_pictures_are_fetched_once_and_what_is_gone_is_asked_for_once(shelf: MakeShelf, store: ObjectStore, part: MakePart) -> None:
    for _ in range(4):
        part(keep_picture=True)
    part()
    one = shelf(Source(absent=frozenset({2}), damaged=frozenset({3})))
    assert one.fetch_wanted(lambda: True) == 4
    assert one.fetch_wanted(lambda: True) == 0
    assert held(store, 1, 2, 3, 4, 5) == [1, 4]
    assert [row.picture for row in Part.objects.order_by("part")] == [claim(1), "", "", claim(4), ""]
    assert Part.objects.get(part=1).picture_bytes == len(picture(1))


def test_when_asked_to_stop_the_picture_in_hand_is_settled(shelf: MakeShelf, part: MakePart) -> None:
    for _ in range(3):
        part(keep_picture=True)
    answers = iter([True, False])
    assert shelf().fetch_wanted(lambda: next(answers)) == 1
    assert Part.objects.filter(keep_picture=True).count() == 2


def test_pictures_and_heat_maps_of_old_parts_are_dropped_and_the_parts_stay(shelf: MakeShelf, store: ObjectStore, part: MakePart) -> None:
    part(keep_picture=True, heat_map="heat-maps/a.png")
    part(keep_picture=True, seen_at=NOW)
    one = shelf(keep_days=5)
    one.fetch_wanted(lambda: True)
    one.sweep(NOW)
    assert held(store, 1, 2) == [2]
    old = Part.objects.get(part=1)
    assert (old.picture, old.heat_map, old.keep_picture) == ("", "", False)
    assert Part.objects.count() == 2


def test_a_picture_that_another_part_has_too_stays(shelf: MakeShelf, store: ObjectStore, part: MakePart) -> None:
    address = store.put(picture(1))
    part(picture=address, picture_bytes=1)
    part(picture=address, picture_bytes=1, seen_at=NOW)
    shelf(keep_days=5).sweep(NOW)
    assert held(store, 1) == [1]


def test_beyond_the_size_the_oldest_are_dropped(shelf: MakeShelf, store: ObjectStore, part: MakePart) -> None:
    for number in range(1, 6):
        part(picture=store.put(picture(number)), picture_bytes=2**20)
    shelf(keep_bytes=3 * 2**20).sweep(EARLIEST)
    assert held(store, 1, 2, 3, 4, 5) == [3, 4, 5]


def test_parts_are_forgotten_with_their_pictures(shelf: MakeShelf, store: ObjectStore, part: MakePart) -> None:
    part(picture=store.put(picture(1)), picture_bytes=1)
    part(seen_at=NOW)
    shelf(keep_rows_days=5).sweep(NOW)
    assert [row.part for row in Part.objects.all()] == [2]
    assert held(store, 1) == []


def test_what_belongs_to_no_part_is_dropped_once_no_record_can_claim_it(
    shelf: MakeShelf, store: ObjectStore, part: MakePart, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        store.put(picture(number))
    part(picture=claim(1), picture_bytes=1)
    now = datetime.now(UTC)
    long_ago = (now - timedelta(hours=49)).timestamp()
    for number in (1, 2):
        os.utime(tmp_path / "store" / claim(number), (long_ago, long_ago))
    one = shelf()
    for _ in range(256):
        one._drop_strays(now)
    assert held(store, 1, 2, 3) == [1, 3]


@pytest.mark.parametrize("address", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", ".hidden", "s3://other/x"])
def test_an_address_that_leads_out_of_the_store_drops_nothing(store: ObjectStore, tmp_path: Path, address: str) -> None:
    (tmp_path / "b").write_text("stays")
    store.put(b"x")
    store.delete(address)
    assert (tmp_path / "b").exists()
