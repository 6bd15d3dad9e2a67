"""The command `castline gateway try`: takes some pictures from a camera and shows which of them would be refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agents.gateway.gateway import select_lines
from streams.atomic_file import write_atomically
from streams.errors import SettingsError
from streams.settings import LineSettings, load_settings

if TYPE_CHECKING:
    from deploy.camera_trial.camera_trial import TriedPicture

_DARK, _BRIGHT = 40, 215
_SPREAD_S = 0.2


@click.command("try")
@click.argument("line")
@click.option("--pictures", "count", default=10, show_default=True, type=click.IntRange(1, 1000), help="Number of pictures to take.")
@click.option(
    "--wait",
    "wait_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1, 3600),
    help="Longest wait for a picture, in seconds.",
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML page with all pictures to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def command(file: Path | None, line: str, count: int, wait_s: float, report: Path | None, as_json: bool) -> int:
    """Take some pictures from the camera of LINE, and show which of them would be refused. Stop the gateway of the line first.

    The command stores and sends nothing, and leaves the files of a drop folder where they are.

    Exit codes: 0 all pictures would be accepted, 1 a picture would be refused or is missing, 3 the camera sends no picture.
    """
    from rich.console import Console

    from deploy.camera_trial.camera_trial import open_trial_camera, try_camera

    settings = load_settings(file)
    (selected,) = select_lines(settings, [line])
    console = Console(stderr=True, highlight=False)
    taken: list[TriedPicture] = []
    was_interrupted = False
    try:
        with open_trial_camera(selected, settings, console.print) as camera, console.status(f"Waiting for {count} pictures of {line}"):
            for picture in try_camera(selected, settings, camera, count, wait_s):
                taken.append(picture)
                console.print(_describe(picture), style="red" if picture.refusal else None, markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        was_interrupted = True
    notes = _make_notes(selected, taken, count)
    if report and taken:
        _write_report(report, selected, taken, notes)
        console.print(f"The page is {report}.", markup=False, soft_wrap=True)
    _echo_result(line, taken, notes, as_json)
    if was_interrupted:
        raise click.Abort
    return 1 if len(taken) < count or any(picture.refusal for picture in taken) else 0


def _describe(picture: TriedPicture) -> str:
    if picture.refusal:
        return f"{picture.number:3}  refused, {picture.refusal} {picture.name}".rstrip()
    offset = "unknown" if picture.offset_s is None else f"{picture.offset_s:+.2f} s"
    return (
        f"{picture.number:3}  {picture.content_type.removeprefix('image/'):5} {picture.width_px} x {picture.height_px} px, {picture.mode} "
        f"{picture.depth_bits} bits, grey {picture.darkest}..{picture.brightest} mean {picture.mean:.0f}, offset {offset}"
    )


def _make_notes(line: LineSettings, pictures: Sequence[TriedPicture], count: int) -> list[str]:
    """Returns sentences about problems of the pictures, such as too little light. Each sentence says what an engineer should check."""
    notes = []
    judged = [picture for picture in pictures if picture.mean is not None]
    if len(pictures) < count:
        notes.append(f"Only {len(pictures)} of {count} pictures came.")
    if len({(picture.width_px, picture.height_px, picture.mode, picture.depth_bits) for picture in judged}) > 1:
        notes.append("The pictures differ in size, mode or depth. Check that only one camera delivers to this line.")
    dark = [str(picture.number) for picture in judged if picture.mean is not None and picture.mean < _DARK]
    bright = [str(picture.number) for picture in judged if picture.mean is not None and picture.mean > _BRIGHT]
    if dark:
        notes.append(f"Very dark: {', '.join(dark)}. Check the light, the exposure, and the depth of the camera.")
    if bright:
        notes.append(f"Very bright: {', '.join(bright)}. Check the light and the exposure.")
    if refused := [str(picture.number) for picture in pictures if picture.refusal]:
        notes.insert(0, f"Refused: {', '.join(refused)}. The reason is shown with each picture. docs/cameras.md says what to change.")
    if line.depth_bits is None and any(picture.depth_bits and picture.depth_bits > 8 for picture in judged):
        notes.append("The pictures have more than 8 bits, and depth_bits of the line is not set. Set it to the camera's number of bits.")
    offsets = [picture.offset_s for picture in pictures if picture.offset_s is not None]
    camera = line.camera
    if camera and camera.trigger == "board" and offsets and max(offsets) - min(offsets) > _SPREAD_S:
        notes.append(
            "The time offsets (seconds from capture to arrival) differ by more than 0.2 s. Check the camera's clock, or let the gateway "
            "use the time of arrival."
        )
    return notes


def _write_report(report: Path, line: LineSettings, pictures: Sequence[TriedPicture], notes: Sequence[str]) -> None:
    from deploy.camera_trial.trial_page import make_page

    camera = line.camera
    assert camera is not None
    source = {
        "drop": f"the drop folder {camera.path}",
        "folder": f"the folder {camera.path}",
        "http": "uploads",
        "video": "the video stream",
    }
    try:
        write_atomically(report, make_page(line.name, source[camera.kind], pictures, notes, datetime.now(UTC)))
    except OSError as error:
        raise SettingsError(f"Cannot write {report}: {error.strerror}. Choose another --report.") from None


def _echo_result(line: str, pictures: Sequence[TriedPicture], notes: Sequence[str], as_json: bool) -> None:
    refused = sum(bool(picture.refusal) for picture in pictures)
    if as_json:
        rows = [
            {field.name: getattr(picture, field.name) for field in fields(picture) if field.name != "thumbnail"} for picture in pictures
        ]
        click.echo(json.dumps({"line": line, "refused": refused, "notes": list(notes), "pictures": rows}, indent=2))
        return
    click.echo(f"{line}: {len(pictures)} {'picture' if len(pictures) == 1 else 'pictures'}, {refused} would be refused.")
    for note in notes:
        click.echo(note)
