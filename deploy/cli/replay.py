"""`castline replay`: what another version would have said of the pictures that Kafka still keeps."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from streams.errors import CastlineError
from streams.settings import load_settings


class _Moment(click.ParamType):
    """A time as in our records: RFC 3339; without an offset it is UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"expected a time such as 2026-01-31T12:00:00Z, found {value!r}", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


@click.command("replay")
@click.option("--from", "since", type=_Moment(), required=True, help="First moment, as 2026-01-31T12:00:00Z: when Kafka got the picture.")
@click.option("--to", "until", type=_Moment(), help="First moment after it.  [default: now]")
@click.option("--model", "version", required=True, help="The version that judges, below model.root of the settings.")
@click.option("--line", "line", help="One line; all lines where absent.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def command(file: Path | None, since: datetime, until: datetime | None, version: str, line: str | None, as_json: bool) -> None:
    """Judge kept pictures again with another version and list the parts it labels otherwise than their verdicts do.

    Reads the image and verdict topics and writes to none: nothing is acted on. Large pictures are fetched from the store.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from deploy.cli.replayed import Difference, replay
    from models.inference.version_ensemble import open_ensemble
    from models.registry.versions import load

    settings = load_settings(file)
    until = until or datetime.now(UTC)
    if since >= until:
        raise click.UsageError(f"expected --from before --to, found {since.isoformat()} and {until.isoformat()}")
    lines = [settings.find_line(line).name] if line is not None else [one.name for one in settings.lines]
    if not lines:
        raise CastlineError("lines: expected at least one line in the settings, found none")
    model = settings.model
    ensemble = open_ensemble(load(model.root, version), model.runtime, settings.batch.shapes, model.threads)
    columns = (TextColumn("pictures judged again"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=None)
        difference: Difference = replay(settings, lines, since, until, ensemble, lambda: progress.advance(task))
    if as_json:
        click.echo(json.dumps(asdict(difference), indent=2))
        return
    click.echo(
        f"{version} judged {difference.pictures} pictures again: {difference.same} labelled as before, {len(difference.parts)} otherwise, "
        f"{difference.without_verdict} without a verdict so far, {difference.nameless} that name no part"
    )
    for what, count in sorted(difference.changes.items()):
        click.echo(f"  {what}: {count}")
    for change in difference.parts:
        click.echo(
            f"{change.part}  {change.was.label} ({_share(change.was.probability)}, {change.was.model}) -> "
            f"{change.now.label} ({_share(change.now.probability)})"
        )


def _share(probability: float | None) -> str:
    return "unread" if probability is None else f"{probability:.3f}"
