"""Retention of pictures and parts: which pictures are kept, how they get into the object store, and when they are deleted."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from station.archive.database import lock_parts
from station.archive.models import Part, RetentionState
from streams import metrics
from streams.backoff import Backoff
from streams.clock_trust import ClockTrust
from streams.errors import CastlineError, PictureError
from streams.identity import PartId
from streams.object_store import ObjectStore, is_heat_map_address
from streams.settings import ArchivistSettings, TopicSettings
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

_ARCHIVED_PER_STEP = 32
_DELETED_PER_STEP = 500
# The object store has 256 folders of pictures, one for each first byte of a checksum. Each call of `PictureArchiver.sweep` searches one
# folder for pictures that belong to no part.
_FOLDERS = 256
_MAX_TRIES = 5
_MOST_PUT_OFF = 256
# After this many failures, a call of `archive_pictures` returns early, because Kafka or the store probably does not answer.
_MOST_FAILURES = 3
_IDLE_S = 0.5
_LONGEST_WAIT_S = 30.0


@dataclass
class _Tries:
    """Counts the failed tries to read the picture of a part.

    If no other picture was archived since the last counted try, Kafka or the object store probably does not answer. A try is then not
    counted. `archived_before` is the number of pictures that were archived up to the last counted try.
    """

    archived_before: int
    count: int = 1


@dataclass(frozen=True)
class RetentionPolicy:
    """Decides whether a part's picture is kept.

    The pictures of defects, of parts for review, of reviewed parts and of all parts on `complete_lines` are always kept.
    `ok_share` says how many of all other pictures are kept: 0 for none, 1 for all.
    """

    ok_share: float
    complete_lines: frozenset[str] = frozenset()

    def keeps(self, part: PartId, label: str, is_reviewed: bool) -> bool:
        """Returns whether the picture of `part`, whose verdict is `label`, is kept. Repeated calls give the same answer."""
        return is_reviewed or label in ("defect", "review") or part.line in self.complete_lines or is_sampled(part, self.ok_share)


def is_sampled(part: PartId, share: float) -> bool:
    """Returns whether `part` is in a pseudo-random sample. For example, `share` 0.1 selects every tenth part on average.

    The answer is the same in every process.
    """
    first_bytes = hashlib.sha256(part.key).digest()[:8]
    return int.from_bytes(first_bytes, "big") < share * 2**64


class PictureSource(Protocol):
    """A source of pictures for the archive. `station.pictures` implements the protocol with Kafka and the object store."""

    def read_original(self, part: Part) -> bytes | None:
        """Returns the picture of `part` as the camera sent it, or None if the picture was deleted.

        Raises PictureError if the stored bytes are not this picture, and another CastlineError if the source does not answer.
        """
        ...


class PictureArchiver:
    """Copies pictures into the object store, and deletes them when they are too old or take too much space. Not thread-safe.

    Raises OSError or DatabaseError if the store or the database does not answer.
    """

    def __init__(
        self, store: ObjectStore, source: PictureSource, limits: ArchivistSettings, topics: TopicSettings, upload_line: str = ""
    ) -> None:
        """`upload_line` is the line of the uploads, or "" if the plant accepts no uploads."""
        self._store = store
        self._source = source
        self._limits = limits
        self._topics = topics
        self._upload_line = upload_line
        self._next_folder = 0
        # The parts whose picture could not be read, by primary key. They are tried again only if no other part waits.
        self._tries: dict[int, _Tries] = {}
        self._archived_count = 0
        for deleted in ("rows", "pictures", "strays"):
            metrics.archive_dropped.labels(deleted)

    def archive_pictures(self, go_on: Callable[[], bool]) -> int:
        """Copies the pictures of parts with `keep_picture` into the object store, at most 32, newest first.

        Stops early if `go_on` returns False. Returns the number of pictures that were copied or no longer exist.

        If a picture cannot be read, goes on with other parts and raises the error at the end. A later call tries the picture again. After
        five failed tries, the archive does without the picture. `_gives_up` says which tries count.
        """
        done: list[Part] = []
        failures: list[Exception] = []
        try:
            for part in self._find_waiting():
                # A failure can take seconds, so stop after a few failures. The next call begins with parts that have not failed yet.
                if not go_on() or len(failures) >= _MOST_FAILURES:
                    break
                try:
                    part.picture, part.picture_bytes = self._archive_picture(part)
                except (CastlineError, OSError) as error:
                    if not self._gives_up(part):
                        failures.append(error)
                        continue
                    log.warning(
                        "the picture of part %s could not be read in %d tries, so the archive will not have it: %s", part, _MAX_TRIES, error
                    )
                    metrics.pictures_gone.inc()
                    part.picture, part.picture_bytes = "", None
                self._tries.pop(part.pk, None)
                done.append(part)
        finally:
            # Save all rows in one transaction, because each transaction waits for the disk.
            _save_archived(done)
        if failures:
            raise failures[0]
        return len(done)

    def _find_waiting(self) -> list[Part]:
        """Returns the newest parts that have not failed yet. If all waiting parts have failed, returns those with the oldest failures."""
        marked = Part.objects.filter(keep_picture=True).order_by("-seen_at")
        if found := list(marked.exclude(pk__in=list(self._tries))[:_ARCHIVED_PER_STEP]):
            return found
        parts = marked.in_bulk(list(self._tries))
        return [parts[number] for number in self._tries if number in parts][:_ARCHIVED_PER_STEP]

    def _gives_up(self, part: Part) -> bool:
        """Counts a failed try to read the picture of `part`. Returns True if this was the last try.

        A try is not counted if no other picture was archived since the last counted try. Kafka or the store probably does not answer
        then, and the picture itself may be fine.
        """
        # Move the part to the end of the dictionary, which is in the order of the last failures.
        tries = self._tries.pop(part.pk) if part.pk in self._tries else _Tries(self._archived_count)
        self._tries[part.pk] = tries
        if tries.archived_before != self._archived_count:
            tries.count, tries.archived_before = tries.count + 1, self._archived_count
        while len(self._tries) > _MOST_PUT_OFF:
            del self._tries[next(iter(self._tries))]
        return tries.count >= _MAX_TRIES

    def _archive_picture(self, part: Part) -> tuple[str, int | None]:
        """Copies the picture into the store. Returns its address and size, or ("", None) if the picture no longer exists."""
        try:
            value = self._source.read_original(part)
        except PictureError as error:
            log.warning("cannot archive the picture of part %s: %s", part, error)
            value = None
        if not value:
            metrics.pictures_gone.inc()
            return "", None
        address = self._store.put(value)
        metrics.pictures_kept.inc()
        self._archived_count += 1
        return address, len(value)

    def sweep(self, now: datetime, is_clock_trusted: bool = True) -> None:
        """Deletes old parts and pictures, and the oldest pictures if the pictures together take too much space.

        If `is_clock_trusted` is False, deletes pictures only to free space, because the age of a part may be wrong.
        Uploads and castings each have a limit of their own. Otherwise, many uploads could displace the pictures of castings.
        """
        if is_clock_trusted:
            self._delete_old_parts(now - timedelta(days=self._limits.keep_rows_days))
            self._delete_old_pictures(now - timedelta(days=self._limits.keep_days))
            self._delete_orphans(now)
        self._delete_excess_pictures()
        metrics.archive_pictures_wanted.set(Part.objects.filter(keep_picture=True).count())

    def _delete_old_parts(self, before: datetime) -> None:
        while old := list(Part.objects.filter(seen_at__lt=before).order_by("seen_at")[:_DELETED_PER_STEP]):
            with transaction.atomic():
                lock_parts()
                Part.objects.filter(pk__in=[part.pk for part in old]).delete()
            self._delete_objects(old)
            metrics.archive_dropped.labels("rows").inc(len(old))

    def _delete_old_pictures(self, before: datetime) -> None:
        with_picture = Part.objects.exclude(picture="").filter(seen_at__lt=before)
        while old := list(with_picture.order_by("seen_at")[:_DELETED_PER_STEP]):
            self._delete_pictures(old)
        with_heat_map = Part.objects.exclude(heat_map="").filter(seen_at__lt=before)
        while old := list(with_heat_map.order_by("seen_at")[:_DELETED_PER_STEP]):
            self._delete_pictures(old)

    def _delete_excess_pictures(self) -> None:
        """Deletes the oldest uploaded pictures above the limit for uploads, and the oldest pictures of castings above their limit."""
        with_picture = Part.objects.exclude(picture="")
        uploads, castings = with_picture.filter(line=self._upload_line), with_picture.exclude(line=self._upload_line)
        limit = int(self._limits.keep_bytes * self._limits.upload_share) if self._upload_line else 0
        upload_bytes = self._delete_oldest(uploads, _sum_distinct_bytes(uploads), limit)
        # Subtract the bytes of the uploads from the bytes of all pictures. A direct sum over the castings would be slow, because the
        # database would read the whole table. The sum of all pictures needs only an index.
        casting_bytes = _sum_bytes(with_picture) - _sum_bytes(uploads) - _sum_repeated_bytes(castings)
        casting_bytes = self._delete_oldest(castings, casting_bytes, self._limits.keep_bytes - limit)
        # If somebody uploads the picture of a casting, both sums contain this picture.
        in_both = uploads.filter(Exists(castings.filter(picture=OuterRef("picture"))))
        metrics.archive_kept_bytes.set(upload_bytes + casting_bytes - _sum_distinct_bytes(in_both))

    def _delete_oldest(self, parts: QuerySet[Part], total: int, limit: int) -> int:
        """Deletes the oldest pictures of `parts` until the remaining pictures have at most `limit` bytes together.

        `total` is the number of bytes of all pictures before the deletion. Returns the number of bytes of the remaining pictures.
        """
        while total > limit and (oldest := _find_oldest_pictures(parts, total - limit)):
            while sharing := list(parts.filter(picture__in=list(oldest))[:_DELETED_PER_STEP]):
                self._delete_pictures(sharing)
            total -= sum(oldest.values())
        return total

    def _delete_pictures(self, parts: list[Part]) -> None:
        # Change the rows before deleting the pictures. After a crash in between, no row then refers to a deleted picture.
        with transaction.atomic():
            lock_parts()
            Part.objects.filter(pk__in=[part.pk for part in parts]).update(picture="", picture_bytes=None, heat_map="", keep_picture=False)
        self._delete_objects(parts)
        metrics.archive_dropped.labels("pictures").inc(len(parts))

    def _delete_objects(self, parts: Iterable[Part]) -> None:
        pictures = {part.picture for part in parts if part.picture}
        # In old rows, the column `heat_map` can contain the address of a picture. Do not delete that picture here, because
        # a part may still use it.
        heat_maps = {part.heat_map for part in parts if is_heat_map_address(part.heat_map)}
        for address in sorted((pictures - _used_addresses("picture", pictures)) | (heat_maps - _used_addresses("heat_map", heat_maps))):
            self._store.delete(address)

    def _delete_orphans(self, now: datetime) -> None:
        """Deletes old pictures in the store that belong to no part. Each call searches one folder."""
        # A new picture may belong to a part that the archive does not know yet. So delete only pictures that are at least a day older than
        # any picture in Kafka.
        before = now - timedelta(hours=self._topics.image_hours + 24)
        found = set(self._store.list_older_than(f"pictures/{self._next_folder:02x}", before))
        self._next_folder = (self._next_folder + 1) % _FOLDERS
        for address in sorted(found - _used_addresses("picture", found)):
            self._store.delete(address)
            metrics.archive_dropped.labels("strays").inc()


def _save_archived(parts: list[Part]) -> None:
    with transaction.atomic():
        lock_parts()
        for part in parts:
            marked = Part.objects.filter(pk=part.pk, keep_picture=True)
            marked.update(picture=part.picture, picture_bytes=part.picture_bytes, keep_picture=False)


def _sum_bytes(parts: QuerySet[Part]) -> int:
    return int(parts.aggregate(bytes=Coalesce(Sum("picture_bytes"), 0))["bytes"])


def _sum_distinct_bytes(parts: QuerySet[Part]) -> int:
    """Returns the size of all pictures of `parts` together. A picture that several of the parts share counts once."""
    sizes = parts.order_by().values("picture").annotate(size=Max("picture_bytes"))
    return int(sizes.aggregate(bytes=Coalesce(Sum("size"), 0))["bytes"])


def _sum_repeated_bytes(parts: QuerySet[Part]) -> int:
    """Returns by how many bytes the result of `_sum_bytes(parts)` is too large.

    If several parts share a picture, `_sum_bytes` counts its bytes once for each of these parts.
    """
    counts = Part.objects.exclude(picture="").order_by().values("picture").annotate(parts=Count("picture"))
    shared = list(counts.filter(parts__gt=1).values_list("picture", flat=True))
    repeated = 0
    for start in range(0, len(shared), _DELETED_PER_STEP):
        found = parts.filter(picture__in=shared[start : start + _DELETED_PER_STEP]).order_by().values("picture")
        for picture in found.annotate(
            parts=Count("picture"), total=Coalesce(Sum("picture_bytes"), 0), size=Coalesce(Max("picture_bytes"), 0)
        ):
            repeated += picture["total"] - picture["size"]
    return repeated


def _find_oldest_pictures(parts: QuerySet[Part], excess_bytes: int) -> dict[str, int]:
    """Returns the addresses and sizes of the oldest pictures, until they together have `excess_bytes`. Returns at most 500 pictures.

    If several parts share a picture, the picture is as old as the newest of these parts.
    """
    oldest: dict[str, int] = {}
    newest: dict[str, datetime] = {}
    # Read the rows in pages with LIMIT. A cursor would be slow, because PostgreSQL would first copy all rows for a cursor outside a
    # transaction.
    # Order by `F("id") + 0` and not by "id". With "id", SQLite would not use the index of the pictures, and would read all parts.
    rows = parts.order_by("seen_at", F("id") + 0).values_list("picture", "seen_at", "picture_bytes", "id")
    page = rows
    while step := list(page[:_DELETED_PER_STEP]):
        last_id = step[-1][-1]
        # The next page begins after the stored time of the last row. Let the database look up this time. `step` can contain another time,
        # because `RecordTimeField` changes times before 1971 and after 8999.
        last_at = Subquery(Part.objects.filter(pk=last_id).values("seen_at"))
        # The condition `seen_at__gte` does not change the result. The database needs it to use the index of `seen_at`.
        page = rows.filter(Q(seen_at__gte=last_at) & (Q(seen_at__gt=last_at) | Q(id__gt=last_id)))
        unknown = {address for address, _, _, _ in step} - newest.keys()
        newest.update(parts.filter(picture__in=unknown).order_by().values_list("picture").annotate(Max("seen_at")))
        for address, seen_at, size, _ in step:
            if seen_at < newest[address] or address in oldest:
                continue
            oldest[address] = size or 0
            excess_bytes -= size or 0
            if excess_bytes <= 0 or len(oldest) >= _DELETED_PER_STEP:
                return oldest
    return oldest


def _used_addresses(column: str, addresses: set[str]) -> set[str]:
    """Returns those of `addresses` that a part still uses. `column` says where to look for them: in `picture` or in `heat_map`."""
    used: set[str] = set()
    ordered = sorted(addresses)
    for start in range(0, len(ordered), _DELETED_PER_STEP):
        # The `exclude` seems superfluous, but it makes the database use the partial index on the column instead of reading the table.
        found = Part.objects.exclude(**{column: ""}).filter(**{f"{column}__in": ordered[start : start + _DELETED_PER_STEP]})
        used.update(found.values_list(column, flat=True))
    return used


def confirm_clock(now: datetime) -> None:
    """Stores that the clock of this machine is right. If the archivist did not trust the clock, it may now delete old parts again."""
    RetentionState.objects.update_or_create(pk=1, defaults={"clock_right_at": now})


def _read_clock_right_s() -> float | None:
    state = RetentionState.objects.filter(pk=1).first()
    return state.clock_right_at.timestamp() if state else None


class RetentionWorker:
    """A thread that archives pictures continuously and calls `PictureArchiver.sweep` every `sweep_s` seconds.

    Calls `report_fault` with a sentence after each failure, and with "" after each success. `clock_trust` decides whether the clock can
    be trusted.
    """

    def __init__(
        self, archiver: PictureArchiver, sweep_s: float, report_fault: Callable[[str], None], clock_trust: ClockTrust | None = None
    ) -> None:
        self._archiver = archiver
        self._sweep_s = sweep_s
        self._report_fault = report_fault
        self._clock_trust = clock_trust or ClockTrust("If it is right, run: castline station confirm-clock")
        self._doubt = ""
        self._stopping = threading.Event()
        self._thread = SupervisedThread("retention", self._run, self._stopping)

    def start(self) -> None:
        """Starts the thread that archives and deletes pictures."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Asks the thread to stop after the present picture, and waits up to `within_s` seconds until it has stopped."""
        self._stopping.set()
        self._thread.join(within_s)

    def find_doubt(self) -> str:
        """Returns a sentence that says why the clock is not trusted, or "" if it is trusted.

        While the clock is not trusted, old parts are kept.
        """
        return self._doubt

    def sweep_once(self, now: datetime) -> None:
        """Calls `PictureArchiver.sweep` once. While the clock is not trusted, `sweep` deletes pictures only to free space."""
        self._archiver.sweep(now, self._check_clock(now))

    def _check_clock(self, now: datetime) -> bool:
        """Returns whether the clock is trusted, and stores the time of a trusted clock."""
        doubt = self._clock_trust.find_doubt(_read_clock_right_s())
        if doubt:
            text = f"For now, the archive keeps old parts and pictures. {doubt}"
            if not self._doubt:
                log.warning(text)
            self._doubt = text
        else:
            self._doubt = ""
            confirm_clock(now)
        metrics.archive_clock_doubted.set(bool(doubt) and not self._clock_trust.is_starting)
        return not doubt

    def _run(self) -> None:
        swept_at, backoff = float("-inf"), Backoff(first_s=_IDLE_S, longest_s=_LONGEST_WAIT_S)
        while not self._stopping.is_set():
            try:
                if time.monotonic() - swept_at >= self._sweep_s:
                    self.sweep_once(datetime.now(UTC))
                    swept_at = time.monotonic()
                archived = self._archiver.archive_pictures(lambda: not self._stopping.is_set())
            except (CastlineError, OSError, DatabaseError, InterfaceError) as error:
                connection.close()
                wait_s = backoff.failed()
                log.warning("pictures cannot be archived: %s; next attempt in %.1f s", error, wait_s)
                self._report_fault(f"pictures cannot be archived: {error}")
                self._stopping.wait(wait_s)
                continue
            self._report_fault("")
            backoff.succeeded()
            if not archived:
                self._stopping.wait(_IDLE_S)
        connection.close()
