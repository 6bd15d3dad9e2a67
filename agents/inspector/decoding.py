"""Decodes image records: finds out which part a record belongs to, and decodes its picture or says why this is impossible."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from models.anomaly.version_scorers import DetailInspection, VersionDetails
from models.inference.ensemble import InspectedPicture
from models.pictures.decoder import DecodedPicture, PictureLimits, decode_picture
from models.pictures.part_finder import PartCheck, check_part
from models.pictures.part_reference import PartReference
from models.pictures.regions import Regions
from streams.errors import IdentityError, PictureError, drop_traceback
from streams.identity import PartId, PictureIdentity, read_part_id, read_picture_headers
from streams.object_store import ObjectStore
from streams.record_producer import HANDLING_FAILED, ConsumedRecord
from streams.record_reader import check_header_time
from streams.settings import LineSettings, PictureSettings
from streams.unreadable_batches import check_readable

# A verdict has this reason if the image record names its part correctly, but another header of the record is wrong.
WRONG_HEADER = "wrong-header"


@dataclass(frozen=True)
class ImageRecord:
    """A record of an image topic whose part is known. Times are UTC.

    - `deadline`: None if no gate waits for the verdict.
    - `depth_bits`: bits that the camera uses for a pixel, or None if unknown.
    - `header_error`: why the picture cannot be judged, if a header of the record is wrong.
    """

    source: ConsumedRecord
    identity: PictureIdentity
    captured_at: datetime
    received_at: datetime
    deadline: datetime | None
    depth_bits: int | None = None
    header_error: PictureError | None = None

    @property
    def part(self) -> PartId:
        return self.identity.part


@dataclass(frozen=True)
class DecodedImage:
    """An image record with its decoded picture, or with the decoder's error.

    - `sha256`: the checksum of the encoded picture.
    - `reference`: the limits with which the model version checks whether a picture shows the whole part.
    - `part`: the result of this check.
    - `details`: the detail template of the model version. With this template, the inspector finds small defects.
    - `inspection`: the small defects that were found.
    - `regions`: the regions of the line, or None for the whole picture. Pixels outside the regions raise no anomaly score.
    """

    record: ImageRecord
    sha256: str
    picture: DecodedPicture | PictureError
    reference: PartReference | None = None
    part: PartCheck | None = None
    details: VersionDetails | None = None
    inspection: DetailInspection | None = None
    regions: Regions | None = None

    def fits(self, side_px: int, details: VersionDetails | None = None, regions: Regions | None = None) -> bool:
        """Returns False if the image must be decoded again before a model version can judge it.

        `side_px` and `details` belong to the version, and `regions` belong to the line. A damaged picture is never decoded again.
        """
        if isinstance(self.picture, PictureError):
            return True
        return self.picture.pixels.shape[0] == side_px and self.details is details and (details is None or self.regions == regions)

    def check(self, reference: PartReference | None) -> DecodedImage:
        """Checks whether the picture shows the whole part that `reference` describes.

        Returns a copy of this image that holds the result of the check.
        """
        if self.reference is reference and (reference is None or self.part is not None):
            return self
        if reference is None or isinstance(self.picture, PictureError):
            return replace(self, reference=reference, part=None)
        return replace(self, reference=reference, part=check_part(self.picture.pixels, reference, self.picture.area))

    def search_details(self, details: VersionDetails | None, regions: Regions | None = None) -> DecodedImage:
        """Searches the picture for small defects with the detail template `details`, inside `regions`. Returns a copy with the result.

        The copy no longer holds the original pixels, to save memory.
        """
        if details is None or isinstance(self.picture, PictureError):
            return replace(self, regions=regions)
        inspection = details.inspect_decoded(self.picture, regions)
        return replace(self, picture=replace(self.picture, original=None), details=details, inspection=inspection, regions=regions)

    def as_inspected(self) -> InspectedPicture:
        """Returns the input for the networks: the decoded picture, its part, its small defects, and the mask of the pixels to inspect.

        Raises ValueError if the picture could not be decoded.
        """
        if isinstance(self.picture, PictureError):
            raise ValueError(f"The picture of part {self.record.part} could not be decoded, so it cannot be judged.")
        pixels = self.picture.pixels
        mask = None
        if self.regions is not None:
            mask = self.regions.make_square_mask(len(pixels), self.picture.width_px, self.picture.height_px)
        return InspectedPicture(pixels, self.part, self.inspection, mask)


def read_image_record(source: ConsumedRecord, line: LineSettings, broker_time: datetime, received_at: datetime) -> ImageRecord:
    """Reads an image record of `line`. If the record has no time of capture, `broker_time` is used.

    The headers `line`, `run` and `part` name the part. If another header is wrong, the result has a `header_error`, and only these three
    headers are used.

    Raises IdentityError if the record names no part of this line. Raises RecordError if the record is only a placeholder. Castline's Kafka
    client returns a placeholder if it cannot unpack a batch of records.
    """
    check_readable(source.value)
    part = read_part_id(source.key, source.headers, line.name)
    header_error = None
    try:
        identity = read_picture_headers(part, source.headers)
        check_header_time("captured_at", identity.captured_at, broker_time)
    except IdentityError as error:
        identity = read_picture_headers(part, {})
        header_error = PictureError(WRONG_HEADER, f"The record of part {part} has a wrong header: {error}")
    captured_at = identity.captured_at or broker_time
    deadline_s = line.verdict_deadline_s
    deadline = captured_at + timedelta(seconds=deadline_s) if deadline_s is not None else None
    return ImageRecord(source, identity, captured_at, received_at, deadline, line.depth_bits, header_error)


def make_handling_error(part: PartId, error: Exception) -> PictureError:
    """Returns the PictureError for a part whose record caused an unexpected error in the inspector."""
    return PictureError(HANDLING_FAILED, f"The inspector failed on the record of part {part}: {error!r}")


class PictureDecoder(Protocol):
    """A function that decodes a picture, in this process (`models.pictures.decoder.decode_picture`) or in a separate process."""

    def __call__(
        self, value: bytes, side_px: int, limits: PictureLimits, depth_bits: int | None, keep_original: bool
    ) -> DecodedPicture: ...


def find_checksum(record: ImageRecord) -> str:
    """Returns the checksum of the encoded picture. If the picture is in the object store, returns the checksum that its record claims."""
    claimed = record.identity.sha256 if record.identity.claim is not None and not record.source.value else None
    return claimed or hashlib.sha256(record.source.value or b"").hexdigest()


def decode_image(
    record: ImageRecord,
    side_px: int,
    limits: PictureSettings,
    store: ObjectStore,
    decoder: PictureDecoder = decode_picture,
    keep_original: bool = False,
) -> DecodedImage:
    """Verifies the checksum of the picture, and decodes the picture to a square with sides of `side_px` pixels.

    If the picture is bad, the result holds the error. A picture also counts as bad if the decoder fails on it in an unexpected way.

    Raises OSError if the object store does not answer.
    """
    value = record.source.value or b""
    sha256 = find_checksum(record)
    try:
        if record.header_error is not None:
            raise record.header_error
        if record.identity.claim is not None and not value:
            value = store.fetch(record.identity.claim)
            sha256 = hashlib.sha256(value).hexdigest()
        if record.identity.sha256 not in (None, sha256):
            raise PictureError(
                "checksum",
                f"The picture of part {record.part} has the SHA-256 {sha256}, but its record says {record.identity.sha256}.",
            )
        picture = decoder(value, side_px, PictureLimits.from_settings(limits), record.depth_bits, keep_original)
    except PictureError as error:
        return DecodedImage(record, sha256, drop_traceback(error))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  a picture can cause any error, and only this picture must fail
        return DecodedImage(record, sha256, make_handling_error(record.part, error))
    return DecodedImage(record, sha256, picture)


def utc_now() -> datetime:
    """Returns the current time in UTC."""
    return datetime.now(UTC)
