"""Writes what the code decides: `python -m dashboards.generate`; `--check` names the files that are not as the code has them.

The same code gives the same bytes: no date, no machine, no order of a set.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dashboards.alerts.catalogue import ALERTS, prometheus_rules
from dashboards.catalogue import documents, links
from dashboards.pages.runbook import as_page
from dashboards.scraping import Scraping, alertmanager_config, prometheus_config

ROOT = Path(__file__).parents[1]
RULES = "deploy/packaging/prometheus/rules.yml"
# A site's own stack in containers: the run folders of all roles are mounted at one place.
SITE = Scraping("plant", ("/run/castline/targets/*.json",), "rules.yml", "alertmanager:9093")


def rules() -> str:
    """The text of the rules file."""
    return prometheus_rules({alert.name: links(alert) for alert in ALERTS})


def files() -> dict[str, str]:
    """The text of every generated file, by its path below the root."""
    pages = {
        f"dashboards/json/{uid}.json": json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for uid, found in documents().items()
    }
    return {
        **pages,
        "dashboards/RUNBOOK.md": as_page(),
        RULES: rules(),
        "deploy/packaging/prometheus/prometheus.yml": prometheus_config(SITE),
        "deploy/packaging/prometheus/alertmanager.yml": alertmanager_config(),
    }


def stale(root: Path = ROOT) -> list[str]:
    """The files that are absent, not what the code says, or of a dashboard that is no more."""
    wanted = files()
    found = [path for path, text in wanted.items() if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text]
    return sorted(found + _left_over(root, wanted))


def write(root: Path = ROOT) -> None:
    wanted = files()
    for path, text in wanted.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    for path in _left_over(root, wanted):
        (root / path).unlink()


def _left_over(root: Path, wanted: dict[str, str]) -> list[str]:
    found = (f"dashboards/json/{file.name}" for file in (root / "dashboards/json").glob("*.json"))
    return [path for path in found if path not in wanted]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done or fresh; 1 with `--check` when a file is stale."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name the files that are not as the code has them")
    if parser.parse_args(arguments).check:
        found = stale()
        for path in found:
            print(f"{path} is not as the code has it; write it again with: make dashboards")
        return 1 if found else 0
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
