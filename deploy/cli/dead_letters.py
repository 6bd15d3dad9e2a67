"""The command `castline dead-letters`: lists and saves dead letters, the records that could not be processed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from streams.errors import CastlineError
from streams.identity import make_header_map
from streams.kafka import read_to_end
from streams.settings import load_settings
from streams.topics import TopicNames


@click.group("dead-letters")
def command() -> None:
    """List and save dead letters, the records that could not be processed.

    The place of a dead letter is PARTITION@OFFSET on the topic of dead letters, such as 0@17.
    """


@command.command("list")
@click.option("--reason", help="List only dead letters with this reason, for example `truncated` or `identity`.")
@click.option("--json", "as_json", is_flag=True, help="Print a line with a JSON object for each dead letter.")
@click.pass_obj
def list_dead_letters(file: Path | None, reason: str | None, as_json: bool) -> None:
    """Print one line for each dead letter.

    The line shows the place and the time of the dead letter, the topic and the key of the original record, and the reason.
    """
    for place, record, headers in _read_dead_letters(file):
        if reason is not None and headers.get("dead-reason") != reason:
            continue
        key = (record.key or b"").decode(errors="replace")
        if as_json:
            click.echo(json.dumps({"place": place, "key": key, "bytes": len(record.value or b""), "headers": headers}))
        else:
            explanation = f"{headers.get('dead-reason', '?')}: {headers.get('dead-detail', '')}"
            click.echo(f"{place:>10}  {headers.get('dead-at', '')}  {headers.get('dead-topic', '')}  {key[:60] or '-'}  {explanation}")


@command.command("save")
@click.argument("place")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def save(file: Path | None, place: str, out: Path) -> None:
    """Save the dead letter at PLACE, byte for byte, as the new file OUT. The command does not overwrite a file."""
    for found_place, record, headers in _read_dead_letters(file):
        if found_place == place:
            content = record.value or b""
            try:
                with out.open("xb") as target:
                    target.write(content)
            except OSError as error:
                raise CastlineError(f"Cannot write {out}: {error.strerror}. Choose another OUT.") from None
            click.echo(f"{out}: {len(content)} bytes, {headers.get('dead-reason', 'no reason given')}")
            return
    raise CastlineError(f'There is no dead letter at {place}. "castline dead-letters list" shows the places.')


def _read_dead_letters(file: Path | None) -> Iterator[tuple[str, Any, dict[str, str]]]:
    """Yields three values for every dead letter: its place, its record, and its headers as text."""
    settings = load_settings(file)
    for record in read_to_end(settings, "dead-letters", [TopicNames(settings.topics.prefix).dead_letters]):
        headers = {name: value.decode(errors="replace") for name, value in make_header_map(record.headers).items()}
        yield f"{record.partition}@{record.offset}", record, headers
