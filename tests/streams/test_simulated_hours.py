"""The roles on a simulated broker in virtual time. The simulation runs in a process of its own, because it replaces the clocks."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import pytest

pytestmark = pytest.mark.real

# Seeds in which pictures were lost or commits stopped, before the mends in `streams.consumed_offsets`.
FORMER_FAULTS = ("13", "139", "20275")
# Seeds in which the whole plant had a fault:
# - 140: a skipped verdict stayed uncommitted
# - 437, 20210: a late verdict got a record before the board's report
# - 5002: during an outage, a casting without a part number was not counted
# - 1063: the times of a new board were converted by the clock of the old one
# - 21534: a picture got a second part after a failed flush of its repetition
FORMER_PLANT_FAULTS = ("140", "437", "20210", "5002", "1063", "21534")


@cache
def run_campaign(*arguments: str) -> str:
    """Returns what the campaign printed. Fails if a seed has a fault."""
    done = subprocess.run([sys.executable, "-m", "tests.hours_campaign", "--traces", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_picture_gets_one_verdict_although_kafka_fails_and_workers_are_killed() -> None:
    printed = run_campaign("--of", "inspectors", "--seeds", "20")
    counts = {name: int(number) for name, number in re.findall(r"([a-z][a-z ]+): (\d+)", printed)}
    for happened in ("pictures", "killed", "stopped", "rebalances", "changes of the weather", "repeated verdicts"):
        assert counts[happened] > 0, printed


def test_every_casting_has_one_verdict_and_one_gate_action_although_everything_fails() -> None:
    printed = run_campaign("--of", "plant", "--seeds", "6")
    counts = {name: int(number) for name, number in re.findall(r"([A-Za-z][A-Za-z :-]+): (\d+)", printed)}
    for happened in ("pictures", "repeated uploads", "full disks", "unplugged", "killed GatewayProcess", "killed SorterProcess"):
        assert counts[happened] > 0, printed


def test_seeds_with_former_faults_have_no_fault_and_give_the_same_run_in_another_process() -> None:
    printed = run_campaign("--of", "inspectors", "--only", *FORMER_FAULTS)
    (trace,) = re.findall(r"seed 13, checksum \w+", printed)
    assert trace in run_campaign("--of", "inspectors", "--seeds", "20")


def test_seeds_of_the_whole_plant_with_former_faults_have_no_fault() -> None:
    assert f"plant: {len(FORMER_PLANT_FAULTS)} seeds, 0 of them" in run_campaign("--of", "plant", "--only", *FORMER_PLANT_FAULTS)
