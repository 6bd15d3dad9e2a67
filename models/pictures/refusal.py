"""Why a picture is refused: the words of the verdicts and metrics, and the error that carries them."""

from __future__ import annotations

from enum import StrEnum

from streams.errors import PictureError


class RefusalReason(StrEnum):
    """Why a picture cannot be judged. The values are reasons of verdicts and labels of metrics, and are never renamed.

    empty: no bytes. too-large: too many bytes. too-many-pixels: too many pixels. not-an-image: none of the accepted formats.
    truncated: an accepted format that ends too early. damaged: an accepted format whose content contradicts itself.
    depth: the grey levels do not fit the number of bits that the settings or the file name, or nothing names that number and the
    picture is dark. blank: nearly all pixels have the same grey level. partly-blank: the picture begins or ends with many rows of
    exactly one grey level, as an unfinished transfer leaves it. decoder-limits: decoding took more memory or time than uploads may use.
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
    """Returns the error for a picture that ends too early. `found` is a clause without a full stop."""
    advice = "Check that the camera's transfer is complete before the file is taken."
    return PictureError(RefusalReason.TRUNCATED, f"The picture ends too early: {found}. {advice}")


def damaged(found: str) -> PictureError:
    """Returns the error for a picture whose content contradicts itself. `found` is a clause without a full stop."""
    return PictureError(RefusalReason.DAMAGED, f"The picture is damaged: {found}. Check the camera's transfer; FTP must be in binary mode.")


def unsupported(found: str) -> PictureError:
    """Returns the error for a variant of a format that the decoder does not read. `found` is a clause without a full stop."""
    return PictureError(
        RefusalReason.DAMAGED, f"The picture cannot be read: {found}. Set the camera to JPEG, or to grey PNG or TIFF of 8 or 16 bits."
    )
