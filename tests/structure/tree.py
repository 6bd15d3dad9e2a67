"""The project's files and modules, and what each module imports."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("streams", "agents", "models", "firmware", "deploy", "dashboards", "station", "bench", "docs")


@cache
def tracked() -> tuple[Path, ...]:
    """All files of the project, by path below the root. Raises RuntimeError: outside a git checkout."""
    found = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise RuntimeError(f"expected a git checkout at {ROOT}, since only its files are the project's; git says: {found.stderr}")
    return tuple(path for name in found.stdout.split("\0") if name and (ROOT / (path := Path(name))).is_file())


@dataclass(frozen=True)
class Import:
    """One import, wherever it stands in its module.

    `is_deferred` is True for an import in a function or for the type checker only, which does not run when its module is imported.
    """

    file: Path
    line: int
    target: str
    is_deferred: bool = False

    @property
    def top(self) -> str:
        """The package imported, or imported from."""
        return self.target.partition(".")[0]

    def within(self, *packages: str) -> bool:
        """Whether what is imported is one of `packages` or lies in one."""
        return any(self.target == package or self.target.startswith(f"{package}.") for package in packages)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def modules(*packages: str) -> list[Path]:
    """The Python files of `packages`, by path below the root; those that git does not know yet are the project's as well."""
    return sorted(file.relative_to(ROOT) for package in packages for file in (ROOT / package).rglob("*.py"))


def imports(*packages: str) -> list[Import]:
    """All imports of `packages`."""
    return [found for file in modules(*packages) for found in _imports_of_file(file)]


@cache
def _imports_of_file(file: Path) -> tuple[Import, ...]:
    return tuple(imports_of(file, (ROOT / file).read_text(encoding="utf-8")))


def imports_of(file: Path, text: str) -> Iterator[Import]:
    """The imports of one module; `from a import b` is of `a.b` where that is a module of ours."""
    tree = ast.parse(text)
    deferred: set[ast.AST] = set()
    for node in ast.walk(tree):  # from the outside to the inside
        if node not in deferred and _is_run_later(node):
            deferred.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, node in deferred)
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                package = ".".join([*file.parts[: -node.level], *([package] if package else [])])
            for alias in node.names:
                inner = f"{package}.{alias.name}"
                yield Import(file, node.lineno, inner if _is_module(inner) else package, node in deferred)


def _is_run_later(node: ast.AST) -> bool:
    is_for_type_checker = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return is_for_type_checker or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()
