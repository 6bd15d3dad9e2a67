"""The tables of docs/asvs.md and docs/iec-62443-4-2.md have each requirement once, and the tests that they name exist."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.structure.tree import ROOT

# The requirements of levels 1 and 2 of ASVS 5.0.0: section, colon, and the numbers in the section.
ASVS = """
1.1:1-2 1.2:1-9 1.3:1-11 1.4:1-3 1.5:1-2 2.1:1-3 2.2:1-3 2.3:1-4 2.4:1 3.2:1-2 3.3:1-4 3.4:1-6 3.5:1-5 3.7:1-2 4.1:1-3 4.2:1 4.3:1-2 4.4:1-4
5.1:1 5.2:1-3 5.3:1-2 5.4:1-3 6.1:1-3 6.2:1-12 6.3:1-4 6.4:1-4 6.5:1-5 6.6:1-3 6.8:1-4 7.1:1-3 7.2:1-4 7.3:1-2 7.4:1-5 7.5:1-2 7.6:1-2
8.1:1-2 8.2:1-3 8.3:1 8.4:1 9.1:1-3 9.2:1-4 10.1:1-2 10.2:1-2 10.3:1-4 10.4:1-11 10.5:1-5 10.6:1-2 10.7:1-3 11.1:1-2 11.2:1-3 11.3:1-3
11.4:1-4 11.5:1 11.6:1 12.1:1-3 12.2:1-2 12.3:1-4 13.1:1 13.2:1-5 13.3:1-2 13.4:1-5 14.1:1-2 14.2:1-4 14.3:1-3 15.1:1-3 15.2:1-3 15.3:1-7
16.1:1 16.2:1-5 16.3:1-4 16.4:1-3 16.5:1-3 17.1:1 17.2:1-4 17.3:1-2
"""
# The component requirements of security level 2, and those for software applications and embedded devices.
IEC = """
CR 1.1 | CR 1.1 RE 1 | CR 1.2 | CR 1.3 | CR 1.4 | CR 1.5 | CR 1.7 | CR 1.8 | CR 1.9 | CR 1.10 | CR 1.11 | CR 1.12 | CR 1.14 | CR 2.1
CR 2.1 RE 1 | CR 2.1 RE 2 | CR 2.2 | CR 2.5 | CR 2.6 | CR 2.8 | CR 2.9 | CR 2.10 | CR 2.11 | CR 2.11 RE 1 | CR 2.12 | CR 3.1
CR 3.1 RE 1 | CR 3.3 | CR 3.4 | CR 3.4 RE 1 | CR 3.5 | CR 3.6 | CR 3.7 | CR 3.8 | CR 3.9 | CR 4.1 | CR 4.2 | CR 4.3 | CR 5.1 | CR 6.1
CR 6.2 | CR 7.1 | CR 7.1 RE 1 | CR 7.2 | CR 7.3 | CR 7.3 RE 1 | CR 7.4 | CR 7.6 | CR 7.7 | CR 7.8 | SAR 2.4 | SAR 2.4 RE 1 | SAR 3.2
EDR 2.4 | EDR 2.4 RE 1 | EDR 2.13 | EDR 3.2 | EDR 3.10 | EDR 3.10 RE 1 | EDR 3.11 | EDR 3.12 | EDR 3.13 | EDR 3.14 | EDR 3.14 RE 1
"""


@dataclass(frozen=True)
class Row:
    requirement: str
    state: str
    how: str
    tests: tuple[str, ...]


def read_rows(page: str) -> list[Row]:
    rows = []
    for line in (ROOT / "docs" / page).read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if re.match(r"\| (V\d|CR |SAR |EDR )", line):
            requirement, state, how, tests = (*cells, "")[:4]
            rows.append(Row(requirement, state, how, tuple(re.findall(r"`([^`]+)`", tests))))
    return rows


def list_asvs() -> Iterator[str]:
    for section, numbers in (part.split(":") for part in ASVS.split()):
        for piece in numbers.split(","):
            first, _, last = piece.partition("-")
            yield from (f"V{section}.{number}" for number in range(int(first), int(last or first) + 1))


@pytest.mark.parametrize(
    ("page", "expected"),
    [("asvs.md", list(list_asvs())), ("iec-62443-4-2.md", [name for line in IEC.strip().splitlines() for name in line.split(" | ")])],
)
def test_each_requirement_has_one_row_with_a_state_and_a_reason(page: str, expected: list[str]) -> None:
    rows = read_rows(page)
    assert [row.requirement for row in rows] == expected
    assert {row.state for row in rows} == {"met", "not met", "not applicable"}
    assert [row.requirement for row in rows if len(row.how) < 5] == []


@pytest.mark.parametrize("page", ["asvs.md", "iec-62443-4-2.md"])
def test_each_test_that_a_row_names_exists(page: str) -> None:
    missing = []
    for row in read_rows(page):
        for test in row.tests:
            file, _, name = test.partition("::")
            path = ROOT / file
            if not (path.is_file() and re.search(rf"^(async )?def {re.escape(name)}\(", path.read_text("utf-8"), re.MULTILINE)):
                missing.append(f"{row.requirement}: {test}")
    assert missing == []


@pytest.mark.parametrize("page", ["asvs.md", "iec-62443-4-2.md"])
def test_the_page_counts_its_rows(page: str) -> None:
    rows = read_rows(page)
    states = Counter(row.state for row in rows)
    tested = sum(row.state == "met" and bool(row.tests) for row in rows)
    sentence = (
        f"{states['met']} requirements are met, {states['not met']} are not met, and {states['not applicable']} do not apply. "
        f"The table names tests for {tested} of the {states['met']} met requirements."
    )
    assert sentence in (ROOT / "docs" / page).read_text("utf-8")


def test_the_page_says_what_it_does_not_claim() -> None:
    for page in ("asvs.md", "iec-62443-4-2.md"):
        assert "**What the table does not claim.**" in (ROOT / "docs" / page).read_text("utf-8").partition("| --- |")[0]
