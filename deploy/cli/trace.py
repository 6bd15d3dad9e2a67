"""`castline trace`: one part's whole story."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploy.cli.part_story import as_lines, trace
from streams.errors import IdentityError
from streams.identity import PartId, format_time
from streams.settings import load_settings


@click.command("trace")
@click.argument("part")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, oldest step first.")
@click.pass_obj
def command(file: Path | None, part: str, as_json: bool) -> int:
    """Show everything that happened to PART (`line:run:part`, such as line-1:17:345), as its line's topics tell it.

    Reads the topics from their beginning, which takes a while on a full day. Exit status 1 when they hold nothing of the part.
    """
    try:
        wanted = PartId.parse(part)
    except IdentityError as error:
        raise click.UsageError(str(error)) from None
    steps = trace(load_settings(file), wanted)
    if as_json:
        click.echo(json.dumps([{"at": format_time(step.at), "what": step.what, **step.detail} for step in steps], indent=2))
    elif steps:
        click.echo("\n".join(as_lines(steps)))
    else:
        click.echo(f"nothing of {wanted} is in the topics: never seen, or older than they keep", err=True)
    return 0 if steps else 1
