"""A shift's or a day's report, made to be read on screen and printed on one sheet."""

from __future__ import annotations

from datetime import date, time
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from station.accounts.access import right_required
from station.configuration import castline
from station.history.filters import YEARS
from station.reports.charts import by_hour, pareto
from station.reports.counting import count
from station.reports.periods import Period, current, day_of, neighbour, shift_of
from station.reports.tally import worst


@require_safe
@right_required("look")
def report(request: HttpRequest) -> HttpResponse:
    """The report that the address names; the shift that runs now where it names none."""
    station = castline().station
    shifts, zone = station.shifts, station.zone
    names = [line.name for line in castline().lines if line.name != station.upload_line]
    wrong = []
    line = request.GET.get("line", "")
    if line and line not in names:
        wrong.append(f"Expected a line of {', '.join(names)}, found {line[:40]!r}.")
        line = ""
    try:
        period = _period(request, shifts)
    except ValueError as error:
        wrong.append(f"{str(error)[:200]}. This is the shift that runs now.")
        period = current(timezone.now(), shifts, zone)
    counted = count(period, line, station.upload_line)
    words = {
        "report": counted,
        "period": period,
        "running": period.since <= timezone.now() < period.to,
        "line": line,
        "lines": names,
        "shifts": shifts,
        "wrong": wrong,
        "pareto": pareto(counted.all.pareto),
        "chart": by_hour(counted.hours, zone),
        "worst": worst(counted.hours),
        "before": _address(neighbour(period, -1, shifts, zone), line),
        "after": _address(neighbour(period, 1, shifts, zone), line),
        "zone": station.time_zone,
        "made_at": timezone.now(),
    }
    return render(request, "station/reports/report.html", words)


def _period(request: HttpRequest, shifts: tuple[time, ...]) -> Period:
    zone = castline().station.zone
    day_text, shift_text = request.GET.get("date", ""), request.GET.get("shift", "")
    now = current(timezone.now(), shifts, zone)
    if not day_text and not shift_text:
        return now
    try:
        day = date.fromisoformat(day_text) if day_text else now.day
        shift = None if shift_text in ("", "day") else time.fromisoformat(shift_text)
    except ValueError:
        raise ValueError(f"Expected a date as 2026-01-31 and a shift as 06:00, found {day_text[:20]!r} and {shift_text[:20]!r}") from None
    if day.year not in YEARS:
        raise ValueError(f"Expected a year of 1971 or later, found {day.year}")
    return day_of(day, shifts, zone) if shift is None else shift_of(day, shift, shifts, zone)


def _address(period: Period, line: str) -> str:
    query = {"date": period.day.isoformat(), "shift": f"{period.shift:%H:%M}" if period.shift else "day"} | ({"line": line} if line else {})
    return f"{reverse('reports')}?{urlencode(query)}"
