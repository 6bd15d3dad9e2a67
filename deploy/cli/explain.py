"""The command `castline explain`: draws what a model version found in one picture."""

from __future__ import annotations

import os
from pathlib import Path

import click

from deploy.cli.labelled_data import DEPTH_BITS_OF_VERSION, choose_depth_bits
from streams.errors import CastlineError, ModelError, PictureError, SettingsError


@click.command("explain")
@click.argument("picture", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PNG file to write, for example explanation.png."
)
@click.option(
    "--model",
    help="Folder of a model version, or the name of a version that comes with Castline.  [default: the version that the settings name]",
)
@DEPTH_BITS_OF_VERSION
@click.option("--runtime", default="tensorflow", show_default=True, help="Runtime that computes the networks, for example openvino.")
@click.pass_obj
def command(file: Path | None, picture: Path, out: Path, model: str | None, depth_bits: int | None, runtime: str) -> int:
    """Draw side by side what a model version found in PICTURE, and print its verdict.

    The image shows the part, its differences from good parts, the heat map, and boxes with kinds of defect. The settings of a line are not
    applied.

    Exit codes: 0 done, 2 wrong option, 3 the picture or the version cannot be used.
    """
    if out.suffix.lower() != ".png":
        raise click.BadParameter(f"{out} has the suffix {out.suffix!r}. Choose a name that ends with .png.", param_hint="--out")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from models.evaluation.explanation import explain_picture
    from models.inference.defect_locator import open_defect_locator
    from models.inference.ensemble import open_ensemble
    from models.pictures.decoder import PictureLimits, decode_picture
    from models.registry import locate_version, open_plant_registry
    from streams.atomic_file import write_atomically
    from streams.settings import load_settings

    settings = load_settings(file)
    try:
        content = picture.read_bytes()
    except OSError as error:
        raise CastlineError(f"Cannot read {picture}: {error.strerror}. Give the file of a picture.") from error
    try:
        version = locate_version(model) if model else open_plant_registry(settings).open_version(settings.model.version)
    except ModelError as error:
        raise ModelError(f"{error} Choose a version with --model.") from error
    depth_bits = choose_depth_bits(depth_bits, version.manifest)
    limits, side_px = PictureLimits.from_settings(settings.pictures), version.manifest.preprocessing.side_px
    try:
        decoded = decode_picture(content, side_px, limits, depth_bits, keep_original=version.manifest.details is not None)
    except PictureError as error:
        raise PictureError(error.reason, f"{picture} cannot be judged: {error}") from error
    detail_time_s = settings.inspector.detail_time_s
    ensemble = open_ensemble(version, runtime, (1,), detail_time_s=detail_time_s)
    explanation = explain_picture(ensemble, open_defect_locator(version, detail_time_s > 0), decoded)
    try:
        write_atomically(out, explanation.draw())
    except OSError as error:
        raise SettingsError(f"Cannot write {out}: {error.strerror}. Choose another --out.") from error
    click.echo(f"{out}: {explanation.describe()}")
    return 0
