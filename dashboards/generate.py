"""Writes all generated files of the dashboards: `python -m dashboards.generate`. `--check` only lists the stale files.

The same code always writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dashboards.catalogue import build_dashboards, make_runbook_markdown
from dashboards.prometheus import ScrapeConfig, make_alertmanager_config, make_prometheus_config, make_rules

ROOT = Path(__file__).parents[1]
RULES = "deploy/packaging/prometheus/rules.yml"
SITE = ScrapeConfig("plant", ("/run/castline/targets/*.json",), "rules.yml", "alertmanager:9093")


def generate_files() -> dict[str, str]:
    """Returns the text of every generated file by its path below the project's root."""
    pages = {
        f"dashboards/json/{uid}.json": json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for uid, document in build_dashboards().items()
    }
    return {
        **pages,
        "dashboards/RUNBOOK.md": make_runbook_markdown(),
        RULES: make_rules(),
        "deploy/packaging/prometheus/prometheus.yml": make_prometheus_config(SITE),
        "deploy/packaging/prometheus/alertmanager.yml": make_alertmanager_config(),
    }


def find_stale_files(root: Path = ROOT) -> list[str]:
    """Returns the paths of files that are missing, that differ from the code, or that belong to no dashboard."""
    files = generate_files()
    stale = [path for path, text in files.items() if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text]
    return sorted(stale + _find_orphans(root, files))


def write_files(root: Path = ROOT) -> None:
    """Writes every generated file, and deletes the JSON of dashboards that no longer exist."""
    files = generate_files()
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    for path in _find_orphans(root, files):
        (root / path).unlink()


def _find_orphans(root: Path, files: dict[str, str]) -> list[str]:
    paths = (f"dashboards/json/{file.name}" for file in (root / "dashboards/json").glob("*.json"))
    return [path for path in paths if path not in files]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program. The exit status is 1 if `--check` finds a stale file, else 0."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="Write nothing, but list the files that differ from the code.")
    if parser.parse_args(arguments).check:
        stale = find_stale_files()
        for path in stale:
            print(f"{path} differs from the code. Write it again with: make dashboards")
        return 1 if stale else 0
    write_files()
    return 0


if __name__ == "__main__":
    sys.exit(main())
