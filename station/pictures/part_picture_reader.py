"""Reads the picture of a part: from the object store if the archivist has stored the picture there, otherwise from the image topic."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, Protocol, TypeVar, cast

from fsspec.implementations.local import LocalFileSystem
from kafka.errors import KafkaError

from models.pictures.decoder import GreyPixels, PictureLimits
from models.pictures.decoder_process import DecoderProcess
from models.pictures.display import EncodedPicture
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError
from streams.errors import DecoderProcessError, IdentityError, PictureError
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
# A picture has three waits: for room in memory, for a free Kafka reader, and for other conversions of all accounts. Each wait takes at most
# this long.
_MAX_WAIT_S = 10.0
# If a picture cannot be sent because Kafka, the store or the decoder did not answer in time, the client may ask again after this time.
_RETRY_AFTER_S = 5
_TOO_MANY_PICTURES = "Too many pictures are requested at once. Try again in a moment."
_CACHE_BYTES = 48 * 2**20
_CONVERSION_LOCKS = 64
# The memory for pictures that are not converted yet has room for this many pictures of the largest allowed size (`pictures.max_bytes`).
_MAX_LARGEST_PICTURES = 8
# Of this memory, one account can use the room of this many pictures of the largest allowed size. The number is smaller than the number of
# Kafka readers, so one account cannot use all readers at the same time.
_MAX_LARGEST_OF_ACCOUNT = 3
# After the decoder has refused a picture, the station does not convert the picture again for this many seconds. A later try can succeed
# if the settings have changed.
_REFUSED_S = 600.0
_MAX_REFUSALS = 1000
# A segment of an address cannot begin with a dot, because an address with ".." would point to a file outside the store.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_ADDRESS = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{0,9}}")

Converted = TypeVar("Converted", EncodedPicture, GreyPixels)
# The key of a converted picture in the cache. The first element is the part id, or "" for a heat map. The other elements identify the
# picture and the conversion. The keys of refused conversions have no part id, because the decoder refuses the same picture for every part.
_Key = tuple[object, ...]


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


class PictureBudget:
    """Limits the memory for pictures that are not converted yet: in total, and for each account. Thread-safe.

    - `largest_bytes`: the size of the largest allowed picture.
    - `max_wait_s`: the longest time in seconds that a picture waits for room in memory.
    """

    def __init__(self, largest_bytes: int, max_wait_s: float = _MAX_WAIT_S) -> None:
        self._largest_bytes = largest_bytes
        self._max_wait_s = max_wait_s
        self._used: Counter[int | None] = Counter()
        self._waiting: Counter[int | None] = Counter()
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        return sum(self._used.values())

    @contextmanager
    def reserved(self, account: int | None) -> Iterator[Callable[[int], None]]:
        """Waits until there is room, and reserves memory for one picture of `account` until the `with` block ends.

        The size of a picture is unknown before the picture is read. So memory for the largest allowed picture is reserved first. After the
        picture was read, the caller must call the yielded function with the size of the picture. This call frees the rest of the memory.

        Raises KafkaUnavailableError if there is no room in time, for example because Kafka does not answer the readers of other pictures.
        """
        reserved_bytes = 0

        def reserve(size: int) -> None:
            nonlocal reserved_bytes
            with self._changed:
                self._used[account] += size - reserved_bytes
                self._used += Counter()  # removes accounts without pictures
                reserved_bytes = size
                self._changed.notify_all()

        with self._changed:
            self._waiting[account] += 1
            try:
                if not self._changed.wait_for(lambda: self._has_room(account), self._max_wait_s):
                    raise KafkaUnavailableError(_TOO_MANY_PICTURES)
            finally:
                self._waiting -= Counter([account])
                # This account no longer waits, so a picture of another account may now be allowed. Wake the waiting threads to check this.
                self._changed.notify_all()
            reserve(self._largest_bytes)
        try:
            yield reserve
        finally:
            reserve(0)

    def _has_room(self, account: int | None) -> bool:
        """Returns whether a picture of `account` may be read now: there is room, and no waiting account uses less memory."""
        if self._used[account] > min(self._used[waiting] for waiting in self._waiting):
            return False
        room_bytes = (_MAX_LARGEST_PICTURES - 1) * self._largest_bytes - self.used_bytes
        return room_bytes >= 0 and self._used[account] <= (_MAX_LARGEST_OF_ACCOUNT - 1) * self._largest_bytes


class PartPictureReader:
    """Reads pictures, converts them for browsers, and caches up to 48 MiB of converted pictures. Thread-safe.

    A separate process with limited memory and time converts the pictures, because a picture from a stranger can be harmful. If this process
    refuses a picture, the picture is not converted again for ten minutes.

    Several pictures of one account can be read at the same time, but only one of them is converted at a time. So an account with many
    pictures does not block the other accounts. If a picture waits too long for its conversion, the methods raise KafkaUnavailableError.
    The parameter `account` is a primary key, or None if the account is unknown.
    """

    def __init__(self, settings: Settings, max_wait_s: float = _MAX_WAIT_S) -> None:
        """`max_wait_s` is the longest time that a picture waits for room in memory, for a Kafka reader, or for other conversions."""
        self._settings = settings
        self._max_wait_s = max_wait_s
        self._names = TopicNames(settings.topics.prefix)
        self._store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
        self._decoder = DecoderProcess(settings.pictures.upload_memory_bytes, settings.pictures.upload_time_s)
        self._idle: LifoQueue[ImageTopicReader] = LifoQueue()
        for _ in range(_KAFKA_READERS):
            self._idle.put(ImageTopicReader(settings, "station"))
        self._budget = PictureBudget(settings.pictures.max_bytes, max_wait_s)
        self._cache: OrderedDict[_Key, Any] = OrderedDict()
        self._cache_bytes = 0
        self._conversion_locks = [threading.Lock() for _ in range(_CONVERSION_LOCKS)]
        self._cache_lock = threading.Lock()
        # For each refused conversion: the error, and the time until which the conversion is not repeated.
        self._refusals: OrderedDict[_Key, tuple[PictureError, float]] = OrderedDict()
        self._account_locks: dict[int, threading.Lock] = {}
        # The decoder's process converts one picture at a time, and waits without a limit for its previous picture. So each thread first
        # waits for this lock, with a limit.
        self._decoder_lock = threading.Lock()

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

        def convert(value: bytes) -> EncodedPicture:
            if side_px is None:
                return self._decoder.encode_for_browser(value, limits, depth_bits)
            return self._decoder.encode_thumbnail(value, limits, side_px, depth_bits)

        return self._convert(_make_key(part, side_px), account, lambda: self.read_original(part), convert)

    def read_pixels(self, part: PictureLocation, side_px: int, account: int | None = None) -> GreyPixels | None:
        """Returns the picture as the neural networks get it: grey levels of shape (side_px, side_px).

        Returns None if the picture was deleted. Raises the same exceptions as `read_original`.
        """
        limits, depth_bits = PictureLimits.from_settings(self._settings.pictures), self._find_depth_bits(part)

        def convert(value: bytes) -> GreyPixels:
            return self._decoder.decode_picture(value, side_px, limits, depth_bits).pixels

        return self._convert(_make_key(part, side_px, "pixels"), account, lambda: self.read_original(part), convert)

    def read_heat_map(self, address: str, account: int | None = None) -> EncodedPicture:
        """Returns the heat map at `address` in the object store, as a transparent layer that a page shows over the picture.

        Raises PictureError if there is no heat map at this address, and KafkaUnavailableError if the store does not answer.
        """
        # The address comes from a finding, and a finding can be forged. So accept only the address of a heat map.
        if not is_heat_map_address(address):
            raise PictureError("claim-damaged", f"expected the address of a heat map, found {address[:120]!r}")

        def read() -> bytes:
            try:
                return read_object(self._settings.store.url, address, self._settings.pictures.max_bytes)
            except OSError as error:
                raise KafkaUnavailableError("The heat map cannot be read now: the store of pictures does not answer.") from error

        def convert(value: bytes) -> EncodedPicture:
            return self._decoder.encode_heat_map_layer(value, PictureLimits.from_settings(self._settings.pictures))

        picture = self._convert(("", address), account, read, convert)
        assert picture is not None, "`read` never returns None"
        return picture

    def close(self) -> None:
        """Closes the idle Kafka connections and ends the process that converts pictures."""
        self._decoder.close()
        for _ in range(_KAFKA_READERS):
            reader = self._idle.get(timeout=_MAX_WAIT_S)
            reader.close()
            self._idle.put(reader)

    def _convert(
        self, key: _Key | None, account: int | None, read: Callable[[], bytes | None], convert: Callable[[bytes], Converted]
    ) -> Converted | None:
        """Reads a picture with `read` and converts it with `convert`. Returns None if the picture was deleted.

        The converted picture is cached by `key`, unless `key` is None.
        """
        found = self._find_result(key)
        if found is not None:
            return cast(Converted, found)
        with self._budget.reserved(account) as reserve:
            found = self._find_result(key)
            if found is not None:
                return cast(Converted, found)
            value = read()
            if value is None:
                return None
            reserve(len(value))
            until_s = time.monotonic() + self._max_wait_s
            with _locked(self._list_locks(key, account), until_s):
                found = self._find_result(key)
                if found is None:
                    with _locked([self._decoder_lock], until_s), self._remembering_refusals(key):
                        found = convert(value)
                    self._cache_result(key, found)
                return cast(Converted, found)

    def _list_locks(self, key: _Key | None, account: int | None) -> list[threading.Lock]:
        """Returns the locks of `account` and `key`. A thread holds them while it converts a picture.

        All threads acquire the lock of the account first, so that two threads cannot wait for each other for ever.
        """
        account_locks = [] if account is None else [self._account_locks.setdefault(account, threading.Lock())]
        return [*account_locks, self._conversion_locks[hash(key) % _CONVERSION_LOCKS]]

    def _find_result(self, key: _Key | None) -> Any | None:
        """Returns the cached result of a conversion, or None. Raises PictureError if this conversion was refused."""
        if key is None:
            return None
        error, until_s = self._refusals.get(key[1:], (None, 0.0))
        if error is not None and time.monotonic() < until_s:
            raise PictureError(error.reason, str(error))
        with self._cache_lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    @contextmanager
    def _remembering_refusals(self, key: _Key | None) -> Iterator[None]:
        """Remembers a picture that the decoder refuses in the `with` block. A failure of the decoder's process does not count."""
        try:
            yield
        except DecoderProcessError:
            raise
        except PictureError as refusal:
            if key is not None:
                with self._cache_lock:
                    self._refusals[key[1:]] = PictureError(refusal.reason, str(refusal)), time.monotonic() + _REFUSED_S
                    self._refusals.move_to_end(key[1:])
                    while len(self._refusals) > _MAX_REFUSALS:
                        self._refusals.popitem(last=False)
            raise

    def _cache_result(self, key: _Key | None, result: EncodedPicture | GreyPixels) -> None:
        if key is None:
            return
        with self._cache_lock:
            self._cache[key] = result
            self._cache_bytes += _count_bytes(result)
            while self._cache_bytes > _CACHE_BYTES:
                self._cache_bytes -= _count_bytes(self._cache.popitem(last=False)[1])

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
            reader = self._idle.get(timeout=self._max_wait_s)
        except Empty:
            raise KafkaUnavailableError(_TOO_MANY_PICTURES) from None
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


