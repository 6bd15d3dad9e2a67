"""The version number of the picture decoder. The manifest of a model version names the decoder version that its training used.

This module imports nothing that is slow to load.
"""

from __future__ import annotations

# Increase this number if the decoder is changed so that a file gives other grey levels.
# Since version 2, the bit depth comes from the settings or from the file.
# Since version 3, the decoder first turns a picture as its EXIF tag says, and then pads it. Besides, it no longer stretches large JPEGs
# whose width or height is not a multiple of 8.
DECODER_VERSION = 3
# Release 0.1.0 had this decoder version. Manifests of that release do not name a decoder version.
FIRST_DECODER_VERSION = 1


def describe_decoder_version(made_with: int | None) -> str:
    """Returns a warning if a model version was trained with another decoder version than this program's, else "".

    `made_with` is the decoder version in the manifest of the model version, or None if the manifest names none.
    """
    version = FIRST_DECODER_VERSION if made_with is None else made_with
    if version == DECODER_VERSION:
        return ""
    depth = (
        " Pictures with more than 8 bits or with transparency, and TIFFs in which 0 means white, may have other grey levels than in its "
        "training."
    )
    return (
        f"This version was made with picture decoder {version}, but this program has picture decoder {DECODER_VERSION}."
        f"{depth if version < 2 else ''} Pictures of two kinds may lie up to one pixel beside their place in its training: pictures that "
        "are not square and that their EXIF tag turns, and large JPEGs whose width or height is not a multiple of 8."
    )
