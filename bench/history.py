"""How long a page of the history takes, with a table as large as years make it.

Parts are made in the database by its own arithmetic, always the same ones; then pages are asked for through Django's test
client: the real view, its queries, its templates, without the network.
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

Say = Callable[[str], None]

LINES = 6
# Six lines at two parts a second each.
PARTS_A_SECOND = 12
END = datetime(2026, 11, 1, tzinfo=UTC)
_PIECE = 250_000
_KINDS = ("blow hole", "shrinkage", "cold shut", "chipping", "flash", "scratch")
_REVIEWERS = ("anna", "berta", "carla")
_ALLOWED_MS = 300.0


@dataclass(frozen=True)
class Question:
    """What a person looks for: an address made anew for each request."""

    name: str
    ask: Callable[[random.Random], str]


@dataclass(frozen=True)
class Took:
    """One page's time, and of it the time of the processor: SQLite works in this process, so that other load does not count."""

    ms: float
    cpu_ms: float


def prepare(file: Path, rows: int, say: Say) -> None:
    """Makes this process a station process on the database `file`, with at least `rows` parts in it."""
    key = SecretStr("a measurement signs no session " * 3)
    station = StationSettings(database=str(file), secret_key=key, hosts=("testserver",))
    configure(Settings(station=station, lines=tuple(LineSettings(name=f"line-{number}") for number in range(1, LINES + 1))))
    from django.db import connection
    from django.db.models import Max

    from station.accounts.access import create_or_update_account
    from station.archive.database import migrate_database
    from station.archive.models import Part

    migrate_database()
    create_or_update_account("bench", "operator", "a measurement logs in")
    # Numbered without gaps, and not counted: that would read a whole index.
    present = Part.objects.aggregate(last=Max("pk"))["last"] or 0
    if present >= rows:
        return
    statement = _filling(rows)
    for first in range(present, rows, _PIECE):
        with connection.cursor() as cursor:
            cursor.execute(statement, [first, min(first + _PIECE, rows) - 1])
        say(f"{min(first + _PIECE, rows):,} parts made")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _filling(rows: int) -> str:
    """SQLite's statement that makes the parts numbered from its first to its second parameter, of `rows` in all."""
    from station.archive.models import Part

    at = f"({int(END.timestamp())} - ({rows} - i) / {PARTS_A_SECOND})"
    # Knuth's multiplier scatters neighbouring numbers: the same parts come out of every run.
    drawn = "((i * 2654435761) % 1000)"
    scattered = "((i * 40503) % 997)"
    label = f"CASE WHEN {drawn} < 900 THEN 'ok' WHEN {drawn} < 980 THEN 'defect' ELSE 'review' END"
    chance = f"(CASE WHEN {drawn} < 900 THEN 0.3 WHEN {drawn} < 980 THEN 0.7 ELSE 0.45 END + 0.0003 * {scattered})"
    stamp = f"strftime('%Y-%m-%d %H:%M:%S', {at}, 'unixepoch') || printf('.%06d', (i % {PARTS_A_SECOND}) * 80000 + 1)"
    reviewed = f"({drawn} >= 985)"
    said = {
        "line": f"'line-' || (1 + i % {LINES})",
        "run": f"1 + i / {LINES * 100_000}",
        "part": f"1 + (i / {LINES}) % 100000",
        "seen_at": stamp,
        "captured_at": stamp,
        "received_at": stamp,
        "decided_at": stamp,
        "sorted_at": stamp,
        "verdict_id": "printf('%032x', i)",
        "label": label,
        "defect_probability": chance,
        "votes": """'{"alexnet": 0.5, "lenet": 0.5}'""",
        "threshold": "0.5",
        "model": f"'version-' || (1 + i * 4 / {rows})",
        "image_topic": f"'castings.images.line-' || (1 + i % {LINES})",
        "image_partition": "i % 4",
        "image_offset": "i / 4",
        "sha256": "printf('%064x', i)",
        "width_px": "300",
        "height_px": "300",
        "action": f"CASE WHEN {drawn} < 900 THEN 'passed' ELSE 'diverted' END",
        "sorted_reason": "'verdict'",
        "kind": f"CASE WHEN {drawn} < 940 OR {drawn} >= 980 THEN '' ELSE {_chosen(_KINDS)} END",
        "reviewer": f"CASE WHEN {reviewed} THEN {_chosen(_REVIEWERS)} ELSE '' END",
        "review_label": f"CASE WHEN {reviewed} THEN 'defect' ELSE '' END",
    }
    columns = [field for field in Part._meta.concrete_fields if not field.primary_key]
    values = [said.get(field.column or "") or _empty(field) for field in columns]
    names = ", ".join(f'"{field.column}"' for field in columns)
    numbers = "WITH RECURSIVE numbers(i) AS (SELECT %s UNION ALL SELECT i + 1 FROM numbers WHERE i < %s)"
    # Django's placeholder is Python's: a per cent sign of SQL is written twice.
    told = ", ".join(value.replace("%", "%%") for value in values)
    return f"INSERT INTO archive_part ({names}) {numbers} SELECT {told} FROM numbers"


