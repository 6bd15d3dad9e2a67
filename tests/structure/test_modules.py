"""Modules of one noun and of one screenful of ideas; names that nobody else has; nothing of the machine it was written on."""

from __future__ import annotations

import csv
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.structure.tree import PACKAGES, ROOT, modules, tracked

# The one list of modules that are longer than 300 lines, and why each is one. Tests are held to the longest only.
LONG: dict[str, str] = {
    "firmware/board/lane.py": "one state machine, a casting's way from eye to gate: told apart, its states would not be seen together",
}
LONGEST, LONG_FROM = 400, 300

_CODE = {".py", ".cpp", ".h", ".c", ".ino"}
# Written so that this file is not found itself.
_MACHINE = re.compile(r"(?<![\w.~-])([/]work/|[/]root/|[/]home/[a-z]|[/]Users/[A-Za-z]|[/]tmp/|[A-Z]:\\Users)")


def lines_of(path: Path) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def code() -> list[Path]:
    return [path for path in tracked() if path.suffix in _CODE]


def test_no_module_is_longer_than_400_lines() -> None:
    assert {str(path): lines for path in code() if (lines := lines_of(path)) > LONGEST} == {}


def test_a_module_of_more_than_300_lines_says_why() -> None:
    assert {str(path) for path in code() if lines_of(path) > LONG_FROM and path.parts[0] != "tests"} - set(LONG) == set()


def test_no_reason_outlives_its_module() -> None:
    assert {name for name in LONG if not (ROOT / name).is_file() or lines_of(Path(name)) <= LONG_FROM} == set()


def test_names_say_what_a_module_is() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "managers", "data", "process_data", "common", "misc"}
    assert [str(path) for path in modules(*PACKAGES) if vague & {path.stem, *path.parent.parts}] == []


def test_every_module_says_what_it_is() -> None:
    first = re.compile(r'\A(#![^\n]*\n)?(?:"""|$)')
    assert [str(path) for path in code() if path.suffix == ".py" and not first.match((ROOT / path).read_text(encoding="utf-8"))] == []


def test_no_folder_of_tests_is_called_like_a_package_of_ours() -> None:
    """Such a folder would be imported in the package's place."""
    folders = {part for path in tracked() if path.parts[0] == "tests" for part in path.parts[1:-1]}
    assert folders
    assert folders & {*PACKAGES, "tests"} == set()


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_no_other_distribution_claims_our_names(package: str) -> None:
    claimed = set(packages_distributions().get(package, ()))
    assert claimed <= {"castline"}, f"{package} is installed by {', '.join(sorted(claimed))} too"


def test_the_installed_names_are_known_at_all() -> None:
    assert packages_distributions()["click"] == ["click"]


def test_every_dependency_has_its_reason_on_its_line() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)
    wanted = list(project["project"]["dependencies"])
    for group in (*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()):
        wanted += [one for one in group if isinstance(one, str)]
    assert len(wanted) > 20
    unexplained = [one for one in wanted if not re.search(rf'"{re.escape(one)}"[^"\n]*#\s*\w', text)]
    assert unexplained == []


def test_nothing_names_a_path_of_a_machine() -> None:
    found = []
    for path in tracked():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights and the like
        found += [f"{path}:{number}: {line.strip()[:80]}" for number, line in enumerate(text.splitlines(), 1) if _MACHINE.search(line)]
    assert found == []


@pytest.mark.parametrize("line", ["cd /" + "work/main", 'open("/' + 'root/.cache")', "/" + "home/jo/castline", "x = '/" + "tmp/spool'"])
def test_a_path_of_a_machine_is_found(line: str) -> None:
    assert _MACHINE.search(line)


@pytest.mark.parametrize("line", ["https://example.org/" + "work/", "tests/" + "tmp/", "homework/", "var/run"])
def test_another_path_is_let_pass(line: str) -> None:
    assert not _MACHINE.search(line)


def test_error_codes_are_told_apart() -> None:
    with (ROOT / "firmware" / "error_codes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 3
    for column in list(rows[0])[:2]:
        values = [row[column] for row in rows]
        assert len(values) == len(set(values)), f"{column}: {sorted(value for value in values if values.count(value) > 1)}"
    assert all(all(row.values()) for row in rows), "expected every code to have its word and its meaning"


def test_no_folder_of_tests_is_left_out() -> None:
    """They are named one by one, for their order."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    folders = {f"tests/{path.parts[1]}" for path in tracked() if path.parts[0] == "tests" and path.name.startswith("test_")}
    assert folders == set(options["testpaths"])
