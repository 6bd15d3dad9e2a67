"""Models pages: which version judges which line, what each one can do, and changing it, with a confirmation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from station.accounts.access import right_required
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError
from station.live.live_consumer import get_live_consumer
from station.versions.choosing import NO_SHADOW, Action, OtherClassesError, Wish, carry_out, choices, consider
from station.versions.records import gallery, report, training_curve, training_curves
from station.versions.shelf import Manifest, names, read, verify
from streams.errors import ModelError
from streams.model_choices import ALL_LINES, EffectiveModel, ModelChoices


@dataclass(frozen=True)
class LineRow:
    """What is chosen for a line, and what its inspectors say they run."""

    name: str
    chosen: EffectiveModel
    running: str
    running_at: datetime | None

    @property
    def pending(self) -> bool:
        """The last verdict is by another version than the one chosen."""
        return bool(self.running) and self.running != self.chosen.version

    @property
    def back(self) -> str:
        """The version that a roll-back puts in force; empty where there is none of the line's own."""
        choice = self.chosen.choice
        return choice.previous[0] if choice and choice.line == self.name and choice.previous else ""


@dataclass(frozen=True)
class VersionRow:
    """A version on this machine; `problem` says why it cannot serve."""

    name: str
    manifest: Manifest | None
    problem: str
    lines: list[str]


@require_safe
@right_required("look")
def versions(request: HttpRequest) -> HttpResponse:
    """Lines and versions."""
    heard = get_live_consumer()
    return render(
        request,
        "station/versions/versions.html",
        {
            "lines": _line_rows(heard.choices),
            "everywhere": heard.choices.find(ALL_LINES),
            "versions": [_row(name, heard.choices) for name in names(current_settings().model.root)],
            "trouble": heard.connection_fault,
            "all_lines": ALL_LINES,
            "no_shadow": NO_SHADOW,
        },
    )


@require_safe
@right_required("look")
def lines(request: HttpRequest) -> HttpResponse:
    """The table of lines alone, for the page to renew itself."""
    heard = get_live_consumer()
    return render(request, "station/versions/_lines.html", {"lines": _line_rows(heard.choices)})


@require_safe
@right_required("look")
def version(request: HttpRequest, version: str) -> HttpResponse:
    """One version: its figures, curves and errors."""
    root = current_settings().model.root
    if version not in names(root):
        raise Http404
    row = _row(version, get_live_consumer().choices)
    return render(
        request,
        "station/versions/version.html",
        {
            "row": row,
            "manifest": row.manifest,
            "curves": training_curves(root, version),
            "report": report(root, version),
            "gallery": gallery(root, version),
        },
    )


@require_safe
@right_required("look")
def curve(request: HttpRequest, version: str, name: str) -> HttpResponse:
    """A picture that the training or the report drew: `report.png` the report's curves, `error-3.png` its third error."""
    root = current_settings().model.root
    if version not in names(root):
        raise Http404
    value = training_curve(root, version, name)
    if value is None and name == "report.png":
        value = gallery(root, version).curves
    elif value is None and name.startswith("error-") and name.endswith(".png"):
        number = name.removeprefix("error-").removesuffix(".png")
        errors = gallery(root, version).errors
        value = errors[int(number)][1] if number.isdecimal() and len(number) < 5 and int(number) < len(errors) else None
    if value is None:
        raise Http404
    response = HttpResponse(value, content_type="image/png")
    response["Cache-Control"] = "private, max-age=300"
    return response


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("choose")
def change(request: HttpRequest) -> HttpResponse:
    """Says what a change would do; does it when the person confirms."""
    wish = _wish(request)
    if wish is None:
        raise Http404
    assert isinstance(request.user, User)
    try:
        plan = consider(current_settings(), wish, choices(), request.user.get_username(), datetime.now(UTC))
        if request.method == "POST":
            carry_out(plan, request.user)
            where = "all lines without a choice of their own" if wish.line == ALL_LINES else wish.line
            beside = f", with {plan.record.shadow} in its shadow" if plan.record.shadow else ""
            messages.success(request, f"{plan.record.version} is chosen for {where}{beside}. Inspectors take it up with their next batch.")
            return redirect("versions")
    except OtherClassesError as error:
        return render(request, "station/versions/change.html", {"wish": wish, "problem": str(error), "forceable": True}, status=409)
    except ModelError as error:
        return render(request, "station/versions/change.html", {"wish": wish, "problem": str(error)}, status=409)
    except KafkaUnavailableError as error:
        return render(request, "station/versions/change.html", {"wish": wish, "problem": str(error)}, status=503)
    return render(request, "station/versions/change.html", {"wish": wish, "plan": plan, "all_lines": ALL_LINES})


def _wish(request: HttpRequest) -> Wish | None:
    given = request.POST if request.method == "POST" else request.GET
    action, line = given.get("action", ""), given.get("line", "")
    known = {*(line.name for line in current_settings().lines), ALL_LINES}
    if action not in get_args(Action) or line not in known:
        return None
    return Wish(action, line, given.get("version", "")[:64], given.get("force") == "yes")  # type: ignore[arg-type]  # one of the three


def _line_rows(chosen: ModelChoices) -> list[LineRow]:
    heard = get_live_consumer()
    rows = []
    with heard.lock:
        for name, state in heard.lines.items():
            last = state.last_verdict
            rows.append(LineRow(name, chosen.find(name), last.model if last else "", last.decided_at if last else None))
    return rows


def _row(name: str, chosen: ModelChoices) -> VersionRow:
    root = current_settings().model.root
    in_force = [line.name for line in current_settings().lines if chosen.find(line.name).version == name]
    try:
        return VersionRow(name, verify(root, name), "", in_force)
    except ModelError as error:
        problem = str(error)
    try:
        return VersionRow(name, read(root, name), problem, in_force)
    except ModelError:
        return VersionRow(name, None, problem, in_force)
