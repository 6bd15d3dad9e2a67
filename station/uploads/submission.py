"""Accepts uploaded pictures: limits how many an account can send, checks each picture, and sends it to Kafka.

The limits apply to the upload page and the API together.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache

from django.contrib.auth.models import User
from django.template.defaultfilters import filesizeformat

from models.pictures.decoder import PictureLimits
from models.pictures.display import PictureHeader, read_picture_header
from station.account_limits import AccountCounter
from station.accounts.models import AuditEntry
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError, send_record
from station.uploads.models import Upload, UploadRun
from streams.errors import CastlineError, PictureError, SettingsError
from streams.identity import PictureIdentity, make_headers
from streams.object_store import ObjectStore
from streams.settings import PictureSettings

# The largest number of uploads that run at the same time, from all accounts together.
MAX_CONCURRENT_REQUESTS = 32
# The largest number of uploads that run at the same time from one account.
MAX_ACCOUNT_REQUESTS = 8
_MAX_REMEMBERED_ACCOUNTS = 1000
_MINUTE_S, _DAY_S = 60.0, 86_400.0
_STATUS_BY_REASON = {"too-large": 413, "too-many-pixels": 413, "not-an-image": 415}


class UploadRefusedError(CastlineError):
    """Raised if an uploaded picture is not accepted. `status` is the HTTP status of the answer.

    The sender can try again after `retry_after_s` seconds. If another try would fail too, `retry_after_s` is 0.
    """

    def __init__(self, status: int, message: str, retry_after_s: float = 0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class RateLimiter:
    """Limits how much each account can send: `limit` pictures, pixels or bytes in `period_s` seconds. Thread-safe.

    Uses the token bucket algorithm. `clock` returns the time in seconds and must never go back.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic, period_s: float = _MINUTE_S) -> None:
        self._limit = limit
        self._clock = clock
        self._period_s = period_s
        # Maps each account to two numbers: how much the account could still send after its last request, and the time of that request.
        self._buckets: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def acquire(self, account: int, count: int = 1) -> float:
        """Subtracts `count` pictures, pixels or bytes from what the account can still send, and returns 0.

        If the account can send less than `count` now, subtracts nothing and returns the number of seconds after which it can try again.
        """
        now = self._clock()
        with self._lock:
            tokens, filled_at = self._buckets.get(account, (float(self._limit), now))
            tokens = min(self._limit, tokens + (now - filled_at) * self._limit / self._period_s)
            if tokens < count:
                self._buckets[account] = (tokens, now)
                return (min(count, self._limit) - tokens) * self._period_s / self._limit
            self._buckets[account] = (tokens - count, now)
            if len(self._buckets) > _MAX_REMEMBERED_ACCOUNTS:
                self._buckets = {key: bucket for key, bucket in self._buckets.items() if now - bucket[1] < self._period_s}
            return 0.0

    def give_back(self, account: int, count: int) -> None:
        """Undoes a call of `acquire`, so that the account can send `count` pictures, pixels or bytes more."""
        with self._lock:
            if account in self._buckets:
                tokens, filled_at = self._buckets[account]
                self._buckets[account] = (min(float(self._limit), tokens + count), filled_at)


_running_uploads = AccountCounter()


@cache
def get_rate_limiter() -> RateLimiter:
    """Returns the rate limiter that all uploads of this process share."""
    return RateLimiter(current_settings().station.uploads_per_minute)


@cache
def _get_pixel_limiter() -> RateLimiter:
    settings = current_settings()
    return RateLimiter(max(settings.station.upload_megapixels_per_minute * 1_000_000, settings.pictures.upload_pixels))


@cache
def get_byte_limiters() -> tuple[tuple[RateLimiter, str], tuple[RateLimiter, str]]:
    """Returns the rate limiters for the bytes in a minute and for the bytes in a day.

    Each limiter is in a pair with a text, such as "100 megabytes a minute".
    """
    settings = current_settings()
    per_minute, per_day = settings.station.upload_megabytes_per_minute, settings.station.upload_megabytes_per_day
    largest = settings.pictures.max_bytes
    return (
        (RateLimiter(max(per_minute * 1_000_000, largest)), f"{per_minute} megabytes a minute"),
        (RateLimiter(max(per_day * 1_000_000, largest), period_s=_DAY_S), f"{per_day} megabytes a day"),
    )


def _check_bytes(user: User, size: int) -> None:
    """Counts the bytes of a picture against the limits of the account. Raises UploadRefusedError (429) if a limit is reached."""
    for limiter, limit in get_byte_limiters():
        if wait_s := limiter.acquire(user.pk, size):
            text = f"Too many bytes: at most {limit}. Try again in {wait_s:.0f} s, or send smaller pictures."
            raise UploadRefusedError(429, text, max(1, wait_s))


def _check_pixels(user: User, pixels: int) -> None:
    """Counts the pixels of a picture against the limit of the account. Raises UploadRefusedError (429) if the limit is reached."""
    wait_s = _get_pixel_limiter().acquire(user.pk, pixels)
    if wait_s:
        megapixels = current_settings().station.upload_megapixels_per_minute
        text = f"Too many pixels: at most {megapixels} megapixels a minute. Try again in {wait_s:.0f} s, or send smaller pictures."
        raise UploadRefusedError(429, text, max(1, wait_s))


