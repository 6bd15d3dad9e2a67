"""The Models pages: which version judges which line, the figures of each version, and the page that confirms a change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from models.registry import Manifest, Registry, open_plant_registry
from models.registry.model_card import make_model_card
from models.registry.version_report import (
    Proportion,
    list_training_curves,
    list_validation_figures,
    read_learning_curve,
    read_report,
    read_report_picture,
    read_runtime_report,
    read_training_curve,
)
from station.accounts.access import right_required
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError
from station.live.live_consumer import get_live_consumer
from station.manifests import describe_training_pictures
from station.versions.model_choice_request import (
    NO_SHADOW,
    DifferentClassesError,
    ModelAction,
    ModelChoiceRequest,
    check_request,
    compare_on_lines,
    publish_choice,
    read_current_choices,
)
from streams.errors import ModelError
from streams.model_choices import ALL_LINES, EffectiveModel, ModelChoices


@dataclass(frozen=True)
class LineModel:
    """The model versions of a line.

    - `chosen`: the model that a person chose for the line. If nobody chose a model, it is the model from the settings.
    - `running`: the version that gave the latest verdict, or "" if there is no verdict.
    - `running_at`: the time of the latest verdict.
    """

    name: str
    chosen: EffectiveModel
    running: str
    running_at: datetime | None

    @property
    def is_pending(self) -> bool:
        """True if the latest verdict on the line still comes from another version than the chosen one."""
        return bool(self.running) and self.running != self.chosen.version

    @property
    def previous_version(self) -> str:
        """The version to which the line can be rolled back, or "" if the line has no earlier version."""
        choice = self.chosen.choice
        return choice.previous[0] if choice and choice.line == self.name and choice.previous else ""


@dataclass(frozen=True)
class VersionSummary:
    """A model version in the registry, and the lines that it judges. A version with a `problem` cannot be chosen.

    `is_verified` is True if the checksums of all files are correct. In a remote registry, the checksums are checked only when a
    version is chosen, so `is_verified` is False.
    """

    name: str
    manifest: Manifest | None
    problem: str
    is_verified: bool
    lines: list[str]

    @property
    def training_pictures(self) -> int:
        """The number of pictures that the training run used, including the validation pictures."""
        return sum(self.manifest.data.pictures.values()) if self.manifest else 0

    @property
    def accuracy(self) -> Proportion | None:
        """The accuracy on the validation pictures, or None if the training run recorded no figures."""
        return dict(self.validation_figures).get("accuracy")

    @property
    def validation_figures(self) -> list[tuple[str, Proportion | None]]:
        """The names and values of the figures on the validation pictures. The list is empty if the training run recorded no figures."""
        return list_validation_figures(self.manifest) if self.manifest else []


@require_safe
@right_required("look")
def show_versions(request: HttpRequest) -> HttpResponse:
    """Shows which model is chosen for each line, and all versions in the model registry."""
    live, registry = get_live_consumer(), _open_registry()
    try:
        names, registry_problem = registry.list_names(), ""
    except ModelError as error:
        names, registry_problem = [], str(error)
    return render(
        request,
        "station/versions/versions.html",
        {
            "lines": _list_line_models(live.choices),
            "versions": [_summarise(registry, name, live.choices) for name in names],
            "connection_fault": live.connection_fault,
            "registry_problem": registry_problem,
            "all_lines": ALL_LINES,
            "no_shadow": NO_SHADOW,
        },
    )


@require_safe
@right_required("look")
def show_lines(request: HttpRequest) -> HttpResponse:
    """Shows only the table of lines, which the Models page reloads every two seconds."""
    return render(request, "station/versions/_lines.html", {"lines": _list_line_models(get_live_consumer().choices)})


@require_safe
@right_required("look")
def show_version(request: HttpRequest, version: str) -> HttpResponse:
    """Shows one version: its figures, curves and errors."""
    registry = _open_registry()
    if version not in _list_names(registry):
        raise Http404
    summary = _summarise(registry, version, get_live_consumer().choices)
    return render(
        request,
        "station/versions/version.html",
        {
            "version": summary,
            "manifest": summary.manifest,
            "training_curves": list_training_curves(registry, version),
            "report": read_report(registry, version),
            "curve": read_learning_curve(registry, version),
            "runtimes": read_runtime_report(registry, version),
        },
    )


@require_safe
@right_required("look")
def show_card(request: HttpRequest, version: str) -> HttpResponse:
    """Shows the model card of a version. With `?format=html` or `?format=md`, sends the card as a file."""
    registry = _open_registry()
    if version not in _list_names(registry):
        raise Http404
    try:
        card = make_model_card(registry, version)
    except ModelError as error:
        raise Http404(str(error)) from error
    file_format = request.GET.get("format", "")
    if file_format not in ("html", "md"):
        return render(request, "station/versions/card.html", {"card": card})
    content, kind = (card.to_html(), "text/html") if file_format == "html" else (card.to_markdown(), "text/markdown")
    response = HttpResponse(content, content_type=f"{kind}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{version}-model-card.{file_format}"'
    return response


@require_safe
@right_required("look")
def send_report_picture(request: HttpRequest, version: str, file: str) -> HttpResponse:
    """Sends a PNG from the evaluation report on a version: a curve, or a picture from the gallery of errors."""
    registry = _open_registry()
    return _send_png(read_report_picture(registry, version, file) if version in _list_names(registry) else None)


@require_safe
@right_required("look")
def send_training_curve(request: HttpRequest, version: str, file: str) -> HttpResponse:
    """Sends a PNG with the curves of a version's training."""
    registry = _open_registry()
    return _send_png(read_training_curve(registry, version, file) if version in _list_names(registry) else None)


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("choose")
def change_model(request: HttpRequest) -> HttpResponse:
    """Shows the effects of a change of the model and asks for confirmation. A POST request makes the change."""
    change = _parse_request(request)
    if change is None:
        raise Http404
    assert isinstance(request.user, User)
    context: dict[str, object] = {"change": change, "all_lines": ALL_LINES}
    status = 200
    try:
        choice = check_request(current_settings(), change, read_current_choices(), request.user.get_username(), datetime.now(UTC))
        if request.method == "POST":
            publish_choice(choice, request.user)
            lines = "all lines that have no model choice of their own" if change.line == ALL_LINES else change.line
            shadow = f", with {choice.record.shadow} as its shadow" if choice.record.shadow else ""
            messages.success(request, f"{choice.record.version} is chosen for {lines}{shadow}. Inspectors use it from their next batch on.")
            return redirect("versions")
        context |= {"choice": choice, "training_note": describe_training_pictures(choice.record.version)}
        if change.action != "shadow":
            context["comparisons"] = compare_on_lines(current_settings(), choice)
    except DifferentClassesError as error:
        context |= {"problem": str(error), "is_forceable": True}
        status = 409
    except ModelError as error:
        context["problem"] = str(error)
        status = 409
    except KafkaUnavailableError as error:
        context["problem"] = str(error)
        status = 503
    return render(request, "station/versions/change.html", context, status=status)


