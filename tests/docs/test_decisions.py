"""The decision records are complete, and the tests that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.structure.tree import ROOT, tracked

FOLDER = ROOT / "docs" / "decisions"
RECORDS = sorted(file for file in FOLDER.glob("[0-9]*.md"))
HEADINGS = ("## Context", "## Decision", "## Consequences", "## Guarded by")


@pytest.fixture(scope="module")
def tests_by_file() -> dict[str, str]:
    """Returns the text of every test file by its base name; files with the same name are joined."""
    texts: dict[str, str] = {}
    for path in tracked():
        if path.parts[0] == "tests" and path.suffix == ".py":
            texts[path.name] = texts.get(path.name, "") + (ROOT / path).read_text(encoding="utf-8")
    return texts


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem[:4])
def test_a_record_has_a_status_and_all_headings(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert re.search(r"^Status: (Accepted|Superseded by \d{4})$", text, re.MULTILINE)
    assert [heading for heading in HEADINGS if heading not in text] == []


def test_every_test_that_guards_a_decision_exists(tests_by_file: dict[str, str]) -> None:
    missing = []
    for record in RECORDS:
        _, _, guard = record.read_text(encoding="utf-8").partition("## Guarded by")
        for name in re.findall(r"`(test_\w+)`", guard):
            if not any(f"def {name}(" in text for text in tests_by_file.values()):
                missing.append(f"{record.name}: {name}")
        missing += [f"{record.name}: {file}" for file in re.findall(r"`(test_\w+\.py)`", guard) if file not in tests_by_file]
    assert missing == []


def test_the_index_has_a_row_for_every_record() -> None:
    rows = [line for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| [")]
    assert [row.split("(")[1].split(")")[0] for row in rows] == [record.name for record in RECORDS]
