"""Reads the picture of a part: from the object store if the archivist has kept it there, else from the image topic."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Protocol

from fsspec.implementations.local import LocalFileSystem
from kafka.errors import KafkaError

from models.pictures.decoder import GreyPixels, PictureLimits
from models.pictures.decoder_process import DecoderProcess
from models.pictures.display import EncodedPicture
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError
from streams.errors import IdentityError, PictureError
from streams.identity import read_part_id
from streams.image_topic_reader import ImageTopicReader
from streams.object_store import CLAIM_MISSING, ObjectStore, is_heat_map_address
from streams.record_producer import ConsumedRecord
from streams.remote_files import limit_transfer, open_files
from streams.secrets import SecretAddress, reveal
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

_KAFKA_READERS = 4
_MAX_WAIT_S = 10.0
_CACHE_BYTES = 48 * 2**20
_CONVERSION_LOCKS = 64
# A picture that could not be converted is not converted again for this time. If memory or time was too short, a later try can succeed.
_REFUSED_S = 600.0
_MAX_REFUSALS = 1000
# A segment of an address cannot begin with a dot, because an address with ".." would point to a file outside the store.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_ADDRESS = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{0,9}}")


class PictureLocation(Protocol):
    """The attributes that say where the picture of a part is stored.

    `part_key` is the part id as text. `picture` is an address in the object store, or "" if the store does not have the picture. If the
    checksum is unknown, `sha256` is "".
    """

    @property
    def line(self) -> str: ...
    @property
    def part_key(self) -> str: ...
    @property
    def picture(self) -> str: ...
    @property
    def image_topic(self) -> str: ...
    @property
    def image_partition(self) -> int | None: ...
    @property
    def image_offset(self) -> int | None: ...
    @property
    def sha256(self) -> str: ...


class PartPictureReader:
    """Reads pictures, converts them for browsers, and caches up to 48 MiB of converted pictures. Thread-safe.

    A separate process with limited memory and time converts the pictures, because a stranger's picture can be harmful. A conversion that
    was refused is not repeated for ten minutes. Methods with the parameter `account` convert one picture of this account at a time, so that
    the conversions of other accounts need not wait for all of them. `account` is None if the account is unknown.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = TopicNames(settings.topics.prefix)
        self._store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
        self._decoder = DecoderProcess(settings.pictures.upload_memory_bytes, settings.pictures.upload_time_s)
        self._idle: LifoQueue[ImageTopicReader] = LifoQueue()
        for _ in range(_KAFKA_READERS):
            self._idle.put(ImageTopicReader(settings, "station"))
        self._cache: OrderedDict[object, EncodedPicture] = OrderedDict()
        self._cache_bytes = 0
        self._conversion_locks = [threading.Lock() for _ in range(_CONVERSION_LOCKS)]
        self._cache_lock = threading.Lock()
        # For each refused conversion: the error, and the time until which the conversion is not repeated.
        self._refusals: OrderedDict[object, tuple[PictureError, float]] = OrderedDict()
        self._account_locks: dict[int, threading.Lock] = {}

    def read_original(self, part: PictureLocation) -> bytes | None:
        """Returns the picture as the camera sent it, or None if the picture was deleted from the store and the topic.

        Raises PictureError if the SHA-256 is wrong, and KafkaUnavailableError if Kafka or the store does not answer.
        """
        try:
            value = self._read_from_store(part.picture) if part.picture else None
            if value is None:
                value = self._read_from_topic(part)
        except (KafkaError, OSError, AssertionError) as error:
            log.warning("a picture of line %s cannot be read: %r", part.line, error)
            raise KafkaUnavailableError("The picture cannot be read now: Kafka or the store of pictures does not answer.") from error
        if value is not None and part.sha256 and hashlib.sha256(value).hexdigest() != part.sha256:
            raise PictureError("claim-damaged", "Another picture was found in the place of this picture: their checksums differ.")
        return value

    def read_for_browser(self, part: PictureLocation, side_px: int | None = None, account: int | None = None) -> EncodedPicture | None:
        """Returns the picture in a format that browsers display, or None if the picture was deleted.

        The picture is at most `side_px` pixels wide and high. Raises the same exceptions as `read_original`.
        """
        limits, depth_bits = PictureLimits.from_settings(self._settings.pictures), self._find_depth_bits(part)
        if side_px is None:
            return self._cached(part, side_px, account, lambda value: self._decoder.encode_for_browser(value, limits, depth_bits))
        return self._cached(part, side_px, account, lambda value: self._decoder.encode_thumbnail(value, limits, side_px, depth_bits))

    def read_pixels(self, part: PictureLocation, side_px: int, account: int | None = None) -> GreyPixels | None:
        """Returns the picture as the networks see it, shape (side_px, side_px), or None if the picture was deleted.

        Raises the same exceptions as `read_original`.
        """
        limits = PictureLimits.from_settings(self._settings.pictures)
        depth_bits = self._find_depth_bits(part)
        with self._find_account_lock(account), self._remembering_refusals(part.sha256 and (part.line, part.sha256, "pixels")):
            value = self.read_original(part)
            return None if value is None else self._decoder.decode_picture(value, side_px, limits, depth_bits).pixels

    def read_heat_map(self, address: str, account: int | None = None) -> EncodedPicture:
        """Returns the heat map at `address` of the object store as a transparent overlay for its picture.

        Raises PictureError if there is no heat map at this address, and KafkaUnavailableError if the store does not answer.
        """
        # A finding can be forged. Its address must not give access to an object of the store that is no heat map.
        if not is_heat_map_address(address):
            raise PictureError("claim-damaged", f"expected the address of a heat map, found {address[:120]!r}")
        with self._find_account_lock(account), self._remembering_refusals(address):
            try:
                value = read_object(self._settings.store.url, address, self._settings.pictures.max_bytes)
            except OSError as error:
                raise KafkaUnavailableError("The heat map cannot be read now: the store of pictures does not answer.") from error
            return self._decoder.encode_heat_map_layer(value, PictureLimits.from_settings(self._settings.pictures))

    def close(self) -> None:
        """Closes the idle Kafka connections and ends the process that converts pictures."""
        self._decoder.close()
        for _ in range(_KAFKA_READERS):
            reader = self._idle.get(timeout=_MAX_WAIT_S)
            reader.close()
            self._idle.put(reader)

    def _cached(
        self, part: PictureLocation, side_px: int | None, account: int | None, convert: Callable[[bytes], EncodedPicture]
    ) -> EncodedPicture | None:
        # The key contains the part id, not only the checksum. Otherwise a forged verdict with the checksum of a private picture would give
        # access to this picture.
        key = (part.part_key, part.sha256, side_px)
        if found := self._find_cached(key):
            return found
        with self._find_account_lock(account), self._conversion_locks[hash(key) % _CONVERSION_LOCKS]:
            if found := self._find_cached(key):
                return found
            with self._remembering_refusals(part.sha256 and (part.line, part.sha256, side_px)):
                value = self.read_original(part)
                picture = None if value is None else convert(value)
            if picture is not None and part.sha256:
                self._cache_picture(key, picture)
            return picture

    def _find_account_lock(self, account: int | None) -> AbstractContextManager[object]:
        """Returns the lock of the account. It is taken before all other locks."""
        return nullcontext() if account is None else self._account_locks.setdefault(account, threading.Lock())

    @contextmanager
    def _remembering_refusals(self, key: object) -> Iterator[None]:
        """Remembers a PictureError of the `with` block, and raises it when the same `key` comes again. An empty key is not remembered."""
        error, until_s = self._refusals.get(key, (None, 0.0))
        if error is not None and time.monotonic() < until_s:
            raise PictureError(error.reason, str(error))
        try:
            yield
        except PictureError as refusal:
            # Pictures that are missing or damaged in the store can come back.
            if key and not refusal.reason.startswith("claim"):
                with self._cache_lock:
                    self._refusals[key] = refusal.with_traceback(None), time.monotonic() + _REFUSED_S
                    self._refusals.move_to_end(key)
                    while len(self._refusals) > _MAX_REFUSALS:
                        self._refusals.popitem(last=False)
            raise

    def _find_cached(self, key: object) -> EncodedPicture | None:
        with self._cache_lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    def _cache_picture(self, key: object, picture: EncodedPicture) -> None:
        with self._cache_lock:
            self._cache[key] = picture
            self._cache_bytes += len(picture.value)
            while self._cache_bytes > _CACHE_BYTES:
                self._cache_bytes -= len(self._cache.popitem(last=False)[1].value)

    def _find_depth_bits(self, part: PictureLocation) -> int | None:
        return next((line.depth_bits for line in self._settings.lines if line.name == part.line), None)

    def _read_from_store(self, address: str) -> bytes | None:
        try:
            return read_object(self._settings.store.url, address, self._settings.pictures.max_bytes)
        except PictureError as error:
            if error.reason == CLAIM_MISSING:
                return None
            raise

    def _read_from_topic(self, part: PictureLocation) -> bytes | None:
        # The topic's name comes from a verdict, and a verdict can be forged. Read only the topic of the part's own line.
        if part.image_topic != self._names.images(part.line) or part.image_partition is None or part.image_offset is None:
            return None
        try:
            reader = self._idle.get(timeout=_MAX_WAIT_S)
        except Empty:
            raise KafkaUnavailableError("Too many pictures are requested at once. Try again in a moment.") from None
        try:
            record = reader.read(part.image_topic, part.image_partition, part.image_offset)
        finally:
            self._idle.put(reader)
        if record is None:
            return None
        _check_part(record, part)
        claim = record.headers.get("claim")
        if claim:
            return self._store.fetch(claim.decode(errors="replace"))
        return bytes(record.value or b"")


