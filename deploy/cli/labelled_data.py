"""What the commands that read labelled pictures share: the option --depth-bits, and the list of the files that could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from models.registry.manifest import Manifest
    from models.training.labelled_pictures import LabelledPictures

_HELP = "Number of bits that the camera uses in files with more than 8 bits a pixel. Example: 12 if a 12-bit camera writes 16-bit files."

DEPTH_BITS = click.option("--depth-bits", type=click.IntRange(8, 16), help=_HELP)
# For commands that judge pictures with a version.
DEPTH_BITS_OF_VERSION = click.option("--depth-bits", type=click.IntRange(8, 16), help=f"{_HELP}  [default: that of the version's training]")


def choose_depth_bits(given: int | None, manifest: Manifest) -> int | None:
    """Returns the value of --depth-bits, or that of the training of the version if the option is not given."""
    return manifest.preprocessing.depth_bits if given is None else given


def echo_unreadable(pictures: LabelledPictures) -> None:
    """Prints the files that could not be read, and the reasons, on standard error."""
    for file in pictures.unreadable:
        click.echo(f"left out: {file.path}: {file.message}", err=True)
