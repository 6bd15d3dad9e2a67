"""The history: filters, pages and counts, also with impossible and hostile queries."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from station.archive.models import Part
from station.history.filters import read_filters
from station.history.pagination import HistoryKey, count_parts, filter_parts, load_page, order
from tests.station.conftest import EARLIEST, MakePart


def numbers_of(parts: object) -> list[int]:
    return [part.part for part in parts]  # type: ignore[attr-defined]


def test_pages_go_back_and_forth_over_every_part_once(part: MakePart) -> None:
    for _ in range(23):
        part()
    shown, key, pages = [], None, []
    while True:
        found = load_page(read_filters({}), key, rows=10)
        shown += numbers_of(found.rows)
        pages.append(numbers_of(found.rows))
        if found.older is None:
            break
        key = found.older
    assert shown == list(range(23, 0, -1))
    back = load_page(read_filters({}), after=found.newer, rows=10)
    assert numbers_of(back.rows) == pages[1]
    assert numbers_of(load_page(read_filters({}), after=back.newer, rows=10).rows) == pages[0]


def test_parts_of_the_same_moment_keep_their_order_over_pages(part: MakePart) -> None:
    for _ in range(9):
        part(seen_at=EARLIEST)
    first = load_page(read_filters({}), rows=4)
    second = load_page(read_filters({}), first.older, rows=4)
    third = load_page(read_filters({}), second.older, rows=4)
    assert numbers_of([*first.rows, *second.rows, *third.rows]) == list(range(9, 0, -1))


def test_new_parts_do_not_move_the_pages(part: MakePart) -> None:
    for _ in range(6):
        part()
    first = load_page(read_filters({}), rows=3)
    part()
    assert numbers_of(load_page(read_filters({}), first.older, rows=3).rows) == [3, 2, 1]


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
    part_filters = read_filters(filters)
    assert part_filters.errors == {}
    assert numbers_of(load_page(part_filters).rows) == expected
    assert count_parts(part_filters) == (len(expected), False)
    assert (
        read_filters(dict(pair.split("=") for pair in part_filters.query.replace("%3A", ":").replace("%2B", "+").split("&")))
        == part_filters
    )


def test_a_search_without_an_index_stops_at_its_limit_and_continues_there(part: MakePart) -> None:
    rare_part = part(model="rare")
    for _ in range(20):
        part()
    filters, key, looks = read_filters({"model": "rare"}), None, 0
    while not (found := load_page(filters, key, search_limit=8)).rows:
        assert found.searched_to is not None
        key, looks = found.older, looks + 1
    assert (list(found.rows), looks) == ([rare_part], 2)
    assert count_parts(filters, search_limit=8) == (0, True)


def test_a_continued_search_skips_and_repeats_no_part(part: MakePart) -> None:
    for number in range(30):
        part(seen_at=EARLIEST, model="rare" if number % 5 == 0 else "demo")
    filters, key, shown = read_filters({"model": "rare"}), None, []
    while True:
        found = load_page(filters, key, search_limit=4)
        shown += numbers_of(found.rows)
        if found.older is None:
            break
        key = found.older
    assert shown == [26, 21, 16, 11, 6, 1]


def test_many_parts_are_counted_up_to_a_bound(part: MakePart) -> None:
    for _ in range(12):
        part()
    assert count_parts(read_filters({}), limit=10) == (10, True)
    assert count_parts(read_filters({}), limit=12) == (12, False)


@pytest.mark.parametrize("indexed", ["kind", "reviewer", "action"])
def test_a_rare_value_is_looked_up_by_its_partial_index(part: MakePart, indexed: str) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:  # a table of a few rows is read as a whole wherever that is allowed
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
    plan = order(filter_parts(read_filters({indexed: "stopped" if indexed == "action" else "x"})), newest_first=True)[:51].explain()
    assert f"part_{indexed}_seen" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


@pytest.mark.parametrize("asked", ["kind", "reviewer", "action", "label", "line", "model", "least"])
def test_parts_are_counted_and_filtered_by_an_index_alone(part: MakePart, asked: str) -> None:
    """With twenty million parts, reading each row from the table may need one disk access per row."""
    given = {"action": "stopped", "label": "defect", "line": "line-1", "least": "0.9"}
    parts = filter_parts(replace(read_filters({asked: given.get(asked, "x"), "model": "m", "least": "0.5"}), excluded_line="uploads"))
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
    plan = order(parts, newest_first=True).values("id")[:51].explain()
    assert "COVERING INDEX" in plan or "Index Only Scan" in plan, plan


def test_the_page_lists_parts_with_links(operator: Client, part: MakePart) -> None:
    one = part(label="defect", kind="scratch", defect_probability=0.971)
    text = operator.get("/history/").content.decode()
    assert f'href="/parts/line-1/7/{one.part}/"' in text
    assert "0.971" in text
    assert "scratch" in text


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?line=LINE%201", "Line must be a line name"),
        ("?label=good", "Verdict must be one of ok, defect, review, none"),
        ("?least=2", "Probability must be a number from 0 to 1"),
        ("?least=nan", "Probability must be a number from 0 to 1"),
        ("?since=yesterday", "From must be a time"),
        ("?since=0001-01-01T00:00", "From must be a time"),
        ("?part=line-1:7", "Part must be a part id"),
        ("?part=line-1:7:99999999999999999999", "Part must be a part id"),
        ("?before=2026-11-22T06:00:00Z", "This page of the history does not exist"),
        ("?before=2026-11-22T06:00:00Z~-1", "This page of the history does not exist"),
        ("?before=x~" + "9" * 40, "This page of the history does not exist"),
        ("?after=%00", "This page of the history does not exist"),
        ("?kind=" + "x" * 4000, "Type of defect must be a text of at most 150 printable characters"),
        ("?kind=%00", "Type of defect must be a text of at most 150 printable characters"),
    ],
)
def test_an_unreadable_query_is_explained(operator: Client, part: MakePart, query: str, sentence: str) -> None:
    part()
    response = operator.get("/history/" + query)
    assert response.status_code == 200
    assert sentence in response.content.decode()


@pytest.mark.parametrize(
    "text", ["' OR 1=1 --", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "%' ; DROP TABLE archive_part; --"]
)
@pytest.mark.parametrize("name", ["kind", "model", "reviewer", "part", "line"])
def test_hostile_text_is_shown_as_text(operator: Client, part: MakePart, name: str, text: str) -> None:
    part()
    answer = operator.get("/history/", {name: text})
    assert answer.status_code == 200
    body = answer.content.decode()
    assert "<script>alert" not in body
    assert "<img src=x" not in body
    assert Part.objects.count() == 1


def test_a_key_survives_being_written_and_parsed() -> None:
    key = HistoryKey(datetime(2026, 11, 22, 6, 0, 0, 123456, UTC), 17)
    assert HistoryKey.parse(str(key)) == key


def test_only_administrators_find_uploads_in_the_history(operator: Client, administrator: Client, part: MakePart) -> None:
    part(line="uploads")
    assert "uploads:7:1" not in operator.get("/history/").content.decode()
    assert "uploads:7:1" in administrator.get("/history/").content.decode()


def test_a_visitor_is_sent_to_the_log_in(visitor: Client, part: MakePart) -> None:
    part()
    for address in ("/history/", "/history/export.csv", "/history/export.parquet", "/parts/line-1/7/1/"):
        assert visitor.get(address).status_code == 302


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Asia/Tokyo", "UTC", "Pacific/Pago_Pago"])
def test_parts_with_odd_times_of_an_older_release_are_shown_in_every_zone(operator: Client, part: MakePart, zone: str) -> None:
    """Release 0.1.0 stored each time that a record had. A time in the year 9999 has no local time in a zone east of UTC."""
    for at in (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)):
        part(seen_at=at, captured_at=at, received_at=at, decided_at=at, counted_at=at, sorted_at=at, reviewed_at=at, review_label="ok")
    with timezone.override(zone):
        assert operator.get("/history/").status_code == 200
        for number in (1, 2):
            assert operator.get(f"/parts/line-1/7/{number}/").status_code == 200
        assert operator.get("/history/export.csv").status_code == 200
        assert b"".join(operator.get("/history/export.csv")).count(b"line-1:7:") == 2
