"""What arrives at the inspector: an image record, read and decoded, or the reason why it could not be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from models.pictures.decoder import DecodedPicture, PictureLimits, decode_picture
from streams.errors import PictureError
from streams.identity import PartId, PictureIdentity, read_identity
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord
from streams.settings import LineSettings, PictureSettings


@dataclass(frozen=True)
class Arrival:
    """An image record whose part is known. Times are UTC; `deadline` is None where nothing waits for the verdict."""

    came: ConsumedRecord
    identity: PictureIdentity
    captured_at: datetime
    received_at: datetime
    deadline: datetime | None

    @property
    def part(self) -> PartId:
        return self.identity.part


@dataclass(frozen=True)
class Decoded:
    """An arrival and its picture, or the error that kept it from being one."""

    arrival: Arrival
    sha256: str
    picture: DecodedPicture | PictureError


def receive(came: ConsumedRecord, line: LineSettings, broker_time: datetime, received_at: datetime) -> Arrival:
    """The arrival of a record on the image topic of `line`.

    `broker_time`, the record's own, stands for an absent `captured_at`.
    Raises IdentityError: when no part of this line is named.
    """
    identity = read_identity(came.key, came.headers, line.name)
    captured_at = identity.captured_at or broker_time
    useful_s = line.verdict_deadline_s
    deadline = captured_at + timedelta(seconds=useful_s) if useful_s is not None else None
    return Arrival(came, identity, captured_at, received_at, deadline)


def decode_arrival(arrival: Arrival, side_px: int, limits: PictureSettings, store: ObjectStore) -> Decoded:
    """Fetches a claim check, verifies the checksum, decodes. Runs in a decoder thread; raises nothing for a bad picture."""
    value = arrival.came.value or b""
    sha256 = hashlib.sha256(value).hexdigest()
    try:
        if arrival.identity.claim is not None and not value:
            value = store.fetch(arrival.identity.claim)
            sha256 = hashlib.sha256(value).hexdigest()
        if arrival.identity.sha256 not in (None, sha256):
            raise PictureError(
                "checksum", f"expected a picture of sha256 {arrival.identity.sha256} for part {arrival.part}, found {sha256}"
            )
        picture = decode_picture(value, side_px, PictureLimits(limits.max_bytes, limits.max_pixels))
    except PictureError as error:
        return Decoded(arrival, sha256, error)
    return Decoded(arrival, sha256, picture)


def now() -> datetime:
    """The time in UTC; the one clock of the inspector's records."""
    return datetime.now(UTC)