def _chosen(words: tuple[str, ...]) -> str:
    cases = " ".join(f"WHEN {place} THEN '{word}'" for place, word in enumerate(words))
    return f"CASE (i / 7) % {len(words)} {cases} END"


def _empty(field: Any) -> str:
    if field.null:
        return "NULL"
    value = field.get_default()
    if isinstance(value, dict | list):
        return "'{}'" if isinstance(value, dict) else "'[]'"
    return "''" if value == "" else str(int(value))


def questions(rows: int) -> list[Question]:
    """Every filter alone, some together, and all of them from any time on."""
    begin = END - timedelta(seconds=rows / PARTS_A_SECOND)

    def moment(draw: random.Random) -> str:
        return (begin + (END - begin) * draw.random()).strftime("%Y-%m-%dT%H:%M:%S")

    def line(draw: random.Random) -> str:
        return f"line=line-{draw.randint(1, LINES)}"

    def label(draw: random.Random) -> str:
        return f"label={draw.choice(('ok', 'defect', 'review'))}"

    def chance(draw: random.Random) -> str:
        return f"least={draw.choice(('0.5', '0.9', '0.95'))}"

    alone: dict[str, Callable[[random.Random], str]] = {
        "everything": lambda draw: "",
        "line": line,
        "label": label,
        "type": lambda draw: f"kind={draw.choice(_KINDS)}",
        "probability": chance,
        "probability, in doubt": lambda draw: "least=0.48&most=0.52",
        "model": lambda draw: f"model=version-{draw.randint(1, 4)}",
        "reviewer": lambda draw: f"reviewer={draw.choice(_REVIEWERS)}",
        "action": lambda draw: f"action={draw.choice(('diverted', 'passed'))}",
        "line, label": lambda draw: f"{line(draw)}&{label(draw)}",
        "line, probability": lambda draw: f"{line(draw)}&{chance(draw)}",
        "label, model": lambda draw: f"{label(draw)}&model=version-{draw.randint(1, 4)}",
        "nothing fits": lambda draw: "model=never-trained",
    }

    def until(ask: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
        return lambda draw: f"{ask(draw)}&to={moment(draw)}"

    found = [Question(name, ask) for name, ask in alone.items()]
    found += [Question(f"{name}, before some time", until(ask)) for name, ask in alone.items()]
    found.append(Question("part", lambda draw: f"part=line-{draw.randint(1, LINES)}:1:{draw.randint(1, 1000)}"))
    return found


def measure(rows: int, requests: int, say: Say) -> dict[str, Any]:
    """Times of pages in milliseconds, by question; each request is followed by one for the page of older parts, where there is one."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.get(username="bench"), "django.contrib.auth.backends.ModelBackend")
    list(_asked(client, ""))  # templates and modules are read at the first request
    draw = random.Random(1)
    by_question: list[dict[str, Any]] = []
    every: list[Took] = []
    for question in questions(rows):
        times = [took for _ in range(requests) for took in _asked(client, question.ask(draw))]
        every += times
        by_question.append({"question": question.name, "pages": len(times), **_percentiles(times)})
        say(f"{question.name}: p95 {by_question[-1]['p95_ms']:.0f} ms")
    worst = max(by_question, key=lambda one: one["p95_ms"])
    return {
        "rows": rows,
        "pages": len(every),
        **_percentiles(every),
        "worst": worst["question"],
        "worst_p95_ms": worst["p95_ms"],
        "allowed_ms": _ALLOWED_MS,
        "questions": by_question,
    }


def _asked(client: Any, query: str) -> Iterator[Took]:
    address = f"/history/?{query}"
    for _ in range(2):
        began, began_cpu = time.perf_counter(), time.process_time()
        answer = client.get(address)
        yield Took((time.perf_counter() - began) * 1000, (time.process_time() - began_cpu) * 1000)
        if answer.status_code != 200:
            raise RuntimeError(f"expected a page at {address}, found status {answer.status_code}")
        older = re.search(r'href="(/history/\?[^"]*before=[^"]+)"', answer.content.decode())
        if older is None:
            return
        address = unescape(older[1])


def _percentiles(times: list[Took]) -> dict[str, float]:
    p50, p95, longest = np.percentile([took.ms for took in times], [50, 95, 100])
    cpu = np.percentile([took.cpu_ms for took in times], 95)
    found = {"p50_ms": p50, "p95_ms": p95, "longest_ms": longest, "cpu_p95_ms": cpu}
    return {name: round(float(value), 1) for name, value in found.items()}
