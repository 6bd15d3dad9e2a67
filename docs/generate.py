"""Generates the documents that are made from the code, with `python -m docs.generate`. With `--check` it names outdated documents.

The same code always gives the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from docs.generator.reference import make_commands_page, make_metrics_page, make_settings_page
from docs.generator.schemas import find_broken_promises, make_schema_files, make_schemas
from docs.generator.topics import make_asyncapi_file, make_topics_page, read_castline_version

DOCS = Path(__file__).parent


def make_documents() -> dict[str, str]:
    """Returns the text of every generated document by its path below `docs/`."""
    return {
        **make_schema_files(),
        **make_asyncapi_file(),
        **make_topics_page(),
        **make_settings_page(),
        **make_commands_page(),
        **make_metrics_page(),
    }


def find_outdated(folder: Path = DOCS) -> list[str]:
    """Returns the paths of all outdated files below `folder`.

    A document is outdated if it is missing or differs from the code. A schema is also outdated if its record no longer exists.
    """
    documents = make_documents()
    outdated = [
        path for path, text in documents.items() if not (folder / path).is_file() or (folder / path).read_text(encoding="utf-8") != text
    ]
    schemas = [f"schemas/{file.name}" for file in (folder / "schemas").glob("*.json")]
    return sorted(outdated + [path for path in schemas if path not in documents])


def write_documents(folder: Path = DOCS) -> None:
    """Writes all documents into `folder`.

    A record may only get new optional fields. If a record has changed in another way since an earlier release, raises SystemExit and writes
    nothing. The message lists every forbidden change.
    """
    problems = find_broken_promises(folder / "schemas" / "released", make_schemas())
    if problems:
        sys.exit("\n".join(["Nothing was written. Only optional fields may be added to a released record, but:", *problems]))
    for path, text in make_documents().items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def keep_released_schemas(release: str, folder: Path = DOCS) -> Path:
    """Copies today's schemas to `schemas/released/<release>` and returns that folder.

    Later versions of Castline compare their schemas with these copies.

    Raises SystemExit if the folder of this release exists already, because a released schema must never change.
    """
    target = folder / "schemas" / "released" / release
    if target.exists():
        sys.exit(f"The schemas of release {release} exist already in {target}. Raise the version in pyproject.toml first.")
    target.mkdir(parents=True)
    for path, text in make_schema_files().items():
        (target / Path(path).name).write_text(text, encoding="utf-8")
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns 1 if `--check` finds an outdated document, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and name the documents that differ from the code")
    parser.add_argument("--release", action="store_true", help="also keep a copy of the schemas for the release that pyproject.toml names")
    options = parser.parse_args(arguments)
    if options.check:
        outdated = find_outdated()
        for path in outdated:
            print(f"docs/{path} differs from the code. Write it again with: make docs")
        return 1 if outdated else 0
    write_documents()
    if options.release:
        keep_released_schemas(read_castline_version())
    return 0


if __name__ == "__main__":
    sys.exit(main())
