"""A part's picture: from the object store where it was kept, else from the image topic, while that holds it."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from queue import Empty, LifoQueue
from typing import Any, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from models.pictures.decoder import PictureLimits
from models.pictures.display import EncodedPicture, encode_for_browser, encode_heat_map_layer, encode_thumbnail
from station.configuration import castline
from station.live.sending import KafkaAway
from station.live.stored import read_stored
from streams.errors import PictureError
from streams.identity import make_header_map
from streams.kafka import is_reachable, make_client_arguments
from streams.object_store import CLAIM_MISSING, ObjectStore
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

_CONSUMERS = 4  # connections that read pictures; who comes when all are busy waits a moment
_WAIT_S = 10.0
_READ_MS = 4000
_CACHE_BYTES = 48 * 2**20
_STRIPES = 64  # pictures that are made at once, each once; different ones seldom wait for each other


class Placed(Protocol):
    """Where a part's picture may lie; a row of the archive, or what the wall holds of a verdict."""

    @property
    def line(self) -> str: ...
    @property
    def picture(self) -> str: ...  # store address, "" where not kept
    @property
    def image_topic(self) -> str: ...
    @property
    def image_partition(self) -> int | None: ...
    @property
    def image_offset(self) -> int | None: ...
    @property
    def sha256(self) -> str: ...


class Pictures:
    """Fetches pictures and keeps the last ones as they went out, at most 48 MB of them. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = TopicNames(settings.topics.prefix)
        self._store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
        self._idle: LifoQueue[Any] = LifoQueue()
        for _ in range(_CONSUMERS):
            self._idle.put(None)
        self._kept: OrderedDict[object, EncodedPicture] = OrderedDict()
        self._kept_bytes = 0
        self._making = [threading.Lock() for _ in range(_STRIPES)]
        self._lock = threading.Lock()

    def original(self, part: Placed) -> bytes | None:
        """The picture as it came; None when it is kept nowhere any more.

        Raises PictureError: when what lies there is not it. KafkaAway: when Kafka or the store cannot be reached.
        """
        try:
            value = self._from_store(part.picture) if part.picture else None
            if value is None:
                value = self._from_topic(part)
        except (KafkaError, OSError, AssertionError) as error:
            log.warning("a picture of %s cannot be read: %r", part.line, error)
            raise KafkaAway("The picture cannot be read now: Kafka or the store of pictures does not answer.") from error
        if value is not None and part.sha256 and hashlib.sha256(value).hexdigest() != part.sha256:
            raise PictureError("claim-damaged", "What lies in this picture's place is another picture.")
        return value

    def shown(self, part: Placed, side_px: int | None = None) -> EncodedPicture | None:
        """The picture for a browser; at most `side_px` wide and high where that is given. Raises as `original`."""
        limits = PictureLimits.from_settings(self._settings.pictures)
        if side_px is None:
            return self._remembered(part, side_px, lambda value: encode_for_browser(value, limits))
        return self._remembered(part, side_px, lambda value: encode_thumbnail(value, limits, side_px))

    def heat_map(self, address: str) -> EncodedPicture:
        """The heat map at `address` of the store, to lay over its picture. Raises PictureError, KafkaAway."""
        try:
            value = read_stored(self._settings.store.url, address, self._settings.pictures.max_bytes)
        except OSError as error:
            raise KafkaAway("The heat map cannot be read now: the store of pictures does not answer.") from error
        return encode_heat_map_layer(value, PictureLimits.from_settings(self._settings.pictures))

    def close(self) -> None:
        """Ends the idle connections."""
        for _ in range(_CONSUMERS):
            consumer = self._idle.get(timeout=_WAIT_S)
            if consumer is not None:
                consumer.close()
            self._idle.put(None)

    def _remembered(self, part: Placed, side_px: int | None, make: Callable[[bytes], EncodedPicture]) -> EncodedPicture | None:
        """Reads and makes a picture once, also for many who ask for it at the same moment, as the browsers at a wall do."""
        key = (part.sha256, side_px)
        with self._making[hash(key) % _STRIPES]:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            value = self.original(part)
            picture = None if value is None else make(value)
            if picture is not None and part.sha256:
                self._keep(key, picture)
            return picture

    def _keep(self, key: object, picture: EncodedPicture) -> None:
        with self._lock:
            self._kept[key] = picture
            self._kept_bytes += len(picture.value)
            while self._kept_bytes > _CACHE_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1].value)

    def _from_store(self, address: str) -> bytes | None:
        try:
            return read_stored(self._settings.store.url, address, self._settings.pictures.max_bytes)
        except PictureError as error:
            if error.reason == CLAIM_MISSING:
                return None  # dropped by age or size; the topic may hold it still
            raise

    def _from_topic(self, part: Placed) -> bytes | None:
        known = {self._names.images(line.name) for line in self._settings.lines}
        # A verdict comes from a topic that others may write: it must not make us read anything but pictures.
        if part.image_topic not in known or part.image_partition is None or part.image_offset is None:
            return None
        try:
            consumer = self._idle.get(timeout=_WAIT_S)
        except Empty:
            raise KafkaAway("Too many pictures are asked for at once; try again in a moment.") from None
        try:
            consumer = consumer or self._open()
            record = _read(consumer, TopicPartition(part.image_topic, part.image_partition), part.image_offset)
        except BaseException:
            if consumer is not None:
                consumer.close()
            consumer = None
            raise
        finally:
            self._idle.put(consumer)
        if record is None:
            return None
        claim = make_header_map(record.headers).get("claim")
        if claim:
            return self._store.fetch(claim.decode(errors="replace"))
        return bytes(record.value or b"")

    def _open(self) -> Any:
        if not is_reachable(self._settings.bootstrap):
            raise ConnectionError(f"nothing listens at {self._settings.bootstrap}")
        arguments = make_client_arguments(self._settings, "station-pictures") | {"request_timeout_ms": 5000, "bootstrap_timeout_ms": 5000}
        # One record is wanted: Kafka sends the first batch whatever its size, and with this nothing after it.
        return KafkaConsumer(
            **arguments,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=1,
            metrics_enabled=False,
        )


def _read(consumer: Any, place: TopicPartition, offset: int) -> Any | None:
    """The record at `offset`; None when the topic holds it no more. Raises ConnectionError: when nothing came."""
    consumer.assign([place])
    consumer.seek(place, offset)
    try:
        for record in consumer.poll(timeout_ms=_READ_MS, max_records=1).get(place, ()):
            return record if record.offset == offset else None
    except OffsetOutOfRangeError:
        return None
    # Kafka waits for the record after the last as for any that is to come.
    if consumer.end_offsets([place])[place] <= offset:
        return None
    raise ConnectionError(f"{place.topic}/{place.partition} was silent for {_READ_MS} ms")


_pictures: Pictures | None = None
_making = threading.Lock()


def pictures() -> Pictures:
    """The process's one source of pictures."""
    global _pictures
    with _making:
        if _pictures is None:
            _pictures = Pictures(castline())
        return _pictures
