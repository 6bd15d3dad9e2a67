"""The paths in README.md and ARCHITECTURE.md exist, and ARCHITECTURE.md has the import rules that the tests check."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, read_inline_code
from tests.structure.test_imports import ALLOWED, PLACES

# Texts with a slash that are no paths of the project: addresses of the pages that every process serves, and folders of the reader.
NO_PATHS = {
    "/metrics",
    "/healthz",
    "/readyz",
    "http://127.0.0.1:18000/",
    "pictures/ok_front/",
    "pictures/def_front/",
    "service.run_dir/targets/",
}


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md"])
def test_every_path_on_the_page_exists(page: str) -> None:
    paths = [text for text in read_inline_code(ROOT / page) if "/" in text and " " not in text and "<" not in text]
    assert [path for path in paths if path not in NO_PATHS and not (ROOT / path).exists()] == []


def read_rules(heading: str) -> dict[str, set[str]]:
    """Returns the rows of the table of ARCHITECTURE.md under `heading`: the names of the second column by each name of the first."""
    _, _, table = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition(f"| {heading} |\n")
    rows = [line.split("|") for line in table.partition("\n\n")[0].splitlines()[1:]]
    return {name: set(re.findall(r"`([^`]+)`", row[2])) for row in rows for name in re.findall(r"`([^`]+)`", row[1])}


def test_the_page_names_what_each_package_may_import() -> None:
    rules = read_rules("package | may import, besides itself")
    assert rules == {package: set(allowed) - {package} for package, allowed in ALLOWED.items()}


def test_the_page_names_where_each_library_may_be_imported() -> None:
    assert read_rules("library | may be imported in") == {library: set(places) for library, places in PLACES.items()}
