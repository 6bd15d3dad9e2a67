"""The number of the decoder's behaviour, which stands in the manifest of each model version. Imports nothing that takes time."""

from __future__ import annotations

# Raised whenever the same bytes give other grey levels. 1: release 0.1.0, which guessed the depth from the brightest pixel. 2: the depth
# comes from the settings or the file, WhiteIsZero holds for all depths, and uniform transparency is ignored.
DECODER_VERSION = 2
# Manifests that name no decoder were written by release 0.1.0.
FIRST_DECODER_VERSION = 1


def describe_decoder_version(made_with: int | None) -> str:
    """Returns a sentence about a model version made with another decoder than this program's, or "" if it is the same decoder.

    `made_with` is the number in the model version's manifest.
    """
    version = FIRST_DECODER_VERSION if made_with is None else made_with
    if version == DECODER_VERSION:
        return ""
    return (
        f"This version was made with picture decoder {version}, and this program has decoder {DECODER_VERSION}: pictures with more than "
        "8 bits, with transparency or in WhiteIsZero may have other grey levels than in its training."
    )
