"""The reasons for which a picture is refused, and functions that create the most frequent PictureErrors."""

from __future__ import annotations

from enum import StrEnum

from streams.errors import PictureError


class RefusalReason(StrEnum):
    """The reason why a picture cannot be judged. Never rename a value, because verdicts contain it.

    - empty, too-large: no bytes, or too many.
    - too-many-pixels: the picture is too large.
    - not-an-image: unknown format.
    - truncated: the file ends too early.
    - damaged: wrong content.
    - depth: the camera's number of bits is wrong or unknown.
    - blank, partly-blank: one grey level everywhere, or in many rows.
    - decoder-limits: too much memory or time.
    """

    EMPTY = "empty"
    TOO_LARGE = "too-large"
    TOO_MANY_PIXELS = "too-many-pixels"
    NOT_AN_IMAGE = "not-an-image"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    DEPTH = "depth"
    BLANK = "blank"
    PARTLY_BLANK = "partly-blank"
    DECODER_LIMITS = "decoder-limits"


def truncated(found: str) -> PictureError:
    """Returns the error for a picture that ends too early. Example of `found`: "the header of the BMP is incomplete"."""
    advice = "Check that the camera's transfer is complete before the file is taken."
    return PictureError(RefusalReason.TRUNCATED, f"The picture ends too early: {found}. {advice}")


def damaged(found: str) -> PictureError:
    """Returns the error for a damaged picture. Example of `found`: "a strip of the TIFF has 7 bytes instead of 8"."""
    return PictureError(RefusalReason.DAMAGED, f"The picture is damaged: {found}. Check the camera's transfer; FTP must be in binary mode.")


def unsupported(found: str) -> PictureError:
    """Returns the error for a picture in a form that the decoder does not read.

    `found` says what was found, for example "the TIFF has 3 bits a sample".
    """
    return PictureError(
        RefusalReason.DAMAGED, f"The picture cannot be read: {found}. Set the camera to JPEG, or to grey PNG or TIFF of 8 or 16 bits."
    )
