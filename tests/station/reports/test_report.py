"""The figures and charts of a report: every part is counted once, and a review overrides the verdict."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.test import Client

from station.reports.charts import make_hourly_chart, make_pareto_chart
from station.reports.report import PartGroup, add_up, count_period, worst_hours
from station.shifts import shift_period
from tests.station.conftest import MakePart

SHIFTS = (time(6), time(14), time(22))
DAY = date(2026, 11, 22)


def make_group(label: str, count: int, **given: object) -> PartGroup:
    values = {"line": "line-1", "action": "", "sorted_reason": "", "late": False, "kind": "", "review_label": ""}
    return PartGroup(label=label, count=count, **{**values, **given})  # type: ignore[arg-type]


def test_a_review_overrides_the_verdict() -> None:
    found = add_up(
        [
            make_group("ok", 90),
            make_group("ok", 2, review_label="defect", kind="flash"),
            make_group("defect", 5, kind="scratch"),
            make_group("defect", 1, review_label="ok", kind="scratch"),
            make_group("review", 2, review_label="ok"),
            make_group("", 4),
        ]
    )
    assert (found.parts, found.judged, found.good) == (104, 100, 93)
    assert found.pareto == [("scratch", 5, pytest.approx(5 / 7)), ("flash", 2, 1.0)]
    assert found.agreement.counts == {("ok", "defect"): 2, ("defect", "ok"): 1}


def test_late_verdicts_and_missing_verdicts_are_counted_apart() -> None:
    found = add_up(
        [
            make_group("ok", 3, sorted_reason="late-verdict", action="diverted"),
            make_group("", 2, sorted_reason="no-verdict", action="diverted"),
            make_group("ok", 1, late=True, sorted_reason="no-verdict"),
        ]
    )
    assert (found.sorted_without_verdict, found.late, found.without_verdict, found.diverted) == (6, 4, 2, 5)


def test_an_hour_with_few_parts_is_not_among_the_worst() -> None:
    good, bad, few = (
        add_up([make_group("ok", 99), make_group("defect", 1)]),
        add_up([make_group("ok", 50), make_group("defect", 50)]),
        add_up([make_group("defect", 5)]),
    )
    hours = [datetime(2026, 11, 22, hour, tzinfo=UTC) for hour in (1, 2, 3)]
    assert [begin.hour for begin, _ in worst_hours(zip(hours, (good, bad, few), strict=True))] == [2, 1]


def test_an_empty_report_has_empty_charts() -> None:
    assert make_pareto_chart([]).bars == []
    (alone,) = make_pareto_chart([("no type named", 62, 1.0)]).bars
    assert (alone.width, alone.middle) == (64, 320)
    assert make_hourly_chart([], UTC).bars == []


def test_every_part_of_the_period_is_counted_once(part: MakePart) -> None:
    period = shift_period(DAY, time(6), SHIFTS, ZoneInfo("UTC"))
    for at in (period.since, period.since + timedelta(hours=3), period.to - timedelta(microseconds=1)):
        part(seen_at=at, label="defect", kind="flash", action="diverted", sorted_reason="verdict")
    part(seen_at=period.since - timedelta(microseconds=1))
    part(seen_at=period.to)
    part(seen_at=period.since, line="line-2")
    part(seen_at=period.since, line="uploads")
    found = count_period(period, "", "uploads")
    assert found.all.parts == 4
    assert [(name, one.parts) for name, one in found.lines] == [("line-1", 3), ("line-2", 1)]
    assert [one.parts for _, one in found.hours] == [2, 0, 0, 1, 0, 0, 0, 1]
    assert count_period(period, "line-1", "uploads").all.defect_types == {"flash": 3}


def test_the_page_shows_the_shift(operator: Client, part: MakePart) -> None:
    for _ in range(3):
        part(label="defect", kind="cold shut")
    part(label="defect", review_label="ok", reviewer="anna")
    text = operator.get("/reports/?date=2026-11-22&shift=06:00").content.decode()
    assert "Shift report, all lines" in text
    assert "cold shut" in text
    assert '<td>defect</td><td>ok</td><td class="number">1</td>' in text
    assert 'href="/reports/?date=2026-11-21&amp;shift=22%3A00"' in text
    assert "Day report, line-1" in operator.get("/reports/?date=2026-11-22&shift=day&line=line-1").content.decode()


def test_the_page_names_parts_without_a_verdict_apart_from_the_good_ones(operator: Client, part: MakePart) -> None:
    for label, review_label in (("ok", ""), ("ok", ""), ("review", "ok"), ("defect", ""), ("", ""), ("", "ok")):
        part(label=label, review_label=review_label)
    text = operator.get("/reports/?date=2026-11-22&shift=06:00").content.decode()
    figures = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", text))
    expected = {"parts": "6", "judged": "4", "without verdict": "2", "share of good parts among judged parts": "75.00 %"}
    assert {name: figures[name] for name in expected} == expected
    header, (row,) = read_table(text, "By line")
    columns = dict(zip(header, row, strict=True))
    assert {name: columns[name] for name in ("Parts", "Judged", "Good", "Without verdict")} == {
        "Parts": "6",
        "Judged": "4",
        "Good": "3",
        "Without verdict": "2",
    }
    assert '<span class="badge">without verdict</span>' in text
    assert 'aria-label="Parts by hour: ok, review, defect, without verdict"' in text
    (footer,) = re.findall(r"<footer.*?</footer>", text, re.DOTALL)
    assert "A part is good if its review says ok." in footer
    assert "A part without a verdict never counts as good." in footer


def read_table(text: str, title: str) -> tuple[list[str], list[list[str]]]:
    """Returns the names of the columns, and the cells of each row, of the first table under the heading `title`."""
    (table,) = re.findall(rf"<h2>{title}</h2>\s*<table.*?</table>", text, re.DOTALL)
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]
    return re.findall(r"<th[^>]*>([^<]*)</th>", table), [row for row in rows if row]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?date=tomorrow", "Day must be a date like 2026-01-31"),
        ("?date=0001-01-01", "Day must be a date from 1971 to 8999"),
        ("?date=9999-12-31", "Day must be a date from 1971 to 8999"),
        ("?shift=25:00", "Shift must be one of 06:00, 14:00, 22:00"),
        ("?date=2026-11-22&shift=07:00", "Shift must be one of 06:00, 14:00, 22:00"),
        ("?line=%3Cscript%3E", "There is no line"),
    ],
)
def test_an_impossible_period_or_line_is_explained(operator: Client, query: str, sentence: str) -> None:
    response = operator.get("/reports/" + query)
    assert response.status_code == 200
    page = response.content.decode()
    assert sentence in page
    assert "<script>" not in page.split("<main")[1]
