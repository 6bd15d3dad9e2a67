"""Keeps the disk of the embedded broker from filling up. A reserve file keeps some space for the next start of Kafka.

Kafka stops when the disk is full, and then cannot start again. Castline therefore drops (deletes) records before the disk is full, in this
order:

1. pictures that are judged, the oldest first,
2. pictures that wait for an inspector,
3. sorting records,
4. verdicts,
5. findings and dead letters, which are the evidence of defects.

Castline drops judged pictures if less space is free than the limit `drop`. It drops the other kinds only if less space is free than the
smaller limit `floor`.

Castline drops nothing more if the last drop has freed no space, because then other files fill the disk. It drops nothing at all if the
clock was far ahead at the start of Kafka, because Kafka then deletes no files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from deploy.kafka.broker_clock import BrokerClock
from streams import metrics
from streams.errors import BrokerError
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

RESERVE_FILE = "reserve"
# The limit for the alarm is 20 % of the disk, but at most 20 GiB. The limit for dropping records is 10 % of the disk, but at most 4 GiB.
_ALARM_SHARE, _DROP_SHARE = 0.2, 0.1
_ALARM_LIMIT_BYTES, _DROP_LIMIT_BYTES = 20 * 2**30, 4 * 2**30
# Cameras can send up to 256 MiB while Kafka deletes old records. So the limit for dropping records is at least 256 MiB, but on a very small
# disk at most 20 % of the disk.
_DROP_BYTES, _SMALL_DROP_SHARE = 256 * 2**20, 0.2
# Free space that Kafka needs to start, because it first writes some megabytes of metadata, indexes and segments.
_START_BYTES = 48 * 2**20
_RESERVE_SHARE = 0.05
# Records are dropped at most at every sixth check, because Kafka needs some seconds to delete the files of dropped records.
_CHECKS_BETWEEN_DROPS = 6

# The kinds of records, in the order in which they are deleted if the disk is nearly full. castline_broker_drops_total counts by kind.
DROP_ORDER = ("judged-pictures", "waiting-pictures", "sortings", "verdicts", "evidence")

Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True)
class Watermarks:
    """Limits of the free disk space, in bytes.

    - `alarm`: below it, the health page and an alert warn.
    - `drop`: below it, judged pictures are dropped.
    - `floor`: below it, records of all kinds are dropped.
    - `start`: below it, Kafka is not started.
    """

    alarm: int
    drop: int
    floor: int
    start: int
    reserve: int


def compute_watermarks(disk_bytes: int) -> Watermarks:
    """Returns the limits of the free space for a disk of `disk_bytes`."""
    reserve = min(2 * _START_BYTES, int(_RESERVE_SHARE * disk_bytes))
    drop = max(min(int(_DROP_SHARE * disk_bytes), _DROP_LIMIT_BYTES), min(_DROP_BYTES, int(_SMALL_DROP_SHARE * disk_bytes)))
    alarm = max(min(int(_ALARM_SHARE * disk_bytes), _ALARM_LIMIT_BYTES), 3 * drop // 2)
    return Watermarks(alarm, drop, min(drop // 2, 2 * _DROP_BYTES), min(_START_BYTES, reserve), reserve)


@dataclass(frozen=True)
class DropStep:
    """Records to drop. `what` is the kind of these records. `offsets` maps a partition to the first offset that is kept."""

    what: str
    offsets: dict[TopicPartition, int]


def choose_step(names: TopicNames, lines: Sequence[str], starts: Offsets, ends: Offsets, committed: Offsets) -> DropStep | None:
    """Chooses the records to drop: the first kind in DROP_ORDER that still has records. Returns None if no record is left.

    - `starts`, `ends`: for each partition, the offset of the first record, and the offset after the last record.
    - `committed`: the offset up to which the inspectors have judged the pictures of each partition.

    All judged pictures are dropped together. Of any other kind, the older half of the records is dropped.
    """

    def halves(*topics: str) -> dict[TopicPartition, int]:
        return {
            place: starts[place] + (end - starts[place] + 1) // 2
            for place, end in ends.items()
            if place.topic in topics and end > starts[place]
        }

    images = [names.images(line) for line in lines]
    judged = {
        place: min(committed.get(place, 0), ends[place])
        for place in ends
        if place.topic in images and min(committed.get(place, 0), ends[place]) > starts[place]
    }
    offsets = (
        judged,
        halves(*images),
        halves(*(names.sorted(line) for line in lines)),
        halves(*(names.verdicts(line) for line in lines)),
        halves(names.dead_letters, *(names.findings(line) for line in lines)),
    )
    return next((DropStep(what, places) for what, places in zip(DROP_ORDER, offsets, strict=True) if places), None)


def read_free_bytes(folder: Path) -> tuple[int, int]:
    """Returns the free bytes and the size of the disk that holds `folder`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def list_segments(folder: Path, prefix: str) -> frozenset[str]:
    """Returns the paths of the segment files of all topics with `prefix` below Kafka's log folder `folder`.

    Before Kafka deletes a file, it renames the file, for example from `1.log` to `1.log.deleted`. The result names such a file `1.log`.
    """
    topics = f"{escape(prefix)}.*"
    return frozenset(str(path).removesuffix(".deleted") for end in ("log", "log.deleted") for path in folder.glob(f"{topics}/*.{end}"))


