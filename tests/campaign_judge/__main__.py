"""Judges the runs of a campaign: `python -m tests.campaign_judge FOLDER`. The exit status is 1 if something is wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.campaign_judge.judge import judge_folder
from tests.campaign_judge.pictures import DEADLINE_S
from tests.campaign_judge.report import write_page, write_report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign_judge", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--bootstrap", default="", metavar="HOST:PORT", help="broker with the topics; the default is that of the plan")
    parser.add_argument("--publish", type=Path, metavar="PAGE", help="also write the page about all runs")
    options = parser.parse_args()
    judgements = []
    for folder in options.folders:
        _wait_for_deadline(folder)
        judgement = judge_folder(folder, options.bootstrap)
        report = write_report(judgement)
        (folder / "report.md").write_text(report)
        print(report)
        judgements.append(judgement)
    if options.publish:
        options.publish.write_text(write_page(judgements))
    return 0 if all(judgement.is_right for judgement in judgements) else 1


def _wait_for_deadline(folder: Path) -> None:
    """Waits until two minutes after the last fault, unless the topics were dumped before."""
    end = json.loads((folder / "end.json").read_text())
    if not (folder / "topics").is_dir() and end.get("last_fault_ended_at"):
        time.sleep(max(0.0, end["last_fault_ended_at"] + DEADLINE_S - time.time()))


if __name__ == "__main__":
    sys.exit(main())
