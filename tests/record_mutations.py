"""Damages records as faulty clients, wrong clocks and attackers do, from a seed: neighbours of the schema of each topic.

`make campaign-records` sends 10,000 of them of each topic through running roles (`tests.record_campaign`) and prints the counts. The tests
pass some hundred of them to the reader of each topic in each role.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from streams.identity import PartId, format_time
from streams.records import LiveLineSettings, ModelChoice, Record, Region, RegionPoint, make_command
from tests.sample_records import make_finding, make_review, make_sorting, make_verdict

KINDS = ("images", "verdicts", "sorted", "findings", "dead-letters", "reviews", "models", "lines", "commands")
JSON_KINDS = tuple(kind for kind in KINDS if kind not in ("images", "dead-letters"))

_NOW = datetime.now(UTC)
# Values that a field of another type may get, and values at and beyond the bounds of its own type.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**40, 0.5, -0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "a\0b", "é" * 300, "x" * 5000, "../../etc/passwd", "<script>alert(1)</script>", "line-2", "1", "null", "\ud800"),
    *("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00Z"),
    *(
        "2026-01-31T12:00:00",
        "2026-01-31",
        "2019-12-31T23:59:59.999999Z",
        "2020-01-01T00:00:00Z",
        1.7e9,
        1.7e12,
        -62135596800,
        253402300800,
    ),
    *(format_time(_NOW + timedelta(days=days)) for days in (-3000, -1, 1, 3, 300, 400)),
    *([], [1], [[]], {}, {"a": {}}, {"x": 0.5}, {f"k{number}": 0.5 for number in range(3000)}, [0.5] * 3000, ["x" * 300] * 300),
)
_ODD_KEYS: tuple[bytes | None, ...] = (None, b"", b"line-1", b"*", b"line-1:1:1", b"\xff\xfe", b"x" * 5000, b"line-2:1:1", b"line-1:0:0")
_ODD_HEADERS: tuple[tuple[str, bytes], ...] = (
    *(
        ("captured_at", text)
        for text in (b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00+14:00", b"2026-01-31T12:00:00", b"", b"\xff", b"0")
    ),
    *(("sha256", text) for text in (b"", b"0" * 64, b"z" * 64)),
    *(("claim", text) for text in (b"", b"../../etc/passwd", b"pictures/00/" + b"0" * 64, b"x" * 5000, b"a\0b", b"file:///etc/passwd")),
    *((name, text) for name in ("line", "run", "part") for text in (b"", b"1", b"-1", b"line-2", b"9" * 30, b"\xff")),
    *((name, b"x" * 5000) for name in ("traceparent", "content-type", "ce_type", "dead-topic", "dead-reason", "x" * 300)),
    *((name, b"\xff\xfe") for name in ("traceparent", "content-type", "dead-topic", "dead-offset", "castline-signature", "redrive-of")),
)


@dataclass(frozen=True)
class MutatedRecord:
    """A damaged record of a topic of `kind`, such as `verdicts`. `mutation` says what was done to a valid record."""

    kind: str
    mutation: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp_ms: int | None = None


def make_valid(kind: str, line: str, part: int, picture: bytes = b"") -> MutatedRecord:
    """Returns a valid record of a topic of `kind`. `picture` is the value of an image record."""
    part_id = PartId(line, 1, part)
    verdict = make_verdict(part_id, f"castings.images.{line}", 0, part)
    at = datetime.now(UTC)
    records: dict[str, Callable[[], Record]] = {
        "verdicts": lambda: verdict,
        "sorted": lambda: make_sorting(part_id),
        "findings": lambda: make_finding(verdict),
        "reviews": lambda: make_review(part_id, "defect", kinds=("pores",)),
        "models": lambda: ModelChoice(line=line, version="demo", chosen_by="anna", chosen_at=at, previous=("older",)),
        "lines": lambda: LiveLineSettings(line=line, set_by="anna", set_at=at, threshold=0.5, inspect_regions=(_make_region(),)),
        "commands": lambda: make_command(line, "status", "anna", 10),
    }
    if kind == "images":
        headers = [("captured_at", format_time(at).encode()), ("line", line.encode()), ("run", b"1"), ("part", str(part).encode())]
        return MutatedRecord(kind, "none", part_id.key, picture, headers)
    if kind == "dead-letters":
        headers = [("dead-topic", f"castings.images.{line}".encode()), ("dead-reason", b"truncated"), ("dead-offset", b"1")]
        return MutatedRecord(kind, "none", part_id.key, picture, headers)
    key = line.encode() if kind in ("models", "lines", "commands") else part_id.key
    return MutatedRecord(kind, "none", key, records[kind]().encode())


def _make_region() -> Region:
    return Region(corners=tuple(RegionPoint(x=x, y=y) for x, y in ((0.1, 0.1), (0.9, 0.1), (0.5, 0.9))))


def mutate(record: MutatedRecord, chance: random.Random) -> MutatedRecord:
    """Returns a damaged copy of a valid record."""
    mutations: list[tuple[str, Callable[[MutatedRecord, random.Random], MutatedRecord]]] = [
        ("cut value", _cut_value),
        ("changed bytes", _change_bytes),
        ("other value", _replace_value),
        ("other key", lambda one, chance: _copy(one, key=chance.choice(_ODD_KEYS))),
        ("odd header", lambda one, chance: _copy(one, headers=[*one.headers, *chance.sample(_ODD_HEADERS, chance.randrange(1, 4))])),
        ("odd Kafka time", lambda one, chance: _copy(one, timestamp_ms=chance.choice((0, 1, 10**9, 10**12, 1_577_836_799_999)))),
        ("many headers", lambda one, _: _copy(one, headers=[*one.headers, *((f"h{number}", b"x" * 99) for number in range(500))])),
    ]
    if record.kind in JSON_KINDS:
        # The fields matter most, so they are drawn more often than all other mutations together.
        mutations += [("odd field", _change_fields)] * 8 + [("missing field", _remove_field), ("foreign record", _replace_by_foreign)]
    name, change = chance.choice(mutations)
    return _copy(change(record, chance), mutation=name)


def mutated_records(kind: str, line: str, seed: int, count: int, picture: bytes = b"") -> Iterator[MutatedRecord]:
    """Yields `count` damaged records of a topic of `kind`. The same seed gives the same damages."""
    for number in range(count):
        chance = random.Random(f"{kind}:{seed}:{number}")
        yield mutate(make_valid(kind, line, number + 1, picture), chance)


def _copy(record: MutatedRecord, **changes: Any) -> MutatedRecord:
    return MutatedRecord(**{**record.__dict__, **changes})


def _cut_value(record: MutatedRecord, chance: random.Random) -> MutatedRecord:
    value = record.value or b""
    return _copy(record, value=value[: chance.randrange(len(value) + 1)])


def _change_bytes(record: MutatedRecord, chance: random.Random) -> MutatedRecord:
    value = bytearray(record.value or b"x")
    for _ in range(chance.randrange(1, 8)):
        value[chance.randrange(len(value))] = chance.randrange(256)
    return _copy(record, value=bytes(value))


def _replace_value(record: MutatedRecord, chance: random.Random) -> MutatedRecord:
    odd = (None, b"", b"null", b"[]", b"{}", b"\xff\xfe{", b"[" * 10_000, b"9" * 10_000, b'"' + b"x" * 200_000 + b'"', b"\xef\xbb\xbf{}")
    return _copy(record, value=chance.choice((*odd, chance.randbytes(200))))


def _change_fields(record: MutatedRecord, chance: random.Random) -> MutatedRecord:
    content = json.loads(record.value or b"{}")
    for _ in range(chance.choice((1, 1, 1, 2))):
        holder, name = chance.choice(list(list_fields(content)))
        # A copy, because the next damage may change a field inside this value.
        holder[name] = copy.deepcopy(chance.choice(ODD_VALUES))
    if chance.random() < 0.1:
        content["a_field_of_a_later_release"] = chance.choice(ODD_VALUES)
    return _copy(record, value=json.dumps(content).encode())


def list_fields(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each field of a JSON value as the object or list that holds it and its name or index."""
    for name, value in list(content.items() if isinstance(content, dict) else enumerate(content)):
        yield content, name
        if isinstance(value, dict | list):
            yield from list_fields(value)


def _remove_field(record: MutatedRecord, chance: random.Random) -> MutatedRecord:
    content = json.loads(record.value or b"{}")
    del content[chance.choice(list(content))]
    return _copy(record, value=json.dumps(content).encode())


def _replace_by_foreign(record: MutatedRecord, chance: random.Random) -> MutatedRecord:
    foreign = make_valid(chance.choice(JSON_KINDS), "line-1", 1)
    return _copy(record, value=foreign.value)
