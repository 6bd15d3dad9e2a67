"""The command `castline dead-letters`: lists, saves and resends dead letters. A dead letter is a record that could not be processed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from deploy.cli.dead_letter_redrive import DeadLetter, Redrive, RedriveStep, plan_redrive, read_dead_letters
from streams.errors import CastlineError
from streams.image_topic_reader import ImageTopicReader
from streams.printable import make_printable
from streams.settings import load_settings
from streams.topics import TopicNames

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1000


@click.group("dead-letters")
def command() -> None:
    """List, save and resend dead letters. A dead letter is a record that could not be processed.

    The place of a dead letter is PARTITION@OFFSET on the topic of dead letters, such as 0@17.
    """


@command.command("list")
@click.option("--reason", help="List only dead letters with this reason, for example `truncated` or `identity`.")
@click.option("--json", "as_json", is_flag=True, help="Print a line with a JSON object for each dead letter.")
@click.pass_obj
def list_dead_letters(file: Path | None, reason: str | None, as_json: bool) -> None:
    """Print one line for each dead letter.

    The line shows the place and the time of the dead letter, the topic and the key of the original record, and the reason. If the record
    was sent again, the line also says when and by whom.
    """
    for letter in read_dead_letters(load_settings(file)):
        headers = letter.headers
        if reason not in (None, letter.reason):
            continue
        key = (letter.key or b"").decode(errors="replace")
        redriven = letter.describe_mark()
        if as_json:
            click.echo(json.dumps({"place": letter.place, "key": key, "bytes": letter.size, "headers": headers, "redriven": redriven}))
        else:
            explanation = f"{letter.reason or '?'}: {headers.get('dead-detail', '')}{f' ({redriven})' if redriven else ''}"
            _print_line(f"{letter.place:>10}  {headers.get('dead-at', '')}  {letter.topic}  {key[:60] or '-'}  {explanation}")


@command.command("save")
@click.argument("place")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def save(file: Path | None, place: str, out: Path) -> None:
    """Save the dead letter at PLACE, byte for byte, as the new file OUT. The command does not overwrite a file.

    If the original record was too large, the dead letter has only its first bytes.
    """
    settings = load_settings(file)
    letter = _find_letters(read_dead_letters(settings), [place])[0]
    reader = ImageTopicReader(settings, "dead-letters")
    record = reader.read(TopicNames(settings.topics.prefix).dead_letters, letter.partition, letter.offset)
    reader.close()
    content = (record.value if record else None) or b""
    try:
        with out.open("xb") as target:
            target.write(content)
    except OSError as error:
        raise CastlineError(f"Cannot write {out}: {error.strerror}. Choose another OUT.") from None
    note = f", the first of {letter.headers.get('dead-bytes')} bytes" if letter.is_cut else ""
    _print_line(f"{out}: {len(content)} bytes{note}, {letter.reason or 'no reason given'}")


@command.command("redrive")
@click.argument("places", nargs=-1, metavar="[PLACE]...")
@click.option("--reason", help="Choose the dead letters with this reason.")
@click.option("--topic", help="Choose the dead letters whose original record was on this topic, for example castings.verdicts.line-1.")
@click.option(
    "--limit",
    type=click.IntRange(1, _MAX_LIMIT),
    default=_DEFAULT_LIMIT,
    help=f"Send at most this many records.  [default: {_DEFAULT_LIMIT}]",
)
@click.option(
    "--again",
    is_flag=True,
    help="Also send the records that an interrupted call has marked but perhaps not sent. A record that you name by its PLACE is sent "
    "even if it was sent before.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def redrive(file: Path | None, places: tuple[str, ...], reason: str | None, topic: str | None, limit: int, again: bool, yes: bool) -> None:
    """Send the original records of chosen dead letters to their topics again, for example after a fault of a role was mended.

    Choose the dead letters by PLACE, by --reason or by --topic. The command first shows what it would send, and asks for confirmation.

    The command marks each record that it sends, on the topic of dead letters. A marked record is not sent a second time. A verdict that is
    sent again changes nothing if the part already has a verdict, because the archive and the gate keep the first verdict of a part.

    If this command was interrupted, a marked record was perhaps not sent. To send such records, give --again. To send a record a second
    time, give --again and its PLACE.

    Commands, choices of models, changes of line settings and reviews are never sent again. If a record was too large, its dead letter has
    only the first bytes. Such a record is sent if Kafka still has the original.
    """
    if not (places or reason or topic):
        raise click.UsageError("No dead letter is chosen. Name a PLACE, or give --reason or --topic.")
    settings = load_settings(file)
    known = read_dead_letters(settings)
    chosen = [
        letter
        for letter in (_find_letters(known, places) if places else known)
        if reason in (None, letter.reason) and topic in (None, letter.topic)
    ]
    if not chosen:
        raise CastlineError('No dead letter was found. "castline dead-letters list" shows all of them.')
    steps = plan_redrive(settings, chosen, again, places)
    letters = [step.letter for step in steps if not step.refusal]
    _show_plan(steps, limit)
    if not letters:
        click.echo("Nothing is sent.")
        return
    if not yes and not _is_confirmed(min(len(letters), limit)):
        click.echo("Nothing is sent.")
        return
    count = 0
    with Redrive(settings, settings.service.name_user(), known) as sending:
        for letter, result in sending.send(letters[:limit]):
            _print_line(f"{letter.place:>10}  {result}")
            count += not result.startswith("not sent")
    click.echo(f"{count} records were sent again.")


def _is_confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise CastlineError(f"Nothing was sent, because nobody is at a terminal to confirm. Add --yes to send {count} records again.")
    return click.confirm(f"Send {count} records again?", err=True)


def _show_plan(steps: Sequence[RedriveStep], limit: int) -> None:
    room = limit
    for step in steps:
        key = (step.letter.key or b"").decode(errors="replace")
        action = f"not sent: {step.refusal}" if step.refusal else "would be sent" if room > 0 else f"not sent: the limit is {limit}"
        room -= not step.refusal
        _print_line(f"{step.letter.place:>10}  {step.letter.topic}  {key[:60] or '-'}  {step.letter.reason or '?'}  {action}")


def _print_line(text: str) -> None:
    """Prints a line. The record can come from anybody, so characters that could control the terminal are replaced."""
    click.echo(make_printable(text))


def _find_letters(known: Sequence[DeadLetter], places: Sequence[str]) -> list[DeadLetter]:
    """Returns the dead letters at `places`. Raises CastlineError if a place has no dead letter."""
    by_place = {letter.place: letter for letter in known}
    for place in places:
        if place not in by_place:
            raise CastlineError(f'There is no dead letter at {place}. "castline dead-letters list" shows the places.')
    return [by_place[place] for place in dict.fromkeys(places)]