def _open_registry() -> Registry:
    return open_plant_registry(current_settings(), reuse_checksums=True)


def _list_names(registry: Registry) -> list[str]:
    try:
        return registry.list_names()
    except ModelError as error:
        raise Http404(str(error)) from error


def _summarise(registry: Registry, name: str, choices: ModelChoices) -> VersionSummary:
    lines = [line.name for line in current_settings().lines if choices.find(line.name).version == name]
    try:
        manifest = registry.read_manifest(name)
    except ModelError as error:
        return VersionSummary(name, None, str(error), False, lines)
    try:
        return VersionSummary(name, manifest, "", registry.check_version(name), lines)
    except ModelError as error:
        return VersionSummary(name, manifest, str(error), False, lines)


def _list_line_models(choices: ModelChoices) -> list[LineModel]:
    live = get_live_consumer()
    rows = []
    with live.lock:
        for name, state in live.lines.items():
            verdict = state.last_verdict
            rows.append(LineModel(name, choices.find(name), verdict.model if verdict else "", verdict.decided_at if verdict else None))
    return rows


def _parse_request(request: HttpRequest) -> ModelChoiceRequest | None:
    fields = request.POST if request.method == "POST" else request.GET
    action, line = fields.get("action", ""), fields.get("line", "")
    known_lines = {*(line.name for line in current_settings().lines), ALL_LINES}
    if action not in get_args(ModelAction) or line not in known_lines:
        return None
    version, force = fields.get("version", "")[:64], fields.get("force") == "yes"
    return ModelChoiceRequest(action, line, version, force)  # type: ignore[arg-type]


def _send_png(content: bytes | None) -> HttpResponse:
    if content is None:
        raise Http404
    response = HttpResponse(content, content_type="image/png")
    response["Cache-Control"] = "private, max-age=300"
    return response
