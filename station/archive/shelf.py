"""The kept pictures: fetched into the object store, and dropped again by age and by size.

What is to be fetched, and what lies in the store, stands in the table of parts: a process that was killed goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Protocol

from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Coalesce

from station.archive.keeper import take_turn
from station.archive.models import Part
from streams import metrics
from streams.errors import PictureError
from streams.object_store import ObjectStore
from streams.settings import ArchivistSettings, TopicSettings

log = logging.getLogger(__name__)

_AT_ONCE = 32
_DROPPED_AT_ONCE = 500
# The store's folders of pictures, by the first two digits of their name; one is looked through for strays a sweep.
_FOLDERS = 256


class Source(Protocol):
    """Where pictures are fetched from."""

    def original(self, part: Part) -> bytes | None:
        """The picture of `part` as it came; None when it is nowhere any more.

        Raises PictureError: when what lies in its place is not it. CastlineError: when it cannot be asked now.
        """
        ...


class Shelf:
    """Keeps pictures in `store`. For one thread. Raises OSError when the store, DatabaseError when the database does not answer."""

    def __init__(self, store: ObjectStore, source: Source, archivist: ArchivistSettings, topics: TopicSettings) -> None:
        self._store = store
        self._source = source
        self._limits = archivist
        self._topics = topics
        self._folder = 0
        for what in ("rows", "pictures", "strays"):
            metrics.archive_dropped.labels(what)

    def fetch_wanted(self, go_on: Callable[[], bool]) -> int:
        """Fetches some of the pictures that are to be kept, the oldest first; returns how many were dealt with.

        Raises what `Source` raises when it cannot be asked now.
        """
        wanted = list(Part.objects.filter(keep_picture=True).order_by("seen_at")[:_AT_ONCE])
        settled: list[Part] = []
        try:
            for part in wanted:
                if not go_on():
                    break
                part.picture, part.picture_bytes = self._fetch(part)
                settled.append(part)
        finally:
            # One transaction for all: the disk is waited for once. What a crash forgets is fetched again, which changes nothing.
            _settle(settled)
        return len(settled)

    def _fetch(self, part: Part) -> tuple[str, int | None]:
        """Address in the store and size of the part's picture; empty where it cannot be had any more."""
        try:
            value = self._source.original(part)
        except PictureError as error:
            log.warning("the picture of part %s is not kept: %s", part, error)
            value = None
        if not value:
            metrics.pictures_gone.inc()
            return "", None
        address = self._store.put(value)
        metrics.pictures_kept.inc()
        return address, len(value)

    def sweep(self, now: datetime) -> None:
        """Drops what is too old or too much: parts, pictures, heat maps, and pictures in the store that belong to no part."""
        self._forget_parts(now - timedelta(days=self._limits.keep_rows_days))
        self._drop_old(now - timedelta(days=self._limits.keep_days))
        self._drop_surplus()
        self._drop_strays(now)
        metrics.archive_pictures_wanted.set(Part.objects.filter(keep_picture=True).count())

    def _forget_parts(self, before: datetime) -> None:
        while old := list(Part.objects.filter(seen_at__lt=before).order_by("seen_at")[:_DROPPED_AT_ONCE]):
            with transaction.atomic():
                take_turn()
                Part.objects.filter(pk__in=[part.pk for part in old]).delete()
            self._drop_objects(old)
            metrics.archive_dropped.labels("rows").inc(len(old))

    def _drop_old(self, before: datetime) -> None:
        kept = Part.objects.exclude(picture="").filter(seen_at__lt=before)
        while old := list(kept.order_by("seen_at")[:_DROPPED_AT_ONCE]):
            self._drop(old)
        mapped = Part.objects.exclude(heat_map="").filter(seen_at__lt=before)
        while old := list(mapped.order_by("seen_at")[:_DROPPED_AT_ONCE]):
            self._drop(old)

    def _drop_surplus(self) -> None:
        """Drops the oldest kept pictures until the rest is no more than allowed. The same picture of two parts counts twice."""
        kept = Part.objects.exclude(picture="")
        total = kept.aggregate(bytes=Coalesce(Sum("picture_bytes"), 0))["bytes"]
        while total > self._limits.keep_bytes:
            oldest, surplus = [], total - self._limits.keep_bytes
            for part in kept.order_by("seen_at")[:_DROPPED_AT_ONCE]:
                if surplus <= 0:
                    break
                oldest.append(part)
                surplus -= part.picture_bytes or 0
            if not oldest:
                break
            self._drop(oldest)
            total -= sum(part.picture_bytes or 0 for part in oldest)
        metrics.archive_kept_bytes.set(total)

    def _drop(self, parts: list[Part]) -> None:
        # The table first: a crash between the two leaves a stray in the store, not a part whose picture is gone.
        with transaction.atomic():
            take_turn()
            Part.objects.filter(pk__in=[part.pk for part in parts]).update(picture="", picture_bytes=None, heat_map="", keep_picture=False)
        self._drop_objects(parts)
        metrics.archive_dropped.labels("pictures").inc(len(parts))

    def _drop_objects(self, parts: Iterable[Part]) -> None:
        addresses = {part.picture for part in parts if part.picture}
        for address in addresses - _in_use(addresses):
            self._store.delete(address)
        for part in parts:
            if part.heat_map:
                self._store.delete(part.heat_map)

    def _drop_strays(self, now: datetime) -> None:
        """Pictures that no part has: large ones that travelled as a claim check, and what a crash left. One folder a call."""
        # Until the image topic forgets the record that claims it, a picture may still be asked for.
        before = now - timedelta(hours=self._topics.image_hours + 24)
        found = set(self._store.list_older_than(f"pictures/{self._folder:02x}", before))
        self._folder = (self._folder + 1) % _FOLDERS
        for address in sorted(found - _in_use(found)):
            self._store.delete(address)
            metrics.archive_dropped.labels("strays").inc()


def _settle(parts: list[Part]) -> None:
    with transaction.atomic():
        take_turn()
        for part in parts:
            wanted = Part.objects.filter(pk=part.pk, keep_picture=True)
            wanted.update(picture=part.picture, picture_bytes=part.picture_bytes, keep_picture=False)


def _in_use(addresses: set[str]) -> set[str]:
    used: set[str] = set()
    some = sorted(addresses)
    for start in range(0, len(some), _DROPPED_AT_ONCE):
        # The condition of the index, without which the whole table would be looked through.
        found = Part.objects.exclude(picture="").filter(picture__in=some[start : start + _DROPPED_AT_ONCE])
        used.update(found.values_list("picture", flat=True))
    return used
