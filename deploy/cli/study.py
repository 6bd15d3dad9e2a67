"""The command `castline study`: makes agreement studies, and shows their progress and their results."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli.station import configure_station
from streams.errors import SettingsError

if TYPE_CHECKING:
    from station.studies.kappa import Kappa
    from station.studies.models import Study

NAME = click.argument("name")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group("study")
@click.pass_obj
def command(file: Path | None) -> None:
    """Measure how well people agree with themselves, with each other and with the model (attribute agreement study).

    People label all parts several times on the page "Studies".

    Exit codes: 0 done, 2 wrong option, 3 not done because of the settings, the database or the study.
    """


@command.command("make")
@NAME
@click.option("--line", required=True, help="Name of the line whose parts are labelled.")
@click.option("--person", "people", multiple=True, required=True, help="Account of a person who labels the parts. May be repeated.")
@click.option("--rounds", type=int, default=2, show_default=True, help="How often each person labels each part.")
@click.option("--count", type=int, default=30, show_default=True, help="Number of parts to choose from the archive.")
@click.option("--part", "parts", multiple=True, help="Id of a part to use, such as line-1:7:1024, instead of --count. May be repeated.")
@click.pass_obj
def make(file: Path | None, name: str, line: str, people: tuple[str, ...], rounds: int, count: int, parts: tuple[str, ...]) -> None:
    """Make the study NAME: choose the parts that several people then label, to find out how well they agree.

    Without --part, the parts are chosen at random from all parts of which a picture was kept. If possible, half of the chosen parts have
    the verdict ok.
    """
    _open_database(file)
    from station.studies.creation import StudyPlan, make_study

    study = make_study(StudyPlan(name, line, people, rounds, count, parts), None, datetime.now(UTC))
    click.echo(f"{study.name}: {study.parts.count()} parts, {rounds} rounds. {', '.join(people)}: open the page Studies of the station.")


@command.command("list")
@click.pass_obj
def list_studies(file: Path | None) -> None:
    """List all studies with their progress."""
    _open_database(file)
    from station.studies.models import Study

    for study in Study.objects.all():
        click.echo(_describe_progress(study))


@command.command("close")
@NAME
@click.pass_obj
def close(file: Path | None, name: str) -> None:
    """Close the study NAME. It takes no more answers, and its results can be seen."""
    study = _find_study(file, name)
    from station.studies.creation import close_study

    close_study(study, None, datetime.now(UTC))
    click.echo(f"{name} is closed.")


@command.command("show")
@NAME
@AS_JSON
@click.pass_obj
def show(file: Path | None, name: str, as_json: bool) -> None:
    """Show the progress of the study NAME, and its results if it is complete or closed."""
    study = _find_study(file, name)
    from station.studies.appraisal import count_answers
    from station.studies.study_report import compute_report, describe_report, is_open_for_results

    report = compute_report(study) if is_open_for_results(study) else None
    if as_json:
        progress = {"answers": count_answers(study), "answers_of_each_person": study.rounds * study.parts.count()}
        click.echo(json.dumps({"study": name, **progress, "results": describe_report(report) if report else None}, indent=2))
        return
    click.echo(_describe_progress(study))
    if report is None:
        click.echo("The results can be seen when all people have labelled all parts, or when the study is closed.")
        return
    rows: list[tuple[str, Kappa]] = [(f"{one}, one round with another", kappa) for one, kappa in report.within]
    rows += [(f"{first} and {second}", kappa) for first, second, kappa in report.between]
    rows += [(f"{one} and the model", kappa) for one, kappa in report.with_model]
    rows += [
        ("all people together (Fleiss' kappa)", report.all_people),
        ("all people and the model together (Fleiss' kappa)", report.all_with_model),
    ]
    for title, kappa in rows:
        click.echo(f"  {title}: {_format_kappa(kappa)}")
    click.echo(f"{report.left_to_people} of {report.parts} parts were labelled neither ok nor defect by the model.")


def _open_database(file: Path | None) -> None:
    configure_station(file)
    from station.archive.database import migrate_database

    migrate_database(apply=False)


def _find_study(file: Path | None, name: str) -> Study:
    _open_database(file)
    from station.studies.models import Study

    study = Study.objects.filter(name=name).first()
    if study is None:
        known = ", ".join(Study.objects.values_list("name", flat=True)) or "none"
        raise SettingsError(f"There is no study {name[:64]!r}. Studies: {known}.")
    return study


def _describe_progress(study: Any) -> str:
    from station.studies.appraisal import count_answers

    total = study.rounds * study.parts.count()
    people = ", ".join(f"{name} {count} of {total}" for name, count in count_answers(study).items())
    return f"{study.name}: {study.line}, {'closed' if study.closed_at else 'open'}; {people}"


def _format_kappa(kappa: Kappa) -> str:
    if kappa.value is None:
        return "kappa is not defined, because there is nothing to compare or everybody gave all parts the same label"
    interval = f" (95 %: {kappa.low:.3f} to {kappa.high:.3f})" if kappa.low is not None else ""
    return f"kappa {kappa.value:.3f}{interval}, same label {kappa.agreement:.3f}, {kappa.parts} parts"
