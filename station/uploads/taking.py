"""A picture that a person or a program sends: looked at, numbered, given to Kafka like a camera's."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from functools import cache

from django.contrib.auth.models import User
from django.template.defaultfilters import filesizeformat

from station.configuration import castline
from station.live.sending import KafkaAway, send
from station.live.showing import look
from station.uploads.models import Upload, UploadRun
from station.uploads.pacing import Doors, Pace
from streams.errors import CastlineError, PictureError, SettingsError
from streams.identity import PartId, PictureIdentity, make_headers
from streams.object_store import ObjectStore
from streams.topics import TopicNames

_STATUS = {"too-large": 413, "too-many-pixels": 413, "not-an-image": 415}

doors = Doors()


class Refused(CastlineError):
    """A picture that was not taken. The text is fit for a page; `status` is that of HTTP; `again_s` says when to try again, 0: never."""

    def __init__(self, status: int, message: str, again_s: float = 0) -> None:
        super().__init__(message)
        self.status = status
        self.again_s = again_s


@cache
def _pace() -> Pace:
    return Pace(castline().station.uploads_per_minute)


def let_in(user: User, pictures: int = 1) -> None:
    """Counts `pictures` against the account's share. Raises Refused: when it has none left."""
    wait_s = _pace().wait_s(user.pk, pictures)
    if wait_s:
        most = castline().station.uploads_per_minute
        raise Refused(429, f"Too many pictures: at most {most} a minute. Try again in {wait_s:.0f} s.", max(1, wait_s))


def too_large(size: int) -> Refused:
    """A picture of `size` bytes, which is more than is taken."""
    most = castline().pictures.max_bytes
    return Refused(413, f"The picture is too large: it has {_megabytes(size)}, at most {_megabytes(most)} are taken.")


def take(user: User, name: str, value: bytes, by_api: bool = False) -> Upload:
    """The upload, once Kafka has confirmed the picture. Raises Refused: it was not taken, and why."""
    settings = castline()
    line = settings.station.upload_line
    try:
        settings.find_line(line)
    except SettingsError:
        raise Refused(503, f"This plant takes no uploads: castline.toml has no line called {line}.") from None
    if len(value) > settings.pictures.max_bytes:
        raise too_large(len(value))
    try:
        seen = look(value, settings.pictures)
    except PictureError as error:
        raise Refused(_STATUS.get(error.reason, 422), str(error)) from None
    now, sha256 = datetime.now(UTC), hashlib.sha256(value).hexdigest()
    upload = Upload.objects.create(
        owner=user,
        run=UploadRun.objects.get().number,
        name=_called(name),
        size=len(value),
        sha256=sha256,
        content_type=seen.content_type,
        width_px=seen.width_px,
        height_px=seen.height_px,
        by_api=by_api,
        sent_at=now,
    )
    part = part_of(upload)
    try:
        claim = None
        if len(value) > settings.pictures.inline_bytes:
            claim, value = ObjectStore(settings.store.url, settings.pictures.max_bytes).put(value), b""
        identity = PictureIdentity(part, now, seen.content_type, sha256, claim, _traceparent())
        topic = TopicNames(settings.topics.prefix).images(line)
        upload.image_partition, upload.image_offset = send(topic, str(part), value, make_headers(identity))
        upload.save(update_fields=["image_partition", "image_offset"])
    except KafkaAway as error:
        upload.delete()  # its number is never given again
        raise Refused(503, str(error), 5) from None
    except OSError:
        upload.delete()
        raise Refused(503, "The store of pictures does not answer. Try again in a moment.", 5) from None
    return upload


def part_of(upload: Upload) -> PartId:
    """The part that the picture is judged as."""
    return PartId(castline().station.upload_line, upload.run, upload.pk)


def _called(name: str) -> str:
    """A name for a page: its last segment, without what cannot be printed."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:200] or "picture"


def _traceparent() -> str:
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"


def _megabytes(size: int) -> str:
    return filesizeformat(size).replace("\xa0", " ")
