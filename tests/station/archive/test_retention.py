"""Which pictures are kept, how they get into a real object store (a folder), and what retention deletes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY

from station.archive.models import Part, RetentionState
from station.archive.retention import PictureArchiver, RetentionWorker, confirm_clock, is_sampled
from station.kafka_producer import KafkaUnavailableError
from streams.clock_trust import SETTLING_S, ClockTrust
from streams.errors import PictureError
from streams.identity import PartId
from streams.object_store import ObjectStore
from streams.settings import ArchivistSettings, TopicSettings
from tests.station.conftest import EARLIEST, MakePart

NOW = EARLIEST + timedelta(days=10)


class FakePictureSource:
    """A picture source without Kafka. The parts numbered in `absent` have no picture, those in `damaged` have a wrong one."""

    def __init__(self, absent: frozenset[int] = frozenset(), damaged: frozenset[int] = frozenset()) -> None:
        self._absent = absent
        self._damaged = damaged

    def read_original(self, part: Part) -> bytes | None:
        if part.part in self._damaged:
            raise PictureError("claim-damaged", "another picture")
        return None if part.part in self._absent else make_picture(part.part)


def read_doubt() -> float | None:
    return REGISTRY.get_sample_value("castline_archive_clock_doubted")


def make_picture(number: int) -> bytes:
    return f"picture {number}".encode() * 100


MakeArchiver = Callable[..., PictureArchiver]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "store"))


@pytest.fixture
def make_archiver(store: ObjectStore, database: object) -> MakeArchiver:
    def make(source: FakePictureSource | None = None, upload_line: str = "", **limits: float) -> PictureArchiver:
        settings = ArchivistSettings.model_validate(limits)
        return PictureArchiver(store, source or FakePictureSource(), settings, TopicSettings(), upload_line)

    return make


def stored_pictures(store: ObjectStore, *numbers: int) -> list[int]:
    """Returns those of `numbers` whose picture is in the store."""
    stored = []
    for number in numbers:
        try:
            store.fetch(address_of(number))
            stored.append(number)
        except PictureError:
            continue
    return stored


def address_of(number: int) -> str:
    sha256 = hashlib.sha256(make_picture(number)).hexdigest()
    return f"pictures/{sha256[:2]}/{sha256}"


def test_the_sample_is_even_and_always_the_same() -> None:
    parts = [PartId("line-1", 1, number) for number in range(1, 20_001)]
    sample = [part for part in parts if is_sampled(part, 0.1)]
    assert 1800 < len(sample) < 2200
    assert [part for part in parts if is_sampled(part, 0.1)] == sample
    assert set(sample) <= {part for part in parts if is_sampled(part, 0.2)}


def test_each_marked_picture_is_archived_once_and_a_missing_one_is_tried_once(
    make_archiver: MakeArchiver, store: ObjectStore, part: MakePart
) -> None:
    for _ in range(4):
        part(keep_picture=True)
    part()
    archiver = make_archiver(FakePictureSource(absent=frozenset({2}), damaged=frozenset({3})))
    assert archiver.archive_pictures(lambda: True) == 4
    assert archiver.archive_pictures(lambda: True) == 0
    assert stored_pictures(store, 1, 2, 3, 4, 5) == [1, 4]
    assert [row.picture for row in Part.objects.order_by("part")] == [address_of(1), "", "", address_of(4), ""]
    assert Part.objects.get(part=1).picture_bytes == len(make_picture(1))


def test_archiving_stops_after_the_current_picture(make_archiver: MakeArchiver, part: MakePart) -> None:
    for _ in range(3):
        part(keep_picture=True)
    go_on = iter([True, False])
    assert make_archiver().archive_pictures(lambda: next(go_on)) == 1
    assert Part.objects.filter(keep_picture=True).count() == 2


def test_pictures_and_heat_maps_of_old_parts_are_deleted_and_the_parts_stay(
    make_archiver: MakeArchiver, store: ObjectStore, part: MakePart
) -> None:
    part(keep_picture=True, heat_map="heat-maps/a.png")
    part(keep_picture=True, seen_at=NOW)
    archiver = make_archiver(keep_days=5)
    archiver.archive_pictures(lambda: True)
    archiver.sweep(NOW)
    assert stored_pictures(store, 1, 2) == [2]
    old = Part.objects.get(part=1)
    assert (old.picture, old.heat_map, old.keep_picture) == ("", "", False)
    assert Part.objects.count() == 2


def test_a_picture_that_another_part_shares_stays(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    address = store.put(make_picture(1))
    part(picture=address, picture_bytes=1)
    part(picture=address, picture_bytes=1, seen_at=NOW)
    make_archiver(keep_days=5).sweep(NOW)
    assert stored_pictures(store, 1) == [1]


def test_beyond_the_total_size_the_oldest_pictures_are_deleted(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    for number in range(1, 6):
        part(picture=store.put(make_picture(number)), picture_bytes=2**20)
    make_archiver(keep_bytes=3 * 2**20).sweep(EARLIEST)
    assert stored_pictures(store, 1, 2, 3, 4, 5) == [3, 4, 5]


class ClockAhead:
    """A wall clock that is a century ahead of NOW until a test sets it, and a steady clock."""

    def __init__(self) -> None:
        self.steady_s = 0.0
        self.ahead_s = (NOW + timedelta(days=36500)).timestamp()

    def wall(self) -> float:
        return self.steady_s + self.ahead_s

    def steady(self) -> float:
        return self.steady_s


def test_a_clock_that_jumps_ahead_deletes_no_part_and_no_picture(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    part(picture=store.put(make_picture(1)), picture_bytes=2**20)
    part(picture=store.put(make_picture(2)), picture_bytes=2**20, seen_at=NOW)
    confirm_clock(NOW)
    clocks = ClockAhead()
    worker = RetentionWorker(make_archiver(), 300, lambda _: None, ClockTrust("Confirm.", clocks.wall, clocks.steady))
    for _ in range(3):
        worker.sweep_once(datetime.fromtimestamp(clocks.wall(), UTC))
        assert "36500 days after 2026-12-02" in worker.find_doubt()
        assert read_doubt() == 1
        clocks.steady_s += SETTLING_S
    assert Part.objects.count() == 2
    assert stored_pictures(store, 1, 2) == [1, 2]
    clocks.ahead_s -= 36500 * 86400
    worker.sweep_once(datetime.fromtimestamp(clocks.wall(), UTC))
    assert "was set by -876000.0 h" in worker.find_doubt()
    clocks.steady_s += SETTLING_S
    worker.sweep_once(datetime.fromtimestamp(clocks.wall(), UTC))
    assert worker.find_doubt() == ""
    assert RetentionState.objects.get().clock_right_at > NOW


def test_the_size_of_the_pictures_is_limited_while_the_clock_is_not_trusted(
    make_archiver: MakeArchiver, store: ObjectStore, part: MakePart
) -> None:
    for number in range(1, 3):
        part(picture=store.put(make_picture(number)), picture_bytes=2**20)
    RetentionWorker(make_archiver(keep_bytes=2**20), 300, lambda _: None).sweep_once(NOW)
    assert stored_pictures(store, 1, 2) == [2]
    assert read_doubt() == 0, "each archivist waits after its start, which is no reason for an alarm"


def test_uploads_never_displace_the_pictures_of_castings(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    for number in range(1, 4):
        part(picture=store.put(make_picture(number)), picture_bytes=2**20)
    for number in range(4, 24):
        part(line="uploads", picture=store.put(make_picture(number)), picture_bytes=2**20)
    make_archiver(upload_line="uploads", keep_bytes=10 * 2**20, upload_share=0.2).sweep(EARLIEST)
    assert stored_pictures(store, *range(1, 24)) == [1, 2, 3, 22, 23]


def test_castings_never_displace_the_pictures_of_uploads(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    part(line="uploads", picture=store.put(make_picture(1)), picture_bytes=2**20)
    for number in range(2, 12):
        part(picture=store.put(make_picture(number)), picture_bytes=2**20)
    make_archiver(upload_line="uploads", keep_bytes=10 * 2**20, upload_share=0.2).sweep(EARLIEST)
    assert stored_pictures(store, *range(1, 12)) == [1, *range(4, 12)]


def test_a_picture_that_was_uploaded_often_counts_once(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    part(line="uploads", picture=store.put(make_picture(1)), picture_bytes=2**20)
    for _ in range(20):
        part(line="uploads", picture=store.put(make_picture(2)), picture_bytes=2**20)
    make_archiver(upload_line="uploads", keep_bytes=10 * 2**20, upload_share=0.2).sweep(EARLIEST)
    assert stored_pictures(store, 1, 2) == [1, 2]


def test_a_picture_that_castings_share_counts_once(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    part(picture=store.put(make_picture(1)), picture_bytes=2**20)
    for _ in range(20):
        part(picture=store.put(make_picture(2)), picture_bytes=2**20)
    make_archiver(upload_line="uploads", keep_bytes=3 * 2**20).sweep(EARLIEST)
    assert stored_pictures(store, 1, 2) == [1, 2]
    assert Part.objects.exclude(picture="").count() == 21
    assert REGISTRY.get_sample_value("castline_archive_kept_bytes") == 2 * 2**20


def test_a_picture_that_a_casting_and_an_upload_share_counts_once_in_the_metric(
    make_archiver: MakeArchiver, store: ObjectStore, part: MakePart
) -> None:
    part(picture=store.put(make_picture(1)), picture_bytes=2**20)
    for line in ("line-1", "uploads", "uploads"):
        part(line=line, picture=store.put(make_picture(2)), picture_bytes=2**20)
    make_archiver(upload_line="uploads", keep_bytes=10 * 2**20, upload_share=0.2).sweep(EARLIEST)
    assert stored_pictures(store, 1, 2) == [1, 2]
    assert REGISTRY.get_sample_value("castline_archive_kept_bytes") == 2 * 2**20


@pytest.mark.parametrize("line", ["line-1", "uploads"])
def test_a_shared_picture_is_as_old_as_its_newest_part(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart, line: str) -> None:
    shared = store.put(make_picture(1))
    for _ in range(600):
        part(line=line, picture=shared, picture_bytes=2**20)
    for number in (2, 3, 4):
        part(line=line, picture=store.put(make_picture(number)), picture_bytes=2**20)
    part(line=line, picture=shared, picture_bytes=2**20)
    limits = {"upload_line": "uploads", "keep_bytes": 6 * 2**20, "upload_share": 0.5}
    make_archiver(**limits).sweep(EARLIEST)
    assert stored_pictures(store, 1, 2, 3, 4) == [1, 3, 4]
    assert Part.objects.filter(picture=shared).count() == 601
    make_archiver(**limits | {"keep_bytes": 2 * 2**20}).sweep(EARLIEST)
    assert stored_pictures(store, 1, 2, 3, 4) == [1], "the picture of the newest part stays"
    part(line=line, picture=store.put(make_picture(5)), picture_bytes=2**20)
    make_archiver(**limits | {"keep_bytes": 2 * 2**20}).sweep(EARLIEST)
    assert stored_pictures(store, 1, 5) == [5]
    assert not Part.objects.filter(picture=shared).exists()


@pytest.mark.parametrize("seen_at", [{}, {"seen_at": EARLIEST}])
def test_the_oldest_pictures_are_searched_in_pages(
    make_archiver: MakeArchiver, store: ObjectStore, part: MakePart, seen_at: dict[str, datetime]
) -> None:
    """In this test, all parts of several pages are skipped, because they share their picture with a newer part."""
    shared = store.put(make_picture(1))
    for _ in range(1200):
        part(picture=shared, picture_bytes=2**20, **seen_at)
    for number in (2, 3, 4):
        part(picture=store.put(make_picture(number)), picture_bytes=2**20, **seen_at)
    part(picture=shared, picture_bytes=2**20, seen_at=NOW)
    with CaptureQueriesContext(connection) as queries:
        make_archiver(keep_bytes=2 * 2**20).sweep(EARLIEST, is_clock_trusted=False)
    assert stored_pictures(store, 1, 2, 3, 4) == [1, 4]
    searches = [query["sql"] for query in queries if "ORDER BY" in query["sql"]]
    assert len(searches) >= 3
    with connection.cursor() as cursor:
        for search in searches:
            assert "LIMIT 500" in search
            if connection.vendor == "postgresql":
                # PostgreSQL reads such a small table without this index, unless the other ways are forbidden.
                cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
                cursor.execute(f"EXPLAIN {search}")
            else:
                cursor.execute(f"EXPLAIN QUERY PLAN {search}")
            plan = str(cursor.fetchall())
            assert re.search("using index part_picture_kept|Index Scan using part_picture_kept", plan, re.IGNORECASE), plan


def test_pages_of_parts_whose_stored_time_is_not_the_time_that_is_read_end(
    make_archiver: MakeArchiver, store: ObjectStore, part: MakePart
) -> None:
    """Release 0.1.0 stored times in the year 9999, which are read as times in the year 8999."""
    late = datetime(9999, 12, 31, 23, 30, tzinfo=UTC)
    shared = store.put(make_picture(1))
    for _ in range(501):
        part(picture=shared, picture_bytes=2**10, seen_at=late)
    part(picture=store.put(make_picture(2)), picture_bytes=2**21, seen_at=late)
    make_archiver(keep_bytes=2**20).sweep(EARLIEST, is_clock_trusted=False)
    assert stored_pictures(store, 1, 2) == []


def test_old_parts_are_deleted_with_their_pictures(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    part(picture=store.put(make_picture(1)), picture_bytes=1)
    part(seen_at=NOW)
    make_archiver(keep_rows_days=5).sweep(NOW)
    assert [row.part for row in Part.objects.all()] == [2]
    assert stored_pictures(store, 1) == []


def test_orphans_are_deleted_once_no_record_can_refer_to_them(
    make_archiver: MakeArchiver, store: ObjectStore, part: MakePart, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        store.put(make_picture(number))
    part(picture=address_of(1), picture_bytes=1)
    now = datetime.now(UTC)
    long_ago = (now - timedelta(hours=49)).timestamp()
    for number in (1, 2):
        os.utime(tmp_path / "store" / address_of(number), (long_ago, long_ago))
    archiver = make_archiver()
    for _ in range(256):
        archiver._delete_orphans(now)
    assert stored_pictures(store, 1, 2, 3) == [1, 3]


@pytest.mark.parametrize("address", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", ".hidden", "s3://other/x"])
def test_an_address_that_leads_out_of_the_store_deletes_nothing(store: ObjectStore, tmp_path: Path, address: str) -> None:
    (tmp_path / "b").write_text("stays")
    store.put(b"x")
    store.delete(address)
    assert (tmp_path / "b").exists()


def test_a_heat_map_that_is_a_picture_is_never_deleted(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    victim = store.put(make_picture(1))
    study = store.put(b"a picture of a study", "studies")
    part(picture=victim, picture_bytes=10, seen_at=NOW)
    part(heat_map=victim)
    part(heat_map=study)
    make_archiver(keep_days=5).sweep(NOW)
    assert stored_pictures(store, 1) == [1]
    assert store.list_older_than("studies", NOW + timedelta(days=36500)) == [study]
    assert [row.heat_map for row in Part.objects.order_by("part")] == ["", "", ""]


def test_a_heat_map_that_a_newer_part_shares_stays(make_archiver: MakeArchiver, store: ObjectStore, part: MakePart) -> None:
    shared, own = store.put(b"a grey map", "maps"), store.put(b"a black map", "maps")
    part(heat_map=shared)
    part(heat_map=own)
    part(heat_map=shared, seen_at=NOW)
    make_archiver(keep_days=5).sweep(NOW)
    assert store.list_older_than("maps", NOW + timedelta(days=36500)) == [shared]


class BlockedSource(FakePictureSource):
    """A source that raises `error` for the parts in `blocked`, or for all parts."""

    def __init__(
        self,
        blocked: frozenset[int],
        is_away: bool = False,
        error: Exception = KafkaUnavailableError("the picture cannot be read now"),  # noqa: B008
    ) -> None:
        super().__init__()
        self.error = error
        self.blocked = blocked
        self.is_away = is_away
        self.asked: list[int] = []

    def read_original(self, part: Part) -> bytes | None:
        self.asked.append(part.part)
        if self.is_away or part.part in self.blocked:
            raise self.error
        return super().read_original(part)


def archive_with_repeats(archiver: PictureArchiver, repeats: int) -> None:
    for _ in range(repeats):
        with contextlib.suppress(KafkaUnavailableError, OSError):
            archiver.archive_pictures(lambda: True)


def test_newest_pictures_are_archived_first_and_unreadable_ones_hold_up_no_others(
    make_archiver: MakeArchiver, store: ObjectStore, part: MakePart
) -> None:
    forged = frozenset(range(29, 41))
    for number in range(40):
        part(keep_picture=True, seen_at=EARLIEST + timedelta(seconds=number))
    source = BlockedSource(forged)
    archiver = make_archiver(source)
    archive_with_repeats(archiver, 6)
    assert source.asked[:12] == sorted(forged, reverse=True)
    assert stored_pictures(store, *range(1, 41)) == list(range(1, 29))
    assert max(source.asked.count(number) for number in forged) <= 2


def test_an_unreadable_picture_is_given_up_after_five_tries_but_not_while_nothing_can_be_read(
    make_archiver: MakeArchiver, part: MakePart
) -> None:
    part(keep_picture=True)
    source = BlockedSource(frozenset({1}))
    archiver = make_archiver(source)
    archive_with_repeats(archiver, 20)
    assert Part.objects.get(part=1).keep_picture, "no other picture was read in the meantime"
    for _ in range(4):
        part(keep_picture=True)
        archive_with_repeats(archiver, 2)
    assert not Part.objects.get(part=1).keep_picture
    assert Part.objects.filter(keep_picture=True).count() == 0


@pytest.mark.parametrize("error", [KafkaUnavailableError("the picture cannot be read now"), OSError("the picture cannot be read now")])
def test_a_picture_that_cannot_be_read_now_does_not_stop_others_that_could_not_be_read_before(
    error: Exception, make_archiver: MakeArchiver, store: ObjectStore, part: MakePart
) -> None:
    for number in range(40):
        part(keep_picture=True, seen_at=EARLIEST + timedelta(seconds=number))
    source = BlockedSource(frozenset(range(1, 41)), error=error)
    archiver = make_archiver(source)
    archive_with_repeats(archiver, 50)
    assert set(source.asked) == set(range(1, 41))
    assert stored_pictures(store, *range(1, 41)) == []
    source.blocked = frozenset(range(3, 41))
    with pytest.raises(type(error), match="cannot be read now"):
        archiver.archive_pictures(lambda: True)
    archive_with_repeats(archiver, 20)
    assert stored_pictures(store, *range(1, 41)) == [1, 2]


def test_a_source_that_does_not_answer_is_not_asked_for_all_pictures(make_archiver: MakeArchiver, part: MakePart) -> None:
    for number in range(40):
        part(keep_picture=True, seen_at=EARLIEST + timedelta(seconds=number))
    source = BlockedSource(frozenset(), is_away=True)
    archive_with_repeats(make_archiver(source), 1)
    assert len(source.asked) == 3
