"""The page of a line's golden parts, with the forms that add, show and retire a golden part."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from station.accounts.access import right_required
from station.configuration import current_settings
from station.golden_parts.golden_checks import (
    GoldenPartRefusedError,
    add_golden_part,
    list_states,
    record_showing,
    retire_golden_part,
)
from station.golden_parts.models import GoldenCheck, GoldenPart
from station.shifts import period_at

_SHOWN_CHECKS = 50


@require_http_methods(["GET", "HEAD", "POST"])
@right_required("look")
def golden_parts(request: HttpRequest, line: str) -> HttpResponse:
    """Shows the golden parts of a line and their verdicts.

    A POST request adds a golden part, retires it, or records that it was shown to the camera.
    """
    settings = current_settings()
    if line not in {one.name for one in settings.lines if one.name != settings.station.upload_line}:
        raise Http404
    now, problem = timezone.now(), ""
    if request.method == "POST":
        change = _add_or_retire if request.POST.get("action") in ("add", "retire") else _show
        try:
            return change(request, line)
        except GoldenPartRefusedError as error:
            problem = str(error)
    context = {
        "line": line,
        "states": list_states(settings, line, now),
        "checks": GoldenCheck.objects.filter(line=line).select_related("golden")[:_SHOWN_CHECKS],
        "since": period_at(now, settings.station.shifts, settings.station.zone).since,
        "problem": problem,
        "entered": request.POST,
        "part": request.POST.get("part", request.GET.get("part", ""))[:80],
    }
    return render(request, "station/golden_parts/golden_parts.html", context, status=409 if problem else 200)


@right_required("set lines")
def _add_or_retire(request: HttpRequest, line: str) -> HttpResponse:
    fields, user, now = request.POST, _get_user(request), timezone.now()
    if fields["action"] == "retire":
        golden = _find_golden_part(request, line)
        retire_golden_part(golden, user, now)
        messages.success(request, f"{golden.name} is retired.")
    else:
        name, label, picture = (fields.get(field, "").strip() for field in ("name", "label", "picture"))
        messages.success(request, f"{add_golden_part(line, name, label, picture, user, now).name} is a golden part of {line} now.")
    return redirect("golden-parts", line)


@right_required("show golden parts")
def _show(request: HttpRequest, line: str) -> HttpResponse:
    golden = _find_golden_part(request, line)
    check = record_showing(golden, request.POST.get("part", ""), _get_user(request), timezone.now())
    if not check.label:
        messages.success(request, f"Recorded: {golden.name} was shown. Its verdict is compared as soon as the archive has the verdict.")
    elif check.is_right:
        messages.success(request, f"{golden.name} has the right verdict: {check.label}.")
    else:
        messages.error(request, f"{golden.name} has the wrong verdict: {check.label} instead of {golden.label}. Call the quality engineer.")
    return redirect("golden-parts", line)


def _find_golden_part(request: HttpRequest, line: str) -> GoldenPart:
    number = request.POST.get("golden", "")
    if not number.isdecimal() or len(number) > 18:
        raise GoldenPartRefusedError("Golden part: choose a part from the list.")
    return get_object_or_404(GoldenPart, pk=int(number), line=line, retired_at=None)


def _get_user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
