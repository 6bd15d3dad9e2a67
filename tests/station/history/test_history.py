"""The history: what is found, page by page, at whatever the address says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client

from station.archive.models import Part
from station.history.filters import read_filters
from station.history.paging import Key, chosen, count, ordered, page
from tests.station.conftest import EARLIEST, MakePart


def numbers(parts: object) -> list[int]:
    return [part.part for part in parts]  # type: ignore[attr-defined]


def test_pages_go_back_and_forth_over_every_part_once(part: MakePart) -> None:
    for _ in range(23):
        part()
    seen, place, pages = [], None, []
    while True:
        found = page(read_filters({}), place, rows=10)
        seen += numbers(found.rows)
        pages.append(numbers(found.rows))
        if found.older is None:
            break
        place = found.older
    assert seen == list(range(23, 0, -1))
    back = page(read_filters({}), after=found.newer, rows=10)
    assert numbers(back.rows) == pages[1]
    assert numbers(page(read_filters({}), after=back.newer, rows=10).rows) == pages[0]


def test_parts_of_one_moment_keep_their_order_over_pages(part: MakePart) -> None:
    for _ in range(9):
        part(seen_at=EARLIEST)
    first = page(read_filters({}), rows=4)
    second = page(read_filters({}), first.older, rows=4)
    third = page(read_filters({}), second.older, rows=4)
    assert numbers([*first.rows, *second.rows, *third.rows]) == list(range(9, 0, -1))


def test_parts_that_come_in_move_no_page(part: MakePart) -> None:
    for _ in range(6):
        part()
    first = page(read_filters({}), rows=3)
    part()
    assert numbers(page(read_filters({}), first.older, rows=3).rows) == [3, 2, 1]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"line": "line-2"}, [2]),
        ({"label": "defect"}, [3]),
        ({"label": "none"}, [4]),
        ({"kind": "flash"}, [3]),
        ({"least": "0.4", "most": "0.6"}, [5]),
        ({"model": "other"}, [6]),
        ({"reviewer": "anna"}, [7]),
        ({"action": "diverted"}, [3]),
        ({"action": "passed"}, [8]),
        ({"part": "line-1:7:5"}, [5]),
        ({"line": "line-1", "label": "defect", "kind": "flash", "action": "diverted"}, [3]),
        ({"line": "line-2", "label": "defect"}, []),
        ({"since": (EARLIEST + timedelta(seconds=7)).isoformat()}, [8, 7]),
        ({"to": (EARLIEST + timedelta(seconds=2)).isoformat()}, [1]),
    ],
    ids=str,
)
def test_a_filter_finds_its_parts(part: MakePart, filters: dict[str, str], expected: list[int]) -> None:
    part()
    part(line="line-2")
    part(label="defect", kind="flash", action="diverted", defect_probability=0.9)
    part(label="", defect_probability=None, model="")
    part(defect_probability=0.5)
    part(model="other")
    part(reviewer="anna", review_label="ok")
    part(action="passed")
    wanted = read_filters(filters)
    assert wanted.wrong == {}
    assert numbers(page(wanted).rows) == expected
    assert count(wanted) == (len(expected), False)
    assert read_filters(dict(pair.split("=") for pair in wanted.query.replace("%3A", ":").replace("%2B", "+").split("&"))) == wanted


def test_a_search_that_no_index_serves_stops_and_goes_on_from_there(part: MakePart) -> None:
    wanted = part(model="rare")
    for _ in range(20):
        part()
    filters, place, looks = read_filters({"model": "rare"}), None, 0
    while not (found := page(filters, place, look=8)).rows:
        assert found.looked_to is not None
        place, looks = found.older, looks + 1
    assert (list(found.rows), looks) == ([wanted], 2)
    assert count(filters, look=8) == (0, True)


def test_where_a_search_stopped_nothing_is_passed_over_or_shown_twice(part: MakePart) -> None:
    for number in range(30):
        part(seen_at=EARLIEST, model="rare" if number % 5 == 0 else "demo")
    filters, place, seen = read_filters({"model": "rare"}), None, []
    while True:
        found = page(filters, place, look=4)
        seen += numbers(found.rows)
        if found.older is None:
            break
        place = found.older
    assert seen == [26, 21, 16, 11, 6, 1]


def test_many_parts_are_counted_up_to_a_bound(part: MakePart) -> None:
    for _ in range(12):
        part()
    assert count(read_filters({}), most=10) == (10, True)
    assert count(read_filters({}), most=12) == (12, False)


@pytest.mark.parametrize("indexed", ["kind", "reviewer", "action"])
def test_a_rare_word_is_looked_up_by_its_own_index(part: MakePart, indexed: str) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:  # a table of a few rows is read as a whole wherever that is allowed
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
    plan = ordered(chosen(read_filters({indexed: "stopped" if indexed == "action" else "x"})), newest_first=True)[:51].explain()
    assert f"part_{indexed}_seen" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


@pytest.mark.parametrize("asked", ["kind", "reviewer", "action", "label", "line", "model", "least"])
def test_parts_are_counted_and_filtered_without_being_read(part: MakePart, asked: str) -> None:
    """At twenty million parts each one that is read may be a place on a disk."""
    given = {"action": "stopped", "label": "defect", "line": "line-1", "least": "0.9"}
    parts = chosen(replace(read_filters({asked: given.get(asked, "x"), "model": "m", "least": "0.5"}), hidden="uploads"))
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
    plan = ordered(parts, newest_first=True).values("id")[:51].explain()
    assert "COVERING INDEX" in plan or "Index Only Scan" in plan, plan


def test_the_page_shows_parts_and_leads_to_their_stories(operator: Client, part: MakePart) -> None:
    one = part(label="defect", kind="scratch", defect_probability=0.971)
    text = operator.get("/history/").content.decode()
    assert f'href="/parts/line-1/7/{one.part}/"' in text
    assert "0.971" in text
    assert "scratch" in text


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("?line=LINE%201", "expected a line name"),
        ("?label=good", "expected one of ok, defect, review, none"),
        ("?least=2", "expected a probability"),
        ("?least=nan", "expected a probability"),
        ("?since=yesterday", "expected a time"),
        ("?since=0001-01-01T00:00", "expected a time"),
        ("?part=line-1:7", "expected a part id"),
        ("?part=line-1:7:99999999999999999999", "whole number"),
        ("?before=2026-11-22T06:00:00Z", "expected a place"),
        ("?before=2026-11-22T06:00:00Z~-1", "expected a place"),
        ("?before=x~" + "9" * 40, "expected a place"),
        ("?after=%00", "expected a place"),
        ("?kind=" + "x" * 4000, "expected at most"),
        ("?kind=%00", "expected at most"),
    ],
)
def test_what_cannot_be_read_is_said_in_words(operator: Client, part: MakePart, address: str, words: str) -> None:
    part()
    answer = operator.get("/history/" + address)
    assert answer.status_code == 200
    assert words in answer.content.decode()


@pytest.mark.parametrize(
    "text", ["' OR 1=1 --", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "%' ; DROP TABLE archive_part; --"]
)
@pytest.mark.parametrize("name", ["kind", "model", "reviewer", "part", "line"])
def test_hostile_words_find_nothing_and_run_nowhere(operator: Client, part: MakePart, name: str, text: str) -> None:
    part()
    answer = operator.get("/history/", {name: text})
    assert answer.status_code == 200
    body = answer.content.decode()
    assert "<script>alert" not in body
    assert "<img src=x" not in body
    assert Part.objects.count() == 1


def test_a_place_travels_through_an_address() -> None:
    key = Key(datetime(2026, 11, 22, 6, 0, 0, 123456, UTC), 17)
    assert Key.parse(str(key)) == key


def test_uploaded_pictures_are_found_by_administrators_alone(operator: Client, administrator: Client, part: MakePart) -> None:
    part(line="uploads")
    assert "uploads:7:1" not in operator.get("/history/").content.decode()
    assert "uploads:7:1" in administrator.get("/history/").content.decode()


def test_a_stranger_is_sent_to_the_log_in(visitor: Client, part: MakePart) -> None:
    part()
    for address in ("/history/", "/history/export.csv", "/history/export.parquet", "/parts/line-1/7/1/"):
        assert visitor.get(address).status_code == 302
