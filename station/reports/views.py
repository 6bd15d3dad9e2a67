"""The report page: the figures of a shift or a day, on the screen or printed on one sheet of paper."""

from __future__ import annotations

from datetime import date, time
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from station.accounts.access import right_required
from station.configuration import current_settings
from station.history.filters import SUPPORTED_YEARS
from station.reports.charts import make_hourly_chart, make_pareto_chart
from station.reports.report import count_period, worst_hours
from station.shifts import ShiftPeriod, adjacent_period, day_period, period_at, shift_period


@require_safe
@right_required("look")
def report(request: HttpRequest) -> HttpResponse:
    """Shows the report of the day, shift and line that the URL names. If the URL names no day and no shift, shows the current shift."""
    station = current_settings().station
    shifts, zone = station.shifts, station.zone
    lines = [line.name for line in current_settings().lines if line.name != station.upload_line]
    errors = []
    line = request.GET.get("line", "")
    if line and line not in lines:
        errors.append(f"There is no line {line[:40]!r}. This is the report of all lines.")
        line = ""
    try:
        period = _read_period(request, shifts)
    except ValueError as error:
        errors.append(f"{error} This is the report of the current shift.")
        period = period_at(timezone.now(), shifts, zone)
    counted = count_period(period, line, station.upload_line)
    context = {
        "report": counted,
        "period": period,
        "is_running": period.since <= timezone.now() < period.to,
        "line": line,
        "lines": lines,
        "shifts": shifts,
        "errors": errors,
        "pareto": make_pareto_chart(counted.all.pareto),
        "chart": make_hourly_chart(counted.hours, zone),
        "worst_hours": worst_hours(counted.hours),
        "previous": _make_url(adjacent_period(period, -1, shifts, zone), line),
        "next": _make_url(adjacent_period(period, 1, shifts, zone), line),
        "zone": station.time_zone,
        "made_at": timezone.now(),
    }
    return render(request, "station/reports/report.html", context)


def _read_period(request: HttpRequest, shifts: tuple[time, ...]) -> ShiftPeriod:
    """Returns the shift or day that the URL names, or the current shift if the URL names none.

    If the shift or day does not exist, raises ValueError with a message for the page.
    """
    zone = current_settings().station.zone
    day_text, shift_text = request.GET.get("date", ""), request.GET.get("shift", "")
    current = period_at(timezone.now(), shifts, zone)
    if not day_text and not shift_text:
        return current
    try:
        day = date.fromisoformat(day_text) if day_text else current.day
    except ValueError:
        raise ValueError(f"Day must be a date like 2026-01-31, not {day_text[:20]!r}.") from None
    if day.year not in SUPPORTED_YEARS:
        raise ValueError(f"Day must be a date from {SUPPORTED_YEARS[0]} to {SUPPORTED_YEARS[-1]}, not {day_text[:20]!r}.")
    if shift_text in ("", "day"):
        return day_period(day, shifts, zone)
    try:
        return shift_period(day, time.fromisoformat(shift_text), shifts, zone)
    except ValueError:
        known = ", ".join(f"{begin:%H:%M}" for begin in shifts) or "whole day"
        raise ValueError(f"Shift must be one of {known}, not {shift_text[:20]!r}.") from None


def _make_url(period: ShiftPeriod, line: str) -> str:
    query = {"date": period.day.isoformat(), "shift": f"{period.shift:%H:%M}" if period.shift else "day"} | ({"line": line} if line else {})
    return f"{reverse('reports')}?{urlencode(query)}"
