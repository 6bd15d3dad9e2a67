"""Measures how long the station takes for a history page when its database holds several years of data about parts.

Django's test client requests the pages. It runs the real view with its queries and templates, but sends nothing over a network.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr

from station.configuration import configure
from streams.settings import LineSettings, Settings, StationSettings

ReportProgress = Callable[[str], None]

_LINES = 6
# The measurement assumes a plant with six lines. Each line makes two parts a second.
_PARTS_PER_S = 12
_LAST_PART_AT = datetime(2026, 11, 1, tzinfo=UTC)
_INSERT_SIZE = 250_000
_DEFECT_KINDS = ("blow hole", "shrinkage", "cold shut", "chipping", "flash", "scratch")
_REVIEWERS = ("anna", "berta", "carla")
_ALLOWED_MS = 300.0


@dataclass(frozen=True)
class HistoryQuery:
    """A kind of search on the history page. `make_query` returns the query string of one request, with random values."""

    name: str
    make_query: Callable[[random.Random], str]


@dataclass(frozen=True)
class PageTime:
    """How long one page took, and how much processor time this process used for the page. The time of SQLite is included."""

    ms: float
    cpu_ms: float


def prepare_database(file: Path, rows: int, report_progress: ReportProgress) -> None:
    """Configures this process as a station with the SQLite database `file`. Then adds parts until the database holds `rows` parts."""
    key = SecretStr("a measurement signs no session " * 3)
    station = StationSettings(database=str(file), secret_key=key, hosts=("testserver",))
    configure(Settings(station=station, lines=tuple(LineSettings(name=f"line-{number}") for number in range(1, _LINES + 1))))
    from django.db import connection
    from django.db.models import Max

    from station.accounts.access import create_or_update_account
    from station.archive.database import migrate_database
    from station.archive.models import Part

    migrate_database()
    create_or_update_account("bench", "operator", "a measurement logs in")
    # The numbers of parts have no gaps, so the largest number is the number of parts. Reading it is faster than counting the rows.
    existing = Part.objects.aggregate(last=Max("pk"))["last"] or 0
    if existing >= rows:
        return
    statement = _make_insert_statement(rows)
    for first in range(existing, rows, _INSERT_SIZE):
        with connection.cursor() as cursor:
            cursor.execute(statement, [first, min(first + _INSERT_SIZE, rows) - 1])
        report_progress(f"{min(first + _INSERT_SIZE, rows):,} parts made")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _make_insert_statement(rows: int) -> str:
    """Returns the SQLite statement that inserts parts. Its two parameters are the numbers of the first and the last part.

    A part with a larger number has a later time.
    """
    from station.archive.models import Part

    time = f"({int(_LAST_PART_AT.timestamp())} - ({rows} - i) / {_PARTS_PER_S})"
    # The multiplication makes values that look random: two neighbouring parts get very different values. Every run makes the same values.
    permille = "((i * 2654435761) % 1000)"
    scatter = "((i * 40503) % 997)"
    label = f"CASE WHEN {permille} < 900 THEN 'ok' WHEN {permille} < 980 THEN 'defect' ELSE 'review' END"
    probability = f"(CASE WHEN {permille} < 900 THEN 0.3 WHEN {permille} < 980 THEN 0.7 ELSE 0.45 END + 0.0003 * {scatter})"
    stamp = f"strftime('%Y-%m-%d %H:%M:%S', {time}, 'unixepoch') || printf('.%06d', (i % {_PARTS_PER_S}) * 80000 + 1)"
    is_reviewed = f"({permille} >= 985)"
    expressions = {
        "line": f"'line-' || (1 + i % {_LINES})",
        "run": f"1 + i / {_LINES * 100_000}",
        "part": f"1 + (i / {_LINES}) % 100000",
        "seen_at": stamp,
        "captured_at": stamp,
        "received_at": stamp,
        "decided_at": stamp,
        "sorted_at": stamp,
        "verdict_id": "printf('%032x', i)",
        "label": label,
        "defect_probability": probability,
        "votes": """'{"alexnet": 0.5, "lenet": 0.5}'""",
        "threshold": "0.5",
        "model": f"'version-' || (1 + i * 4 / {rows})",
        "image_topic": f"'castings.images.line-' || (1 + i % {_LINES})",
        "image_partition": "i % 4",
        "image_offset": "i / 4",
        "sha256": "printf('%064x', i)",
        "width_px": "300",
        "height_px": "300",
        "action": f"CASE WHEN {permille} < 900 THEN 'passed' ELSE 'diverted' END",
        "sorted_reason": "'verdict'",
        "kind": f"CASE WHEN {permille} < 940 OR {permille} >= 980 THEN '' ELSE {_choose_word(_DEFECT_KINDS)} END",
        "reviewer": f"CASE WHEN {is_reviewed} THEN {_choose_word(_REVIEWERS)} ELSE '' END",
        "review_label": f"CASE WHEN {is_reviewed} THEN 'defect' ELSE '' END",
    }
    columns = [field for field in Part._meta.concrete_fields if not field.primary_key]
    names = ", ".join(f'"{field.column}"' for field in columns)
    # Double every per cent sign of the expressions. Django takes a single per cent sign for the beginning of a parameter such as `%s`.
    values = ", ".join((expressions.get(field.column or "") or _make_default(field)).replace("%", "%%") for field in columns)
    numbers = "WITH RECURSIVE numbers(i) AS (SELECT %s UNION ALL SELECT i + 1 FROM numbers WHERE i < %s)"
    return f"INSERT INTO archive_part ({names}) {numbers} SELECT {values} FROM numbers"


def _choose_word(words: tuple[str, ...]) -> str:
    """Returns an SQL expression that chooses one of `words` for each part. All words occur equally often."""
    cases = " ".join(f"WHEN {place} THEN '{word}'" for place, word in enumerate(words))
    return f"CASE (i / 7) % {len(words)} {cases} END"


def _make_default(field: Any) -> str:
    if field.null:
        return "NULL"
    value = field.get_default()
    if isinstance(value, dict | list):
        return "'{}'" if isinstance(value, dict) else "'[]'"
    return "''" if value == "" else str(int(value))


def make_queries(rows: int) -> list[HistoryQuery]:
    """Returns the searches that are measured: each filter alone, some filters together, and one part by its id.

    Each search with a filter has two versions. The first version searches all parts, and the second only parts from before a random time.
    """
    first_part_at = _LAST_PART_AT - timedelta(seconds=rows / _PARTS_PER_S)

    def line(draw: random.Random) -> str:
        return f"line=line-{draw.randint(1, _LINES)}"

    def label(draw: random.Random) -> str:
        return f"label={draw.choice(('ok', 'defect', 'review'))}"

    def probability(draw: random.Random) -> str:
        return f"least={draw.choice(('0.5', '0.9', '0.95'))}"

    filters: dict[str, Callable[[random.Random], str]] = {
        "everything": lambda draw: "",
        "line": line,
        "label": label,
        "type": lambda draw: f"kind={draw.choice(_DEFECT_KINDS)}",
        "probability": probability,
        "probability, in doubt": lambda draw: "least=0.48&most=0.52",
        "model": lambda draw: f"model=version-{draw.randint(1, 4)}",
        "reviewer": lambda draw: f"reviewer={draw.choice(_REVIEWERS)}",
        "action": lambda draw: f"action={draw.choice(('diverted', 'passed'))}",
        "line, label": lambda draw: f"{line(draw)}&{label(draw)}",
        "line, probability": lambda draw: f"{line(draw)}&{probability(draw)}",
        "label, model": lambda draw: f"{label(draw)}&model=version-{draw.randint(1, 4)}",
        "nothing fits": lambda draw: "model=never-trained",
    }

    def add_latest_time(make_query: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
        def make(draw: random.Random) -> str:
            query = make_query(draw)
            latest = first_part_at + (_LAST_PART_AT - first_part_at) * draw.random()
            return f"{query}&to={latest:%Y-%m-%dT%H:%M:%S}"

        return make

    queries = [HistoryQuery(name, make_query) for name, make_query in filters.items()]
    queries += [HistoryQuery(f"{name}, before some time", add_latest_time(make_query)) for name, make_query in filters.items()]
    queries.append(HistoryQuery("part", lambda draw: f"part=line-{draw.randint(1, _LINES)}:1:{draw.randint(1, 1000)}"))
    return queries


def measure_pages(rows: int, requests: int, report_progress: ReportProgress) -> dict[str, Any]:
    """Requests the first two result pages of each kind of search, and measures the times. Repeats each kind of search `requests` times.

    Returns the times in milliseconds, in a form that can be written as JSON.
    """
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.get(username="bench"), "django.contrib.auth.backends.ModelBackend")
    # The first request is not counted, because the station loads templates and modules during this request.
    list(_request_pages(client, ""))
    draw = random.Random(1)
    by_query: list[dict[str, Any]] = []
    all_times: list[PageTime] = []
    for query in make_queries(rows):
        times = [time for _ in range(requests) for time in _request_pages(client, query.make_query(draw))]
        all_times += times
        by_query.append({"question": query.name, "pages": len(times), **_compute_percentiles(times)})
        report_progress(f"{query.name}: p95 {by_query[-1]['p95_ms']:.0f} ms")
    worst = max(by_query, key=lambda figures: figures["p95_ms"])
    return {
        "rows": rows,
        "pages": len(all_times),
        **_compute_percentiles(all_times),
        "worst": worst["question"],
        "worst_p95_ms": worst["p95_ms"],
        "allowed_ms": _ALLOWED_MS,
        "questions": by_query,
    }


def _request_pages(client: Any, query: str) -> Iterator[PageTime]:
    address = f"/history/?{query}"
    for _ in range(2):
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        response = client.get(address)
        yield PageTime((time.perf_counter() - start_s) * 1000, (time.process_time() - start_cpu_s) * 1000)
        if response.status_code != 200:
            raise RuntimeError(f"The station answered {address} with status {response.status_code} instead of a page.")
        older = re.search(r'href="(/history/\?[^"]*before=[^"]+)"', response.content.decode())
        if older is None:
            return
        address = unescape(older[1])


def _compute_percentiles(times: list[PageTime]) -> dict[str, float]:
    p50, p95, longest = np.percentile([time.ms for time in times], [50, 95, 100])
    cpu_p95 = np.percentile([time.cpu_ms for time in times], 95)
    figures = {"p50_ms": p50, "p95_ms": p95, "longest_ms": longest, "cpu_p95_ms": cpu_p95}
    return {name: round(float(value), 1) for name, value in figures.items()}