@contextmanager
def _locked(locks: Sequence[threading.Lock], until_s: float) -> Iterator[None]:
    """Holds `locks` during the `with` block. Raises KafkaUnavailableError if they are not free by the time `until_s`."""
    with ExitStack() as held:
        for lock in locks:
            if not lock.acquire(timeout=max(until_s - time.monotonic(), 0.0)):
                raise KafkaUnavailableError(_TOO_MANY_PICTURES)
            held.callback(lock.release)
        yield


def describe_refusal(error: PictureError | KafkaUnavailableError) -> tuple[int, dict[str, str]]:
    """Returns the HTTP status and the headers of the answer to a request whose picture cannot be read or converted because of `error`."""
    if isinstance(error, KafkaUnavailableError | DecoderProcessError):
        return 503, {"Retry-After": str(_RETRY_AFTER_S)}
    return 415, {}


def _make_key(part: PictureLocation, *conversion: object) -> _Key | None:
    """Returns the cache key for a conversion of the part's picture, or None if the checksum of the picture is unknown."""
    # The key contains the part id, because a verdict can be forged. A forged verdict can name the checksum of a private picture. If the
    # key were only the checksum, the cache would return this private picture.
    return (part.part_key, part.line, part.sha256, *conversion) if part.sha256 else None


def _count_bytes(result: EncodedPicture | GreyPixels) -> int:
    return len(result.value) if isinstance(result, EncodedPicture) else result.nbytes


def _check_part(record: ConsumedRecord, part: PictureLocation) -> None:
    """Raises PictureError if `record` is not a picture of `part`. A forged verdict can point to the picture of another part."""
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
