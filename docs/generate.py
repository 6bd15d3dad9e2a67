"""Writes the pages that the code decides: `python -m docs.generate`; `--check` names those that are not as the code has them.

The same code gives the same bytes: no date, no machine, no order of a set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from docs.generator import asyncapi, commands, metrics, schemas, settings, topics
from docs.generator.compatibility import breaks

DOCS = Path(__file__).parent


def pages() -> dict[str, str]:
    """The text of every generated page, by its path below `docs/`."""
    return {
        **schemas.pages(),
        **asyncapi.pages(),
        **topics.pages(),
        **settings.pages(),
        **commands.pages(),
        **metrics.pages(),
    }


def stale(folder: Path = DOCS) -> list[str]:
    """The pages below `folder` that are absent, are not what the code says, or belong to no record any more."""
    wanted = pages()
    found = [path for path, text in wanted.items() if not (folder / path).is_file() or (folder / path).read_text(encoding="utf-8") != text]
    left_over = [f"schemas/{file.name}" for file in (folder / "schemas").glob("*.json") if f"schemas/{file.name}" not in wanted]
    return sorted(found + left_over)


def write(folder: Path = DOCS) -> None:
    """Writes all pages, unless a schema would break a promise made by a released one.

    Raises SystemExit: naming each break; then nothing is written.
    """
    broken = breaks(folder / "schemas" / "released", schemas.published())
    if broken:
        sys.exit("\n".join(["expected fields to be added only; nothing was written:", *broken]))
    for path, text in pages().items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def release(name: str, folder: Path = DOCS) -> Path:
    """Keeps today's schemas as those of release `name`; from then on the readers and writers are held to them.

    Raises SystemExit: when that release has its schemas already: what is released is not written again.
    """
    kept = folder / "schemas" / "released" / name
    if kept.exists():
        sys.exit(f"expected a new release, found the schemas of {name} in {kept}")
    kept.mkdir(parents=True)
    for path, text in schemas.pages().items():
        (kept / Path(path).name).write_text(text, encoding="utf-8")
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done or fresh; 1 with `--check` when a page is stale."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name the pages that are not as the code has them")
    parser.add_argument("--release", action="store_true", help="keep the schemas as those of the version in pyproject.toml")
    chosen = parser.parse_args(arguments)
    if chosen.check:
        found = stale()
        for path in found:
            print(f"docs/{path} is not as the code has it; write it again with: make docs")
        return 1 if found else 0
    write()
    if chosen.release:
        release(asyncapi.castline_version())
    return 0


if __name__ == "__main__":
    sys.exit(main())
