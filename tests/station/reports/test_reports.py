"""Shift and day reports: the right hours by the plant's clock, and every part counted once."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.test import Client

from station.reports.charts import by_hour, pareto
from station.reports.counting import count
from station.reports.periods import current, day_of, neighbour, shift_of
from station.reports.tally import Group, tally, worst
from tests.station.conftest import MakePart

BERLIN = ZoneInfo("Europe/Berlin")
SHIFTS = (time(6), time(14), time(22))
DAY = date(2026, 11, 22)


def test_a_night_shift_ends_on_the_next_day() -> None:
    night = shift_of(DAY, time(22), SHIFTS, BERLIN)
    assert (night.since, night.to) == (datetime(2026, 11, 22, 21, tzinfo=UTC), datetime(2026, 11, 23, 5, tzinfo=UTC))


def test_a_day_is_all_of_its_shifts() -> None:
    day = day_of(DAY, SHIFTS, BERLIN)
    assert day.since == shift_of(DAY, time(6), SHIFTS, BERLIN).since
    assert day.to == shift_of(DAY, time(22), SHIFTS, BERLIN).to


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 28), 23), (date(2026, 10, 24), 25)])
def test_a_day_is_shorter_or_longer_where_the_clock_jumps(day: date, hours: int) -> None:
    assert len(list(day_of(day, SHIFTS, BERLIN).hours())) == hours


def test_the_current_shift_may_have_begun_yesterday() -> None:
    assert current(datetime(2026, 11, 22, 3, tzinfo=UTC), SHIFTS, BERLIN) == shift_of(date(2026, 11, 21), time(22), SHIFTS, BERLIN)
    assert current(datetime(2026, 11, 22, 3, tzinfo=UTC), (), BERLIN) == day_of(DAY, (), BERLIN)


def test_neighbours_follow_each_other_without_a_gap() -> None:
    period = shift_of(DAY, time(6), SHIFTS, BERLIN)
    for _ in range(5):
        following = neighbour(period, 1, SHIFTS, BERLIN)
        assert following.since == period.to
        assert neighbour(following, -1, SHIFTS, BERLIN) == period
        period = following
    day = day_of(DAY, SHIFTS, BERLIN)
    assert neighbour(day, 1, SHIFTS, BERLIN).since == day.to


def group(label: str, many: int, **given: object) -> Group:
    values = {"line": "line-1", "action": "", "sorted_reason": "", "late": False, "kind": "", "review_label": ""}
    return Group(label=label, many=many, **{**values, **given})  # type: ignore[arg-type]


def test_what_a_person_said_counts_before_what_the_model_said() -> None:
    found = tally(
        [
            group("ok", 90),
            group("ok", 2, review_label="defect", kind="flash"),
            group("defect", 5, kind="scratch"),
            group("defect", 1, review_label="ok", kind="scratch"),
            group("review", 2, review_label="ok"),
            group("", 4),
        ]
    )
    assert (found.parts, found.judged, found.good) == (104, 100, 93)
    assert found.pareto == [("scratch", 5, pytest.approx(5 / 7)), ("flash", 2, 1.0)]
    assert found.agreement.counts == {("ok", "defect"): 2, ("defect", "ok"): 1}


def test_late_and_unjudged_parts_are_told_apart() -> None:
    found = tally(
        [
            group("ok", 3, sorted_reason="late-verdict", action="diverted"),
            group("", 2, sorted_reason="no-verdict", action="diverted"),
            group("ok", 1, late=True, sorted_reason="no-verdict"),
        ]
    )
    assert (found.without_verdict, found.late, found.unjudged, found.diverted) == (6, 4, 2, 5)


def test_an_hour_of_few_parts_is_no_bad_hour() -> None:
    good, bad, few = (
        tally([group("ok", 99), group("defect", 1)]),
        tally([group("ok", 50), group("defect", 50)]),
        tally([group("defect", 5)]),
    )
    assert [hour for hour, _ in worst([(1, good), (2, bad), (3, few)])] == [2, 1]


def test_an_empty_report_has_empty_pictures() -> None:
    assert pareto([]).bars == []
    (alone,) = pareto([("no type named", 62, 1.0)]).bars
    assert (alone.width, alone.middle) == (64, 320), "a bar, in the middle, not a block"
    assert by_hour([], UTC).bars == []


def test_every_part_of_the_period_is_counted_once(part: MakePart) -> None:
    period = shift_of(DAY, time(6), SHIFTS, ZoneInfo("UTC"))
    for at in (period.since, period.since + timedelta(hours=3), period.to - timedelta(microseconds=1)):
        part(seen_at=at, label="defect", kind="flash", action="diverted", sorted_reason="verdict")
    part(seen_at=period.since - timedelta(microseconds=1))
    part(seen_at=period.to)
    part(seen_at=period.since, line="line-2")
    part(seen_at=period.since, line="uploads")
    found = count(period, "", "uploads")
    assert found.all.parts == 4
    assert [(name, one.parts) for name, one in found.lines] == [("line-1", 3), ("line-2", 1)]
    assert [one.parts for _, one in found.hours] == [2, 0, 0, 1, 0, 0, 0, 1]
    assert count(period, "line-1", "uploads").all.kinds == {"flash": 3}


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


@pytest.mark.parametrize(
    "address",
    ["?date=tomorrow", "?date=0001-01-01", "?date=9999-12-31", "?shift=25:00", "?date=2026-11-22&shift=07:00", "?line=%3Cscript%3E"],
)
def test_nonsense_is_answered_in_words_with_the_current_shift(operator: Client, address: str) -> None:
    answer = operator.get("/reports/" + address)
    assert answer.status_code == 200
    assert "xpected" in answer.content.decode()
    assert "<script>" not in answer.content.decode().split("<main")[1]
