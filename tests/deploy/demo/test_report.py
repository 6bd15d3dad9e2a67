"""Tests of the report: castings that fell are compared with their sortings, and each kind of damage is a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.demo.audit import TopicRecords
from deploy.demo.report import CastingFall, compare_falls, make_report, read_falls
from streams.identity import PartId
from tests.deploy.demo.records import make_sorting
from tests.deploy.demo.test_audit import make_run


def make_fall(part: int | None, side: str = "passed", struck: bool = False) -> CastingFall:
    return CastingFall(PartId("line-1", 7, part) if part else None, side, struck)


def test_a_casting_that_fell_to_another_side_than_recorded_is_found() -> None:
    found = compare_falls([make_fall(1), make_fall(2, "diverted")], [make_sorting(1), make_sorting(2)])
    assert (found.fallen, found.mismatches) == (2, 1)
    assert "line-1:7:2" in found.examples[0]


def test_a_casting_without_a_record_is_found() -> None:
    found = compare_falls([make_fall(1), make_fall(2), make_fall(None)], [make_sorting(1)])
    assert (found.mismatches, found.unrecorded) == (0, 2)


def test_a_casting_that_the_blade_struck_is_counted() -> None:
    assert compare_falls([make_fall(1, struck=True)], [make_sorting(1)]).struck == 1


Damage = Callable[[TopicRecords], TopicRecords]


@pytest.mark.parametrize(
    ("damage", "falls", "words"),
    [
        (
            lambda records: replace(records, verdicts=records.verdicts[1:]),
            [],
            "1 parts were lost. Missing: 1 x verdict. Parts: line-1:7:1.",
        ),
        (
            lambda records: replace(
                records, sortings=(*records.sortings, make_sorting(3, moves=4, event=99, action="diverted", gate_moved=True))
            ),
            [],
            "A gate moved again for the same part 1 times",
        ),
        (lambda records: records, [make_fall(3, "passed")], "1 castings fell to another side"),
    ],
)
def test_each_kind_of_damage_is_a_failure(damage: Damage, falls: list[CastingFall], words: str) -> None:
    assert make_report(make_run(), {"line-1": []}, (0, 0), {}).failures == []
    (sentence,) = make_report(damage(make_run()), {"line-1": falls}, (0, 0), {}).failures
    assert words in sentence


def test_a_run_without_parts_is_a_failure() -> None:
    assert make_report(TopicRecords(), {"line-1": []}, (0, 0), {}).failures == ["No part was seen."]


def test_falls_are_read_from_the_log_of_a_board(tmp_path: Path) -> None:
    log = tmp_path / "board.jsonl"
    log.write_text(
        '{"what": "servo", "at": 1.0, "at_us": 5, "from_us": 1000, "to_us": 2000, "run": 7}\n'
        '{"what": "fell", "at": 2.0, "at_us": 9, "run": 7, "casting": 1, "counted": 3, "side": "diverted", "struck": false}\n'
        '{"what": "fell", "at": 3.0, "at_us": 9, "run": 7, "casting": 2, "counted": 0, "side": "passed", "struck": true}\n'
    )
    assert read_falls(log, "line-1") == [CastingFall(PartId("line-1", 7, 3), "diverted", False), CastingFall(None, "passed", True)]
    assert read_falls(tmp_path / "absent.jsonl", "line-1") == []
