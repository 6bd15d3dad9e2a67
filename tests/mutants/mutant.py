"""A mutant: one wrong change of the source code, which a test must find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class MisfitError(Exception):
    """The text that a mutant replaces is not in its file exactly once. Adapt the mutant to the changed code."""


@dataclass(frozen=True)
class Mutant:
    """A wrong change: in `file`, the text `old` becomes `new`.

    - `tests`: the arguments of pytest that choose the tests which find the mutant.
    - `survives_because`: the reason why no test can find the mutant, or "".
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    survives_because: str = ""

    def change(self, source: str) -> str:
        """Returns `source`, the text of `file`, with the change. Raises MisfitError if `old` is not in `source` exactly once."""
        if (count := source.count(self.old)) != 1:
            raise MisfitError(f"{self.file} contains the text of the mutant {count} times, but must contain it once: {self.old}")
        return source.replace(self.old, self.new)

    @contextmanager
    def applied(self, folder: Path) -> Iterator[None]:
        """Changes the copy of the source code in `folder` for the time of a `with` block. Raises MisfitError like `change`."""
        file = folder / self.file
        source = file.read_text(encoding="utf-8")
        file.write_text(self.change(source), encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(source, encoding="utf-8")