def release_reserve(data_dir: Path) -> None:
    """Deletes the reserve file of the broker whose data folder is `data_dir`, if the disk has too little free space to start Kafka.

    Each program of Castline calls this function before it writes its first file, because all programs use the broker's disk by default.
    Raises OSError if the reserve file cannot be deleted.
    """
    reserve = data_dir / RESERVE_FILE
    if not reserve.exists():
        return
    free, disk = read_free_bytes(data_dir)
    marks = compute_watermarks(disk)
    if free < marks.start:
        reserve.unlink()
        log.warning(
            "The disk of %s is nearly full. The reserve file of the broker is deleted, which frees %d bytes.", data_dir, marks.reserve
        )


class DiskGuard:
    """Watches the disk of the embedded broker's data folder. Call `check` once a second while the broker runs.

    - `report_problem`: called with a sentence while too little space is free, and with "" when there is enough.
    - `connect`: returns an admin client that may delete records.
    - `clock`: says whether the machine's clock was far ahead at the start of Kafka. If it was, no records are dropped.
    """

    def __init__(
        self, settings: Settings, report_problem: Callable[[str], None], connect: Callable[[], KafkaAdminClient], clock: BrokerClock
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._clock = clock
        self._folder = settings.broker.data_dir
        self._reserve = self._folder / RESERVE_FILE
        self._report_problem = report_problem
        self._checks_to_wait = 0
        # The names of Kafka's segment files just before the last drop. If the names are still the same before the next drop, the last drop
        # has freed no disk space.
        self._before_drop: frozenset[str] | None = None
        self._was_drop_vain = False
        self._reported = ""
        for what in DROP_ORDER:
            metrics.broker_drops.labels(what)

    def has_room_to_start(self) -> bool:
        """Returns whether the disk has enough free space to start Kafka.

        If the free space is too small, deletes the reserve file and measures again.

        Raises BrokerError if the data folder cannot be used.
        """
        try:
            release_reserve(self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            free, disk = read_free_bytes(self._folder)
            marks = compute_watermarks(disk)
        except OSError as error:
            raise BrokerError(
                f"Cannot write to broker.data_dir {self._folder}: {error.strerror}. Choose another broker.data_dir."
            ) from None
        self._show(free, disk)
        if free >= marks.start:
            return True
        self._report(
            f"The disk of the broker's data folder {self._folder} has only {_mb(free)} MB free, and Kafka needs {_mb(marks.start)} MB to "
            "start. Free space on this disk. The broker then starts by itself."
        )
        return False

    def check(self) -> None:
        """Measures the free space. If too little space is free, reports a problem and drops records.

        If the clock was far ahead when Kafka started, drops nothing, because Kafka then frees no space. If the reserve file is missing and
        enough space is free, makes the reserve file.
        """
        try:
            free, disk = read_free_bytes(self._folder)
        except OSError as error:
            self._report(
                f"The free space of broker.data_dir {self._folder} cannot be read: {error.strerror}. Check this folder and its disk."
            )
            return
        marks = compute_watermarks(disk)
        self._show(free, disk)
        if free >= marks.alarm:
            self._report("")
            self._keep_reserve(free, marks)
            return
        if free < marks.drop and not self._clock.was_far_ahead:
            self._checks_to_wait -= 1
            if self._checks_to_wait <= 0:
                self._checks_to_wait = _CHECKS_BETWEEN_DROPS
                self._drop(free < marks.floor)
        else:
            self._before_drop, self._was_drop_vain = None, False
        self._report(
            f"The disk of the broker's data folder {self._folder} has only {_mb(free)} of {_mb(disk)} MB free. "
            f"{self._describe_action(free, marks)}"
        )

    def _describe_action(self, free: int, marks: Watermarks) -> str:
        if self._clock.was_far_ahead:
            return (
                "The clock of this machine was far ahead at the start, so Kafka frees no room, and no records are dropped. Kafka stops "
                "when the disk is full. Free space on this disk, and correct the clock."
            )
        remedy = "Free space on this disk, or lower broker.max_bytes, topics.image_hours or topics.record_days."
        return f"{self._describe_drops(free, marks)} {remedy}"

    def _describe_drops(self, free: int, marks: Watermarks) -> str:
        if self._was_drop_vain:
            return "Dropping old records has freed no room, so no more records are dropped."
        if free < marks.floor:
            return "Old records are dropped, judged pictures first."
        if free < marks.drop:
            return f"Judged pictures are dropped. Below {_mb(marks.floor)} MB, other old records are dropped as well."
        return f"Below {_mb(marks.drop)} MB, judged pictures are dropped."

    def _keep_reserve(self, free: int, marks: Watermarks) -> None:
        if self._reserve.exists() or free - marks.reserve < marks.drop:
            return
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, marks.reserve)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            log.warning("The broker cannot make its reserve file of %d bytes in %s: %s", marks.reserve, self._folder, error)

    def _drop(self, may_drop_all: bool) -> None:
        """Tries the kinds of records in DROP_ORDER one after the other, and drops the records of the first kind that Kafka still has.

        If `may_drop_all` is False, drops only judged pictures.

        Kafka frees disk space only by deleting whole segment files. If these files are still the same as before the last drop, a further
        drop would not help, so nothing is dropped.
        """
        segments = list_segments(self._folder / "log", self._settings.topics.prefix)
        self._was_drop_vain = segments == self._before_drop
        if self._was_drop_vain:
            return
        try:
            admin = self._connect()
            try:
                step = self._choose(admin)
                if step is None:
                    log.error(
                        "The disk of %s is nearly full, and Kafka has no more records to delete. Delete other files from this disk.",
                        self._folder,
                    )
                    return
                if step.what != DROP_ORDER[0] and not may_drop_all:
                    return
                admin.delete_records(step.offsets)
            finally:
                admin.close()
        except (KafkaError, OSError) as error:
            log.warning("Kafka could not delete old records to free disk space: %r", error)
            return
        self._before_drop = segments
        log.error("The disk of %s is nearly full, so the broker deletes its oldest records of the kind %s.", self._folder, step.what)
        metrics.broker_drops.labels(step.what).inc()

    def _choose(self, admin: KafkaAdminClient) -> DropStep | None:
        names, lines = TopicNames(self._settings.topics.prefix), [line.name for line in self._settings.lines]
        described = admin.describe_topics(None)
        places = [TopicPartition(topic["name"], part["partition_index"]) for topic in described for part in topic["partitions"]]
        own = [place for place in places if place.topic.startswith(f"{names.prefix}.")]
        found = {
            spec: {place: offset.offset for place, offset in admin.list_partition_offsets(dict.fromkeys(own, spec)).items()}
            for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
        }
        group = f"{names.prefix}-inspector"
        committed = {place: entry.offset for place, entry in admin.list_group_offsets({group: own})[group].items()}
        return choose_step(names, lines, found[OffsetSpec.EARLIEST], found[OffsetSpec.LATEST], committed)

    def _show(self, free: int, disk: int) -> None:
        metrics.broker_disk_free_bytes.set(free)
        metrics.broker_disk_bytes.set(disk)

    def _report(self, problem: str) -> None:
        self._report_problem(problem)
        if problem and not self._reported:
            log.error(problem)
        self._reported = problem


def _mb(count: int) -> str:
    return f"{count / 2**20:.0f}"
