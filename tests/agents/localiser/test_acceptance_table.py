"""Acceptance tables: what is accepted, what is rejected by which rule, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.localiser.acceptance_table import AcceptanceTable, read_acceptance_table
from models.inference.heat_map import MAX_DEFECTS
from streams.errors import SettingsError
from streams.records import Box

TABLE = """
name = "impeller 17"
other_kinds = "rejected"

[[rules]]
name = "gas porosity, C 2"
kinds = ["blow hole", "hole"]
max_length_mm = 3.0
max_area_mm2 = 8.0
max_number = 2

[[rules]]
name = "flash is trimmed later"
kinds = ["flash"]
max_number = 24
"""


@pytest.fixture
def table(tmp_path: Path) -> AcceptanceTable:
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    return read_acceptance_table(path)


def make_box(kind: str, length_mm: float | None = 1.0, area_mm2: float | None = 1.0) -> Box:
    return Box(left_px=0, top_px=0, width_px=1, height_px=1, score=1, kind=kind, length_mm=length_mm, area_mm2=area_mm2)


@pytest.mark.parametrize(
    ("boxes", "result", "rule"),
    [
        ([], "accepted", ""),
        ([make_box("hole", 3.0, 8.0), make_box("blow hole")], "accepted", ""),
        ([make_box("hole", 3.1)], "rejected", "a defect is 3.1 mm long, at most 3 allowed"),
        ([make_box("hole", 3.0, 8.1)], "rejected", "a defect is 8.1 mm2 large, at most 8 allowed"),
        ([make_box("hole")] * 3, "rejected", "gas porosity, C 2: 3 defects, at most 2 allowed"),
        ([make_box("flash", 90.0, 900.0)] * 4, "accepted", ""),
        ([make_box("flash", None, None)], "accepted", ""),
        ([make_box("crack")], "rejected", "No rule allows a defect of this type: crack."),
        ([make_box("")], "rejected", "No rule allows a defect of this type: unknown."),
        ([make_box("hole", None, None)], "not-graded", "The scale of the line's pictures is not set"),
        ([make_box("hole", None, None), make_box("crack")], "rejected", "crack"),
    ],
)
def test_defects_are_accepted_up_to_the_limits_of_their_rule(table: AcceptanceTable, boxes: list[Box], result: str, rule: str) -> None:
    graded = table.grade(boxes, has_more_defects=False)
    assert (graded.table, graded.result) == ("impeller 17", result)
    assert rule in " ".join(graded.rules)


def test_a_part_with_more_defects_than_the_finding_marks_is_not_accepted(table: AcceptanceTable) -> None:
    graded = table.grade([make_box("flash")] * 5, has_more_defects=True)
    assert graded.result == "not-graded"
    assert graded.rules == ("The picture has more suspicious areas than the 5 that are marked, so the part cannot be accepted.",)
    assert table.grade([make_box("flash")] * MAX_DEFECTS, has_more_defects=True).result == "rejected"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TABLE.replace("max_number = 24", "max_number = 25"), "at most 24 defects can be allowed"),
        (TABLE.replace("max_number = 24", ""), "a rule needs at least one of max_length_mm, max_area_mm2 and max_number"),
        (TABLE.replace('"rejected"', '"perhaps"'), "other_kinds"),
        (TABLE.replace("[[rules]]", "[[rules"), "no TOML file"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_with_its_field(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "table.toml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"table\.toml") as error:
        read_acceptance_table(path)
    assert reason in str(error.value)


def test_a_table_that_is_missing_says_which_setting_to_correct(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="acceptance_table"):
        read_acceptance_table(tmp_path / "none.toml")
