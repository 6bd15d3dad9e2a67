"""`castline dead-letters`: what could not be judged, and why."""

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


def _letters(file: Path | None) -> Iterator[tuple[str, Any, dict[str, str]]]:
    settings = load_settings(file)
    for record in read_to_end(settings, "dead-letters", [TopicNames(settings.topics.prefix).dead_letters]):
        headers = {name: value.decode(errors="replace") for name, value in make_header_map(record.headers).items()}
        yield f"{record.partition}@{record.offset}", record, headers


@click.group("dead-letters")
def command() -> None:
    """List and save what could not be judged. A letter is named by its place, PARTITION@OFFSET."""


@command.command("list")
@click.option("--reason", help="Only letters with this reason, such as truncated or identity.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_letters(file: Path | None, reason: str | None, as_json: bool) -> None:
    """One line for each letter: its place, when, where from, why."""
    for place, record, headers in _letters(file):
        if reason is not None and headers.get("dead-reason") != reason:
            continue
        key = (record.key or b"").decode(errors="replace")
        if as_json:
            click.echo(json.dumps({"place": place, "key": key, "bytes": len(record.value or b""), "headers": headers}))
        else:
            why = f"{headers.get('dead-reason', '?')}: {headers.get('dead-detail', '')}"
            click.echo(f"{place:>10}  {headers.get('dead-at', '')}  {headers.get('dead-topic', '')}  {key[:60] or '-'}  {why}")


@command.command("save")
@click.argument("place")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def save(file: Path | None, place: str, out: Path) -> None:
    """Write the bytes of the letter at PLACE to OUT, as they came; an existing file is not overwritten."""
    for found, record, headers in _letters(file):
        if found == place:
            try:
                with out.open("xb") as target:
                    target.write(record.value or b"")
            except OSError as error:
                raise CastlineError(f"{out}: expected a new file that can be written: {error.strerror}") from None
            click.echo(f"{out}: {len(record.value or b'')} bytes, {headers.get('dead-reason', 'no reason given')}")
            return
    raise CastlineError(f"expected a dead letter at {place}, found none; castline dead-letters list shows their places")
