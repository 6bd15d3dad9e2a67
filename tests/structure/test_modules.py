"""Names of modules and packages, dependencies with their reasons, and nothing of the machine that the code was written on."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.structure.tree import PACKAGES, ROOT, modules, tracked

_CODE = {".py", ".cpp", ".h", ".c", ".ino"}
# Written so that this file is not found itself.
_MACHINE = re.compile(r"(?<![\w.~-])([/]work/|[/]root/|[/]home/[a-z]|[/]Users/[A-Za-z]|[/]tmp/|[A-Z]:\\Users)")


def code() -> list[Path]:
    return [path for path in tracked() if path.suffix in _CODE]


def test_names_say_what_a_module_is() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "managers", "data", "process_data", "common", "misc"}
    assert [str(path) for path in modules(*PACKAGES) if vague & {path.stem, *path.parent.parts}] == []


def test_every_module_says_what_it_is() -> None:
    first = re.compile(r'\A(#![^\n]*\n)?(?:"""|$)')
    assert [str(path) for path in code() if path.suffix == ".py" and not first.match((ROOT / path).read_text(encoding="utf-8"))] == []


def test_every_folder_of_tests_is_a_package() -> None:
    """Without `__init__.py` pytest would import `tests/agents` under the name of the package `agents`."""
    folders = {path.parent for path in tracked() if path.parts[0] == "tests" and path.suffix == ".py"}
    assert [str(folder) for folder in folders if not (ROOT / folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_no_other_distribution_claims_our_names(package: str) -> None:
    claimed = set(packages_distributions().get(package, ()))
    assert claimed <= {"castline"}, f"{package} is installed by {', '.join(sorted(claimed))} too"


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


def test_no_folder_of_tests_is_left_out() -> None:
    """They are named one by one, for their order."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    folders = {f"tests/{path.parts[1]}" for path in tracked() if path.parts[0] == "tests" and path.name.startswith("test_")}
    assert folders == set(options["testpaths"])


def test_no_class_name_is_defined_in_two_modules() -> None:
    """A reader who searches for a class must find one."""
    places: dict[str, set[str]] = {}
    for path in modules(*PACKAGES):
        if "migrations" in path.parts:
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name != "Meta":
                places.setdefault(node.name, set()).add(str(path))
    assert {name: sorted(found) for name, found in places.items() if len(found) > 1} == {}
