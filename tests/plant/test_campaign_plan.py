"""The plan of the campaign: a seed fixes which faults strike, and each kind of fault strikes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from tests.campaign.faults import FAULTS
from tests.campaign.plan import Step, plan_steps
from tests.campaign.plant import FaultFile, build_machine_faults


def plan(seed: int, are_alone: bool) -> list[Step]:
    return list(islice(plan_steps(seed, are_alone), 2 * len(FAULTS)))


@pytest.mark.parametrize("are_alone", [True, False])
def test_a_seed_fixes_the_faults(are_alone: bool) -> None:
    assert plan(7, are_alone) == plan(7, are_alone)
    assert plan(7, are_alone) != plan(8, are_alone)


@pytest.mark.parametrize("seed", range(20))
def test_each_kind_of_fault_strikes_before_any_of_them_strikes_again(seed: int) -> None:
    kinds = [step.faults[0].fault.KIND for step in plan(seed, are_alone=True)]
    assert sorted(kinds[: len(FAULTS)]) == sorted(FAULTS)
    assert Counter(kinds) == dict.fromkeys(FAULTS, 2)


@pytest.mark.parametrize("seed", range(20))
def test_two_faults_at_once_are_of_two_kinds_and_overlap_or_follow_each_other_soon(seed: int) -> None:
    for step in plan(seed, are_alone=False):
        first, second = step.faults
        assert first.fault.KIND != second.fault.KIND
        assert 0 <= second.delay_s <= 3


def test_each_target_of_each_kind_can_be_struck() -> None:
    struck = {(fault.fault.KIND, fault.fault.target) for seed in range(60) for step in plan(seed, are_alone=True) for fault in step.faults}
    assert struck == {(kind, target) for kind, fault in FAULTS.items() for target in fault.TARGETS}


@pytest.mark.real
def test_a_machine_with_preloaded_faults_has_a_wrong_clock_and_a_slow_disk(tmp_path: Path) -> None:
    library, faults = build_machine_faults(tmp_path), FaultFile(tmp_path / "faults")
    faults.set_clock_offset_s(-3600)
    faults.set_flush_delay_s(0.3)
    code = (
        "import datetime, json, os, time; began = time.monotonic(); os.fsync(os.open('.', os.O_RDONLY)); "
        "print(json.dumps([time.time(), datetime.datetime.now(datetime.UTC).timestamp(), time.monotonic() - began]))"
    )
    environment = {"LD_PRELOAD": str(library), "CAMPAIGN_FAULTS": str(faults.path), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    wall_s, date_s, flush_s = json.loads(done.stdout)
    assert wall_s == pytest.approx(time.time() - 3600, abs=30)
    assert date_s == pytest.approx(wall_s, abs=1)
    assert flush_s >= 0.3
