"""The page of line settings: shows the newest picture of a line and the regions on it, and stores what a person sets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from models.inference.line_outlook import compare_settings
from models.inference.line_threshold import make_decision_rule
from models.registry import open_plant_registry
from station.accounts.access import right_required
from station.accounts.models import AuditEntry
from station.archive.models import Part
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError, send_record
from station.line_settings.line_settings_form import LineSettingsForm, LineSettingsRefusedError, describe_settings
from station.line_settings.share_estimate import estimate_share
from station.live.line_state import LivePart
from station.live.live_consumer import get_live_consumer
from station.manifests import find_manifest
from streams.errors import CastlineError, ModelError
from streams.kafka import is_reachable
from streams.live_line_settings import read_live_line_settings
from streams.record_producer import make_json_record
from streams.records import LiveLineSettings
from streams.topics import TopicNames

_SIDE_PX_WITHOUT_PICTURE = 300


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("set lines")
def change_settings(request: HttpRequest, line: str) -> HttpResponse:
    """Shows the settings of a line that can change while the line runs. A POST request stores new settings.

    If another person has changed the settings since the page was opened, stores nothing and shows a message.
    """
    # The line of the uploads is not on the wall, and has no page of settings. This page shows the newest picture of a line, and an
    # engineer is not allowed to see the uploads of other people.
    if line not in get_live_consumer().wall_lines:
        raise Http404
    assert isinstance(request.user, User)
    form, status, problems = LineSettingsForm.from_post(request.POST.dict()), 200, []
    current: LiveLineSettings | None = None
    try:
        current = _read_record(line)
        shown = LineSettingsForm.from_record(current)
        if request.method != "POST":
            form = shown
        elif form.shown_at != shown.shown_at:
            problems, status = [_describe_conflict(current)], 409
        else:
            record = form.make_record(current, line, request.user.get_username(), datetime.now(UTC))
            check_record(record)
            _publish(record, current, request.user)
            messages.success(request, f"The settings of {line} are saved. Inspectors apply them from their next batch on.")
            return redirect("line-settings", line)
    except LineSettingsRefusedError as error:
        problems, status = error.sentences, 400
    except KafkaUnavailableError as error:
        problems, status = [str(error)], 503
    part = _find_newest_part(line)
    context = {
        "line": line,
        "form": form,
        "current": current,
        "problems": problems,
        "part": part,
        "width_px": part.width_px if part else _SIDE_PX_WITHOUT_PICTURE,
        "height_px": part.height_px if part else _SIDE_PX_WITHOUT_PICTURE,
    }
    return render(request, "station/line_settings/settings.html", context, status=status)


@require_safe
@right_required("set lines")
def show_share_estimate(request: HttpRequest, line: str) -> HttpResponse:
    """Shows the estimated share of defects of a line, and what this share would change. The answer is a piece of HTML for the page."""
    if line not in get_live_consumer().wall_lines:
        raise Http404
    version = get_live_consumer().choices.find(line).version
    context: dict[str, Any] = {"version": version}
    try:
        manifest = find_manifest(version)
        if manifest is None:
            raise ModelError(f"The version {version} cannot be read. Open the page Models to see why.")
        context["current"] = current = _read_record(line)
        context["estimate"] = estimate = estimate_share(line, manifest)
        percents = {"percent": estimate.share, "low": estimate.best.low, "high": estimate.best.high}
        context |= {name: f"{100 * share:.3g}" for name, share in percents.items()} | {"taken": f"{100 * estimate.share:.10g}"}
        before = current or LiveLineSettings(line=line, set_by="", set_at=datetime.now(UTC))
        context["comparison"] = compare_settings(manifest, before, before.model_copy(update={"defect_share": estimate.share}))
    except (ModelError, KafkaUnavailableError) as error:
        context["problem"] = str(error)
    return render(request, "station/line_settings/_share_estimate.html", context)


def _read_record(line: str) -> LiveLineSettings | None:
    settings = current_settings()
    if not is_reachable(settings.bootstrap):
        raise KafkaUnavailableError("Kafka does not answer, so the settings of the line cannot be shown or saved. Try again in a moment.")
    try:
        return read_live_line_settings(settings, "station").find(line)
    except CastlineError as error:
        raise KafkaUnavailableError(f"The settings of the line cannot be read from Kafka: {error}") from error


def check_record(record: LiveLineSettings) -> None:
    """Raises LineSettingsRefusedError if the model version of the line cannot use the settings in `record`.

    If the manifest of the version cannot be read, accepts the settings without this check.
    """
    version = get_live_consumer().choices.find(record.line).version
    try:
        manifest = open_plant_registry(current_settings()).read_manifest(version)
    except ModelError:
        return
    if not manifest.voters:
        return
    try:
        make_decision_rule(manifest, record.threshold, record.defect_share, record.miss_risk)
    except ModelError as error:
        raise LineSettingsRefusedError([str(error)]) from error


def _describe_conflict(current: LiveLineSettings | None) -> str:
    by = f"{current.set_by} has changed" if current else "Somebody has removed"
    return f"{by} the settings of this line since you opened this page. Nothing was saved. Open the page again to see the new settings."


def _publish(record: LiveLineSettings, before: LiveLineSettings | None, user: User) -> None:
    """Sends the record and then writes an entry to the audit log.

    If Kafka does not confirm the record, raises KafkaUnavailableError and writes no entry.
    """
    message = make_json_record(TopicNames(current_settings().topics.prefix).lines, record.line.encode(), record, "station")
    send_record(message.topic, record.line, record.encode(), message.headers)
    AuditEntry.record(user, "line settings", record.line, before=describe_settings(before), after=describe_settings(record))


def _find_newest_part(line: str) -> LivePart | Part | None:
    consumer = get_live_consumer()
    with consumer.lock:
        recent = [part for part in consumer.lines[line].last_parts(1) if part.width_px]
    return recent[0] if recent else Part.objects.filter(line=line, width_px__gt=0).exclude(picture="").order_by("-seen_at", "-id").first()
