"""The reasons for which a picture is refused, and functions that create the most frequent PictureErrors."""

from __future__ import annotations

from enum import StrEnum

from streams.errors import PictureError


class RefusalReason(StrEnum):
    """Why a picture cannot be judged. The values stand in verdicts and in labels of metrics, so they are never renamed.

    - empty: the file has no bytes.
    - too-large: the file has too many bytes.
    - too-many-pixels: the picture has too many pixels.
    - not-an-image: the file has none of the accepted formats.
    - truncated: the file ends too early.
    - damaged: the content of the file contradicts itself, or has a form that the decoder does not read.
    - depth: a grey level is too high for the number of bits that the settings or the file give. Or the picture is dark, and neither the
      settings nor the file say how many bits the camera uses.
    - blank: nearly all pixels have the same grey level.
    - partly-blank: many rows at the top or at the bottom have one single grey level, as after an unfinished transfer.
    - decoder-limits: decoding an uploaded picture took more memory or time than the settings allow.
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
    """Returns the error for a picture that ends too early. `found` says what is missing, as a clause without a full stop."""
    advice = "Check that the camera's transfer is complete before the file is taken."
    return PictureError(RefusalReason.TRUNCATED, f"The picture ends too early: {found}. {advice}")


def damaged(found: str) -> PictureError:
    """Returns the error for a damaged picture. `found` says what is wrong with it, as a clause without a full stop."""
    return PictureError(RefusalReason.DAMAGED, f"The picture is damaged: {found}. Check the camera's transfer; FTP must be in binary mode.")


def unsupported(found: str) -> PictureError:
    """Returns the error for a picture in a form that the decoder does not read.

    `found` says what was found, for example "the TIFF has 3 bits a sample".
    """
    return PictureError(
        RefusalReason.DAMAGED, f"The picture cannot be read: {found}. Set the camera to JPEG, or to grey PNG or TIFF of 8 or 16 bits."
    )
