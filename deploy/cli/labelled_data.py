"""Holds what several commands for labelled pictures need: the option --depth-bits and two messages.

One message names the pictures that cannot be read. The other message says how many of the pictures the version has already learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from models.registry import Version
    from models.registry.manifest import Manifest
    from models.training.labelled_pictures import LabelledPictures

_HELP = "Number of bits that the camera uses in files with more than 8 bits a pixel. Example: 12 if a 12-bit camera writes 16-bit files."

DEPTH_BITS = click.option("--depth-bits", type=click.IntRange(8, 16), help=_HELP)
# The option --depth-bits for commands that judge pictures with a model version. Its default is the value from the training of the version.
DEPTH_BITS_OF_VERSION = click.option(
    "--depth-bits", type=click.IntRange(8, 16), help=f"{_HELP}  [default: as in the training of the version]"
)


def choose_depth_bits(given: int | None, manifest: Manifest) -> int | None:
    """Returns the value of --depth-bits. Without the option, returns the value that was used in the training of the version."""
    return manifest.preprocessing.depth_bits if given is None else given


def echo_unreadable(pictures: LabelledPictures) -> None:
    """Prints the files that could not be read, and the reasons, on standard error."""
    for file in pictures.unreadable:
        click.echo(f"left out: {file.path}: {file.message}", err=True)


def echo_learned(pictures: LabelledPictures, version: Version) -> None:
    """Prints a warning on standard error if the networks of `version` have learned some of `pictures`."""
    import numpy as np

    from models.training.learned_pictures import LearnedPictures, shorten_checksums

    learned = LearnedPictures.load(version, version.manifest.learned).checksums
    if count := int(np.isin(shorten_checksums(pictures.checksums), learned).sum()):
        click.echo(
            f"Warning: version {version.name} has learned {count} of the {len(pictures)} pictures, so the result is too good. Give "
            "pictures that were never used for a training.",
            err=True,
        )