def _check_part(record: ConsumedRecord, part: PictureLocation) -> None:
    """Raises PictureError if `record` is not a picture of `part`. A forged verdict can name the place of another picture."""
    try:
        found = str(read_part_id(record.key, record.headers, part.line))
    except IdentityError as error:
        raise PictureError("claim-damaged", f"The picture in this place names no part: {error}") from None
    if found != part.part_key:
        raise PictureError("claim-damaged", f"The picture in this place belongs to part {found}, and not to part {part.part_key}.")


def read_object(store_url: str | SecretAddress, address: str, max_bytes: int) -> bytes:
    """Returns the object at `address` in the object store at `store_url`.

    Raises PictureError if the address is wrong, or if the object is missing or larger than `max_bytes`. Raises OSError if the store
    does not answer.
    """
    if not _ADDRESS.fullmatch(address):
        raise PictureError("claim-damaged", f"expected an address within the store, found {address[:120]!r}")
    with open_files(reveal(store_url)) as (files, root):
        path = f"{root}/{address}"
        if isinstance(files, LocalFileSystem) and not Path(path).resolve().is_relative_to(Path(root).resolve()):
            raise PictureError("claim-damaged", f"expected an address within the store, found a link that leads out of it: {address!r}")
        try:
            size = files.size(path)
            if size is None or size > max_bytes:
                raise PictureError("claim-damaged", f"expected at most {max_bytes} bytes at {address}, found {size}")
            value: bytes = files.cat_file(path, **limit_transfer(files, size))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise PictureError("claim-missing", f"expected an object at {address}, found none") from None
    return value


_reader: PartPictureReader | None = None
_creating = threading.Lock()


def get_picture_reader() -> PartPictureReader:
    """Returns the picture reader that all threads of this process share."""
    global _reader
    with _creating:
        if _reader is None:
            _reader = PartPictureReader(current_settings())
        return _reader