def check_rate(user: User) -> None:
    """Counts one picture against the limit of the account. Raises UploadRefusedError (429) if the account has reached its limit."""
    wait_s = get_rate_limiter().acquire(user.pk)
    if wait_s:
        raise UploadRefusedError(429, describe_rate_limit(wait_s), max(1, wait_s))


def describe_rate_limit(wait_s: float) -> str:
    """Returns the error message for an account that has sent too many pictures and must wait `wait_s` seconds."""
    return f"Too many pictures: at most {current_settings().station.uploads_per_minute} a minute. Try again in {wait_s:.0f} s."


def check_size(size: int) -> None:
    """Raises UploadRefusedError (413) if a picture of `size` bytes is larger than the setting `pictures.max_bytes` allows."""
    limit = current_settings().pictures.max_bytes
    if size > limit:
        text = f"The picture is too large: it has {_format_bytes(size)}, at most {_format_bytes(limit)} are allowed."
        raise UploadRefusedError(413, text)


@contextmanager
def upload_slot(user: User) -> Iterator[None]:
    """Counts an upload as in progress until the `with` block ends.

    Raises UploadRefusedError (503) if this account, or all accounts together, have too many uploads in progress.
    """
    with (
        _running_uploads.counted(user.pk, MAX_ACCOUNT_REQUESTS) as account_has_room,
        _running_uploads.counted("all accounts", MAX_CONCURRENT_REQUESTS if account_has_room else 0) as is_granted,
    ):
        if not is_granted:
            raise UploadRefusedError(503, "The station is busy with other pictures. Try again in a moment.", 1)
        yield


def submit(user: User, name: str, picture: bytes, by_api: bool = False) -> Upload:
    """Sends a picture to the inspectors and returns its row in the table of uploads. Waits until Kafka has confirmed the picture.

    Raises UploadRefusedError if the picture is not accepted.
    """
    settings = current_settings()
    line = settings.station.upload_line
    try:
        settings.find_line(line)
    except SettingsError:
        text = f"This plant accepts no uploads. An administrator has to add a line called {line} to castline.toml."
        raise UploadRefusedError(503, text) from None
    check_size(len(picture))
    header = _check_picture(user, picture, settings.pictures)
    upload = Upload.objects.create(
        owner=user,
        run=UploadRun.objects.get().number,
        name=_clean_name(name),
        size=len(picture),
        sha256=hashlib.sha256(picture).hexdigest(),
        content_type=header.content_type,
        width_px=header.width_px,
        height_px=header.height_px,
        by_api=by_api,
        sent_at=datetime.now(UTC),
    )
    # If Kafka does not confirm the picture, the row is deleted. No part id is used twice, because the database never reuses the number of a
    # deleted row.
    try:
        upload.image_partition, upload.image_offset = _send_to_kafka(upload, picture)
        upload.save(update_fields=["image_partition", "image_offset"])
    except KafkaUnavailableError as error:
        upload.delete()
        raise UploadRefusedError(503, str(error), 5) from None
    except OSError:
        upload.delete()
        raise UploadRefusedError(503, "The picture store does not answer. Try again in a moment.", 5) from None
    AuditEntry.record(user, "uploaded", str(upload.part_id), name=upload.name, sha256=upload.sha256, by_api=by_api)
    return upload


def _check_picture(user: User, picture: bytes, settings: PictureSettings) -> PictureHeader:
    """Checks the picture against the limits of the account, and returns its header. Raises UploadRefusedError if a check fails."""
    # Count the bytes before the picture is read. Reading takes time even for a picture that is refused afterwards.
    _check_bytes(user, len(picture))
    try:
        header = read_picture_header(picture, PictureLimits.from_settings(settings.for_uploads()))
        _check_pixels(user, header.width_px * header.height_px)
    except (PictureError, UploadRefusedError) as error:
        # A refused picture takes no room on the disks. So its bytes do not count for the limit of a day, which protects the disks. But the
        # check took computing time. So the bytes count for the limit of a minute, which protects the processors.
        _, (per_day, _) = get_byte_limiters()
        per_day.give_back(user.pk, len(picture))
        if isinstance(error, UploadRefusedError):
            raise
        raise UploadRefusedError(_STATUS_BY_REASON.get(error.reason, 422), str(error)) from None
    return header


def _send_to_kafka(upload: Upload, picture: bytes) -> tuple[int, int]:
    """Sends the picture to the image topic and returns the record's partition and offset.

    A large picture is stored in the object store, and the record holds only its address.
    """
    settings = current_settings()
    claim = None
    if len(picture) > settings.pictures.inline_bytes:
        claim, picture = ObjectStore(settings.store.url, settings.pictures.max_bytes).put(picture), b""
    identity = PictureIdentity(upload.part_id, upload.sent_at, upload.content_type, upload.sha256, claim, _make_traceparent())
    return send_record(upload.image_topic, str(upload.part_id), picture, make_headers(identity))


def _clean_name(name: str) -> str:
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:200] or "picture"


def _make_traceparent() -> str:
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"


def _format_bytes(size: int) -> str:
    return filesizeformat(size).replace("\xa0", " ")
